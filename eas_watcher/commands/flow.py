"""Own fixed conversations: generators that yield commands, are sent their replies, and return a value.

A flow owns no socket and no clock. A driver sends each yielded command and either sends the reply into the generator
or throws the EasError that came instead, so a flow reads top to bottom and may catch what it has an answer to.
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
    """Drive a flow: send what it yields, and send it the reply or throw the EasError that came instead.

    Return what the flow returns; raises the EasError that it lets pass.
    """
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
