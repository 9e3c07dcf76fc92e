"""Fixed conversations as generators: a flow yields commands, receives their replies, and returns a value.

A flow has no socket and no clock. Its driver sends each yielded command, then sends the reply into the generator or
throws the EasError that came instead. So a flow reads top to bottom, and catches the errors that it can handle.
"""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeAlias, TypeVar

from eas_watcher.commands.request import Command
from eas_watcher.errors import EasError

Q = TypeVar("Q")
A = TypeVar("A")
R = TypeVar("R")

Flow: TypeAlias = Generator[Command[Any], Any, R]


def ask(command: Command[R]) -> Flow[R]:
    """Send one command and return its reply."""
    reply: R = yield command
    return reply


async def converse(flow: Generator[Q, A, R], send: Callable[[Q], Awaitable[A]]) -> R:
    """Run a flow with `send` and return its result; raises the EasError that the flow does not catch."""
    try:
        question = next(flow)
        while True:
            try:
                reply = await send(question)
            except EasError as error:
                question = flow.throw(error)
            else:
                question = flow.send(reply)
    except StopIteration as end:
        result: R = end.value
        return result
