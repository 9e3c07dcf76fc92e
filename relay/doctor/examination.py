"""The examination: all checks at once, each within a time of its own, and their findings in a fixed order."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from relay.doctor.finding import Finding, Subject

T = TypeVar("T")

LIMIT: Final = 11.0
"""Seconds for one check. All run at once, so this, the start of Python and the last check take less than 15."""


class Check(NamedTuple):
    """One check, which may have several findings."""

    subject: Subject
    """What its finding is about if it takes too long."""
    look: Callable[[], Awaitable[Sequence[Finding]]]


async def examine(checks: Sequence[Check], limit: float = LIMIT) -> AsyncIterator[Finding]:
    """Begin all checks at once, and yield their findings in the order of the checks, each as soon as it is known."""
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(_within(limit, check), name=f"check {check.subject}") for check in checks]
    try:
        for task in tasks:
            for finding in await task:
                yield finding
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _within(limit: float, check: Check) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(limit):
            return await check.look()
    except TimeoutError:
        remedy = "see what hangs on the way there: name servers, firewalls, or the other side itself"
        return [check.subject.bad(f"no answer within {limit:g} s", remedy)]


class Once(Generic[T]):
    """A question that several checks ask, and that goes out once."""

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        """Ask when the first check wants to know."""
        self._ask = ask
        self._task: asyncio.Task[T] | None = None

    async def answer(self) -> T:
        """Return the answer; a check that waits no longer does not stop the question."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="a question of several checks")
        return await asyncio.shield(self._task)

    async def _run(self) -> T:
        return await self._ask()

    async def cancel(self) -> None:
        """Stop asking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
