"""Own the one clock of the process; everything else is given it."""

from datetime import UTC, datetime
from typing import Protocol


def now() -> datetime:
    """Return now as an aware UTC datetime."""
    return datetime.now(UTC)  # noqa: TID251 -- what stands here is given to all others


class Clock(Protocol):
    """Tell the time."""

    def __call__(self) -> datetime:
        """Return now as an aware UTC datetime."""
