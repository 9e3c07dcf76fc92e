"""The type of the clock that a process hands to its parts."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """The present time."""

    def __call__(self) -> datetime:
        """Return now as an aware UTC datetime."""
