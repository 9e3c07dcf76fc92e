"""Own how long a push waits before the next try; randomness comes in as an argument."""

from random import Random
from typing import Final

FIRST: Final = 1.0  # seconds
CEILING: Final = 300.0  # seconds
RECHECK: Final = 3600.0
"""Seconds until a refused token is tried again: a corrected setting must heal without anybody touching the rows."""
RECHECK_CEILING: Final = 86_400.0  # seconds
TRIAL_FIRST: Final = 2.0  # seconds
TRIAL_CEILING: Final = 60.0  # seconds; a provider that is back is noticed within a minute
PAUSE_FIRST: Final = 30.0  # seconds
PAUSE_CEILING: Final = 300.0  # seconds; a key that was put right works within five minutes
SPREAD: Final = 0.3  # up to 30 % more or less, so that rows that failed together do not return in step


def retry(failures: int, random: Random) -> float:
    """Tell how many seconds a push waits after so many failures in a row (1 or more)."""
    return _doubled(FIRST, failures, CEILING) * (1.0 + random.uniform(-SPREAD, SPREAD))


def told(seconds: float, random: Random) -> float:
    """Tell how long to wait when the provider named a time: never less, up to 10 % and a second more."""
    return seconds * (1.0 + random.uniform(0.0, 0.1)) + random.uniform(0.0, 1.0)


def recheck(refusals: int, random: Random) -> float:
    """Tell how many seconds a token waits after so many refusals in a row (1 or more)."""
    return _doubled(RECHECK, refusals, RECHECK_CEILING) * (1.0 + random.uniform(-SPREAD, SPREAD))


def trial(failures: int, random: Random) -> float:
    """Tell how many seconds a provider that is away is left alone after so many failed trials (1 or more)."""
    return _doubled(TRIAL_FIRST, failures, TRIAL_CEILING) * (1.0 + random.uniform(-SPREAD, SPREAD))


def pause(faults: int) -> float:
    """Tell how many seconds a channel rests after so many faults in a row (1 or more)."""
    return _doubled(PAUSE_FIRST, faults, PAUSE_CEILING)


def _doubled(first: float, failures: int, ceiling: float) -> float:
    doubled: float = first * 2.0 ** min(failures - 1, 32)
    return min(ceiling, doubled)
