import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from eas_watcher.reasons import Reason

ROOT: Final = Path(__file__).parents[3]
CODES: Final = {reason.value for reason in Reason if "-" in reason.value}
SOURCES: Final = [path for package in ("eas_watcher", "relay") for path in sorted((ROOT / package).rglob("*.py"))]


def texts(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize("package", ["eas_watcher", "relay"])
def test_reasons_are_written_as_text_in_one_module_only(package: str) -> None:
    written = {path.relative_to(ROOT).as_posix() for path in SOURCES if CODES.intersection(texts(path))}

    assert {path for path in written if path.startswith(f"{package}/")} == (
        {"eas_watcher/reasons.py"} if package == "eas_watcher" else set()
    )


def test_codes_are_lower_case_words() -> None:
    for reason in Reason:
        assert reason.value.replace("-", "").replace("_", "").isalnum()
        assert reason.value == reason.value.lower()
