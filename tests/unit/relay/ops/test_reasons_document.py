from pathlib import Path

from eas_watcher.reasons import Reason
from relay.domain.reasons import REASONS
from relay.ops.reasons_document import write

DOCUMENT = Path(__file__).parents[4] / "docs" / "reasons.md"


def test_the_document_has_what_the_table_says() -> None:
    assert DOCUMENT.read_text() == write(), "run `make docs`"


def test_each_reason_has_one_line() -> None:
    lines = write().splitlines()
    for reason in Reason:
        found = [line for line in lines if line.startswith(f"| `{reason}` |")]

        assert len(found) == 1, reason
        assert REASONS[reason].remedy in found[0]
        assert found[0].count(" | ") == 3, reason
