"""How long one push waits before its next try; randomness is an argument."""

from random import Random
from typing import Final

FIRST: Final = 1.0  # seconds
CEILING: Final = 300.0  # seconds
RECHECK: Final = 3600.0
"""Seconds until a refused token is tried again: a corrected setting must heal without anybody touching the rows."""
RECHECK_CEILING: Final = 86_400.0  # seconds
PASSING: Final = 60.0
"""Seconds until a device is tried again whose pushes alone fail, in a way that may pass by itself."""
PASSING_CEILING: Final = 900.0  # seconds
SPREAD: Final = 0.3  # up to 30 % more or less, so that rows that failed together do not return in step


def retry(failures: int, random: Random) -> float:
    """Return how many seconds a push waits after so many failures in a row (1 or more)."""
    return _doubled(FIRST, failures, CEILING) * (1.0 + random.uniform(-SPREAD, SPREAD))


def at_least(seconds: float, random: Random) -> float:
    """Return how many seconds a push waits when its provider named a time: no less, up to 10 % and a second more."""
    return seconds * (1.0 + random.uniform(0.0, 0.1)) + random.uniform(0.0, 1.0)


def recheck(refusals: int, random: Random, *, passing: bool = False) -> float:
    """Return how many seconds a token waits after so many refusals in a row (1 or more)."""
    first, ceiling = (PASSING, PASSING_CEILING) if passing else (RECHECK, RECHECK_CEILING)
    return _doubled(first, refusals, ceiling) * (1.0 + random.uniform(-SPREAD, SPREAD))


def _doubled(first: float, failures: int, ceiling: float) -> float:
    doubled: float = first * 2.0 ** min(failures - 1, 32)
    return min(ceiling, doubled)
