"""Own fixed conversations: generators that yield commands, are sent their replies, and return a value.

A flow owns no socket and no clock. A driver sends each yielded command and either sends the reply into the generator
or throws the EasError that came instead, so a flow reads top to bottom and may catch what it has an answer to.
"""

from collections.abc import Generator
from typing import Any, TypeAlias, TypeVar

from eas_watcher.commands.request import Command

R = TypeVar("R")

Flow: TypeAlias = Generator[Command[Any], Any, R]


def ask(command: Command[R]) -> Flow[R]:
    """Send one command and return its reply."""
    reply: R = yield command
    return reply
