"""Own the clock of the sandbox, which is a composition root of its own."""

from datetime import UTC, datetime


def now() -> datetime:
    """Return now as an aware UTC datetime."""
    return datetime.now(UTC)  # noqa: TID251  # this is the clock that others take as an argument
