"""The wall clock; all other code gets it as an argument."""

from datetime import UTC, datetime


def now() -> datetime:
    """Return the present time as an aware UTC datetime."""
    return datetime.now(UTC)  # noqa: TID251 -- the one place; all other code gets this function
