"""Held requests of transports that know only how to send: one task waits for each answer."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.ports import Done


class HoldsInTask:
    """A transport whose held requests are tasks that send."""

    __slots__ = ()

    async def send(self, request: HttpRequest) -> HttpReply:
        """Return the answer, as Transport says."""
        raise NotImplementedError

    async def hold(self, request: HttpRequest, done: Done) -> "TaskedRequest":
        """Start to send a request; an error before it is sent goes to `done`, too."""
        return TaskedRequest(self.send(request), done)


class TaskedRequest:
    """A held request for which a task waits."""

    __slots__ = ("_task",)

    def __init__(self, sending: Coroutine[Any, Any, HttpReply], done: Done) -> None:
        """Start the task."""
        self._task = asyncio.get_running_loop().create_task(sending)
        self._task.add_done_callback(partial(_report, done))

    async def give_up(self) -> None:
        """Cancel the task; return when it has ended."""
        self._task.cancel()
        await asyncio.wait([self._task])


def _report(done: Done, task: "asyncio.Task[HttpReply]") -> None:
    if task.cancelled():
        return
    error = task.exception()
    if isinstance(error, Exception):
        done(error)
    elif error is None:
        done(task.result())
