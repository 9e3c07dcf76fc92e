from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eas_watcher.retry_after import retry_after

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 5 ", 5.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("7.", 7.0),
        ("9" * 400, 3600.0),
        ("999999", 3600.0),
        ("Mon, 23 Nov 2026 08:00:30 GMT", 30.0),
        ("Mon, 23 Nov 2026 08:00:30 -0000", 30.0),
        ("Mon, 23 Nov 2026 07:00:00 GMT", 0.0),
        ("Mon, 23 Nov 2099 08:00:00 GMT", 3600.0),
        ("", None),
        ("soon", None),
        ("-3", None),
        (".5", None),
        ("1.5.2", None),
        ("nan", None),
        ("٣", None),
        ("Mon, 99 Nov 2026 08:00:30 GMT", None),
        ("05 Mar 99999999999999999999 12:61 06 GMT", None),
    ],
)
def test_retry_after_names_seconds_or_a_date_or_nothing(value: str, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


@given(st.text())
@example("Mon, 01 Jan 0001 00:00:00 +2359")
def test_no_header_breaks_retry_after(value: str) -> None:
    seconds = retry_after(value, NOW)

    assert seconds is None or 0.0 <= seconds <= 3600.0
