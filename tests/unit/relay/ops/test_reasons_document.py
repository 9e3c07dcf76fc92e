from pathlib import Path

import pytest

from eas_watcher.reasons import Reason
from relay.domain.reasons import REASONS
from relay.ops.reasons_document import write

DOCUMENT = Path(__file__).parents[4] / "docs" / "reasons.md"


def test_the_document_has_what_the_table_says() -> None:
    assert DOCUMENT.read_text() == write(), "run `make docs`"


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_has_one_line(reason: Reason) -> None:
    (line,) = [line for line in write().splitlines() if line.startswith(f"| `{reason}` |")]

    assert REASONS[reason].remedy in line
    assert line.count(" | ") == 3
