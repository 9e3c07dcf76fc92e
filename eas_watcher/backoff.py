"""How long to wait before the next try; randomness is an argument."""

from random import Random
from typing import Final

FIRST: Final = 5.0  # seconds [MS-ASHTTP leaves it open; 5 s doubling is what phones do]
CEILING: Final = 600.0  # seconds
SPREAD: Final = 0.3  # up to 30 % more or less, so that a fleet does not return in step


def delay(failures: int, random: Random) -> float:
    """Return how many seconds to wait after so many failures in a row (1 or more)."""
    return _plain(failures) * (1.0 + random.uniform(-SPREAD, SPREAD))


def least(failures: int) -> float:
    """Return the shortest time that `delay` can return, in seconds."""
    return _plain(failures) * (1.0 - SPREAD)


def at_least(seconds: float, random: Random) -> float:
    """Return how many seconds to wait when a server named a time: no less, and up to 10 % more to spread the fleet."""
    return seconds * (1.0 + random.uniform(0.0, 0.1))


def _plain(failures: int) -> float:
    plain: float = min(CEILING, FIRST * 2.0 ** min(failures - 1, 16))
    return plain
