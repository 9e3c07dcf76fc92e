"""One call at a time of an operation whose result many callers share, e.g. the renewal of an access token."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Runs an operation in a task of its own: a caller that gives up waiting does not disturb the others.

    It keeps no reference to the operation between two runs, so that it may be a method of the object that owns this
    one without the two keeping each other alive.
    """

    def __init__(self, name: str) -> None:
        """Run nothing yet; `name` is that of the tasks."""
        self._name = name
        self._task: asyncio.Task[T] | None = None

    @property
    def task(self) -> "asyncio.Task[T] | None":
        """The run under way; None: nothing runs."""
        return self._task

    def begin(
        self, operation: Callable[[], Awaitable[T]], on_failure: Callable[[BaseException], None]
    ) -> "asyncio.Task[T]":
        """Start a run unless one is under way; return its task, which callers await through `asyncio.shield`.

        `on_failure` is called with the exception that ends the run; not when the run is cancelled.
        """
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(_run(operation), name=self._name)
            self._task.add_done_callback(partial(self._ended, on_failure))
        return self._task

    async def cancel(self) -> None:
        """Cancel the run under way and return when it has ended."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def _ended(self, on_failure: Callable[[BaseException], None], task: "asyncio.Task[T]") -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            on_failure(error)


async def _run(operation: Callable[[], Awaitable[T]]) -> T:
    return await operation()
