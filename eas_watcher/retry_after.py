"""Retry-After, the header by which a mail server or a push provider asks for a pause [RFC 9110 10.2.3]."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from re import compile as pattern
from typing import Final

LONGEST: Final = 3600.0
"""Seconds; a longer wait is shortened to this, so that one wrong date does not stop requests for good."""
SECONDS: Final = pattern(r"[0-9]+(\.[0-9]*)?")
"""Fractions are not in the RFC [observed: Exchange 2010]."""


def retry_after(value: str, now: datetime) -> float | None:
    """Return the wait in seconds, 0 to LONGEST, that a header's value names; None if it names none.

    The value is a number of seconds or a date; `now` is an aware datetime.
    """
    value = value.strip()
    if SECONDS.fullmatch(value):
        return min(float(value), LONGEST)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # no date, or one with a number beyond all bounds
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, min((moment - now).total_seconds(), LONGEST))
