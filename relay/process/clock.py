"""The wall clock; only the composition root and the programs read it."""

from datetime import UTC, datetime


def now() -> datetime:
    """Return now as an aware UTC datetime."""
    return datetime.now(UTC)  # noqa: TID251 -- what stands here is given to all others
