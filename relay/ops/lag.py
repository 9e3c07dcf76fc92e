"""The lag of the event loop: how late timers fire, the first sign of a process with too much to do."""

import asyncio
from collections import deque
from typing import Final

PERIOD: Final = 1.0  # seconds between two measurements
MEMORY: Final = 30  # measurements: half a minute, longer than the time between two scrapes


class LoopLag:
    """The lag of the running loop, measured all the time."""

    def __init__(self, period: float = PERIOD) -> None:
        """Set up with the seconds between two measurements."""
        self._period = period
        self._lags: deque[float] = deque(maxlen=MEMORY)

    @property
    def worst(self) -> float:
        """The greatest lag of the last half minute, in seconds."""
        return max(self._lags, default=0.0)

    async def run(self) -> None:
        """Measure until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + self._period
            await asyncio.sleep(self._period)
            self._lags.append(max(0.0, clock() - due))
