"""Own the reading of Retry-After, the header by which every provider asks for a pause [RFC 9110 10.2.3]."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

LONGEST: Final = 3600.0
"""Seconds; a longer Retry-After is not believed, lest one wrong date keeps a push for ever."""


def retry_after(value: str, now: datetime) -> float | None:
    """Read seconds or a date; None when the value names no time."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value), LONGEST)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, min((moment - now).total_seconds(), LONGEST))
