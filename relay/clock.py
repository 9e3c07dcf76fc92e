"""Own the one clock of the process; everything else is given it."""

from datetime import UTC, datetime


def now() -> datetime:
    """Return now as an aware UTC datetime."""
    return datetime.now(UTC)  # noqa: TID251 -- what stands here is given to all others
