import pytest

from eas_watcher.reasons import Reason
from relay.domain.reasons import read_detail, read_reason, write_reason


@pytest.mark.parametrize("reason", [None, *Reason])
def test_a_reason_is_read_as_it_was_written(reason: Reason | None) -> None:
    text = write_reason(reason)

    assert read_reason(text) is reason


def test_known_reasons_keep_their_detail() -> None:
    assert read_detail("unreachable", "no route") == "no route"
    assert read_detail("", "") == ""


def test_a_reason_of_a_newer_version_is_unknown_and_its_text_stays_in_the_detail() -> None:
    assert read_reason("eas-999") is Reason.UNKNOWN
    assert read_detail("eas-999", "") == "eas-999, a reason that this version of the relay does not know"
    assert read_detail("eas-999", "why").endswith("does not know: why")
