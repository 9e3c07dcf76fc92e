"""A loop and a clock that run faster than real time, so that hours of waiting are minutes of a test.

Timers, time limits and the clock of the relay all follow; the work of the machine takes real time.
"""

import asyncio
import selectors
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

BEGAN: Final = time.monotonic()


class _Selector(selectors.DefaultSelector):
    """A selector that waits a fraction of the given time."""

    def __init__(self, speed: float) -> None:
        super().__init__()
        self._speed = speed

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(None if timeout is None else timeout / self._speed)


class HurriedLoop(asyncio.SelectorEventLoop):
    """An event loop in which so many seconds pass in each real second."""

    def __init__(self, speed: float) -> None:
        super().__init__(_Selector(speed))
        self._speed = speed

    def time(self) -> float:
        return BEGAN + (time.monotonic() - BEGAN) * self._speed


def clock_of(speed: float, began: datetime) -> Callable[[], datetime]:
    """Return a clock that follows such a loop."""
    start = time.monotonic()
    return lambda: began.astimezone(UTC) + timedelta(seconds=(time.monotonic() - start) * speed)


def run(speed: float, test: Any) -> None:
    """Run a test to its end on a hurried loop."""
    with asyncio.Runner(loop_factory=lambda: HurriedLoop(speed)) as runner:
        runner.run(test)
