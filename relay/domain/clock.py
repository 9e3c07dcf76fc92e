"""Own the one clock of the process; everything else is given it."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Tell the time."""

    def __call__(self) -> datetime:
        """Return now as an aware UTC datetime."""
