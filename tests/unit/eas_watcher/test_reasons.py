import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from eas_watcher.reasons import Reason

ROOT: Final = Path(__file__).parents[3]
CODES: Final = {reason.value for reason in Reason if "-" in reason.value}


def texts(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize("package", ["eas_watcher", "relay"])
def test_reasons_are_written_as_text_in_one_module_only(package: str) -> None:
    sources = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / package).rglob("*.py")}
    mentioned = {path: source for path, source in sources.items() if any(code in source for code in CODES)}
    written = {path for path, source in mentioned.items() if CODES.intersection(texts(source))}

    assert written == ({"eas_watcher/reasons.py"} if package == "eas_watcher" else set())


def test_codes_are_lower_case_words() -> None:
    for reason in Reason:
        assert reason.value.replace("-", "").replace("_", "").isalnum()
        assert reason.value == reason.value.lower()
