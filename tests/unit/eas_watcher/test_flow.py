import pytest

from eas_watcher.commands.folder_sync import FolderSync, FolderSyncReply
from eas_watcher.errors import HierarchyChanged, ServerBusy
from eas_watcher.flow import Flow, ask
from eas_watcher.names import SyncKey
from tests.unit.eas_watcher.play import play

COMMAND = FolderSync(SyncKey("1"))
REPLY = FolderSyncReply(SyncKey("2"))


def test_asking_sends_one_command_and_returns_its_reply() -> None:
    assert play(ask(COMMAND), (COMMAND, REPLY)) == REPLY


def test_a_flow_may_catch_what_it_has_an_answer_to() -> None:
    def patient() -> Flow[FolderSyncReply]:
        try:
            return (yield from ask(COMMAND))
        except ServerBusy:
            return (yield from ask(COMMAND))

    assert play(patient(), (COMMAND, ServerBusy("x")), (COMMAND, REPLY)) == REPLY


def test_what_a_flow_does_not_catch_ends_it() -> None:
    with pytest.raises(HierarchyChanged):
        play(ask(COMMAND), (COMMAND, HierarchyChanged("x")))
