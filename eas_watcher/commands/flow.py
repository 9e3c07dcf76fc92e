"""Own fixed conversations: generators that yield commands, are sent their replies, and return a value.

A flow owns no socket and no clock. A driver sends each yielded command and either sends the reply into the generator
or throws the EasError that came instead, so a flow reads top to bottom and may catch what it has an answer to.
"""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeAlias, TypeVar

from eas_watcher.commands.request import Command
from eas_watcher.errors import EasError

R = TypeVar("R")

Flow: TypeAlias = Generator[Command[Any], Any, R]


def ask(command: Command[R]) -> Flow[R]:
    """Send one command and return its reply."""
    reply: R = yield command
    return reply


async def converse(flow: Flow[R], send: Callable[[Command[Any]], Awaitable[Any]]) -> R:
    """Drive a flow with what sends one command and returns its reply; raises the EasError that the flow lets pass."""
    try:
        command = next(flow)
        while True:
            try:
                reply = await send(command)
            except EasError as error:
                command = flow.throw(error)
            else:
                command = flow.send(reply)
    except StopIteration as end:
        result: R = end.value
        return result
