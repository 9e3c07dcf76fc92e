"""How tests run flows from a script."""

from typing import Any, TypeVar

from eas_watcher.commands.flow import Flow
from eas_watcher.commands.request import Command
from eas_watcher.errors import EasError

R = TypeVar("R")


def play(flow: Flow[R], *script: tuple[Command[Any], Any]) -> R:
    """Run a flow against pairs of an expected command and its reply or EasError; return the result of the flow."""
    command: Command[Any] | None = next(flow)
    result: R | None = None
    for expected, reply in script:
        assert command == expected
        try:
            command = flow.throw(reply) if isinstance(reply, EasError) else flow.send(reply)
        except StopIteration as end:
            command, result = None, end.value
    assert command is None, f"the flow goes on with {command}"
    return result  # type: ignore[return-value]  # None only when R allows it
