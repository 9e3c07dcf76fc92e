from typing import Any

import pytest

from eas_watcher.commands.flow import Flow, ask, converse
from eas_watcher.commands.folder_sync import FolderSync, FolderSyncReply
from eas_watcher.commands.request import Command
from eas_watcher.errors import HierarchyChanged, ServerBusy
from eas_watcher.names import SyncKey
from tests.unit.eas_watcher.play import play

COMMAND = FolderSync(SyncKey("1"))
REPLY = FolderSyncReply(SyncKey("2"))


def patient() -> Flow[FolderSyncReply]:
    try:
        return (yield from ask(COMMAND))
    except ServerBusy:
        return (yield from ask(COMMAND))


def test_asking_sends_one_command_and_returns_its_reply() -> None:
    assert play(ask(COMMAND), (COMMAND, REPLY)) == REPLY


def test_a_flow_may_catch_an_error() -> None:
    assert play(patient(), (COMMAND, ServerBusy("x")), (COMMAND, REPLY)) == REPLY


def test_what_a_flow_does_not_catch_ends_it() -> None:
    with pytest.raises(HierarchyChanged):
        play(ask(COMMAND), (COMMAND, HierarchyChanged("x")))


async def test_converse_sends_each_command_and_hands_the_flow_its_answer() -> None:
    answers: list[FolderSyncReply | ServerBusy] = [ServerBusy("x"), REPLY]
    asked = []

    async def send(command: Command[Any]) -> FolderSyncReply:
        asked.append(command)
        answer = answers.pop(0)
        if isinstance(answer, ServerBusy):
            raise answer
        return answer

    assert await converse(patient(), send) == REPLY
    assert asked == [COMMAND, COMMAND]


async def test_converse_raises_the_error_that_the_flow_does_not_catch() -> None:
    async def send(_: Command[Any]) -> FolderSyncReply:
        raise HierarchyChanged("x")

    with pytest.raises(HierarchyChanged):
        await converse(patient(), send)
