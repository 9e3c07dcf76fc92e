"""Waiting for facts that set no event: of other processes, of simulators, of what a server keeps."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Final

SOON: Final = 60.0
"""Seconds, more than a busy machine takes for anything that a test waits for; a limit, never a wait."""
FIRST: Final = 0.002
LAST: Final = 0.05
"""Seconds between two looks: the first are close together, so that a short wait stays short."""


async def until(fact: Callable[[], object | Awaitable[object]], seconds: float = SOON) -> None:
    """Return once `fact()`, or what it awaits, is true; else fail after so many seconds and say what was waited for.

    The seconds are real ones, also on a loop whose time the test puts forward.
    """
    deadline = time.monotonic() + seconds
    pause = FIRST
    while not (found := await _look(fact)):
        if time.monotonic() >= deadline:
            raise AssertionError(f"after {seconds:g} seconds still {found!r}: {describe(fact)}")
        await asyncio.sleep(pause)
        pause = min(2 * pause, LAST)


async def _look(fact: Callable[[], object | Awaitable[object]]) -> object:
    found = fact()
    return await found if inspect.isawaitable(found) else found


def describe(fact: Callable[[], object]) -> str:
    """Return the source of a function and where it stands, on one line."""
    try:
        lines, first = inspect.getsourcelines(fact)
    except (OSError, TypeError):  # of a built-in function, or of an object that is called
        return repr(fact)
    source = " ".join(line.strip() for line in lines)
    return f"{source} ({inspect.getsourcefile(fact)}:{first})"
