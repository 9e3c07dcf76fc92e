from pathlib import Path
from typing import Final

import pytest

from eas_watcher.commands.sync import CollectionRequest, Sync
from eas_watcher.errors import Unauthorized
from eas_watcher.machine.memory import Progress
from eas_watcher.machine.state import Record, Send
from eas_watcher.names import NO_SYNC_KEY
from eas_watcher.tools.statuses.document import write
from eas_watcher.tools.statuses.rehearsal import CALENDAR, INBOX, Case, describe, rehearse, span

DOCUMENT: Final = Path(__file__).parents[5] / "docs" / "eas-statuses.md"


def test_the_document_says_what_the_code_does() -> None:
    assert DOCUMENT.read_text() == write(), "run `make docs`"


@pytest.mark.parametrize(
    ("seconds", "text"), [(5.0, "5 s"), (90.0, "90 s"), (60.0, "1 min"), (900.0, "15 min"), (21600.0, "6 h")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_a_sync_is_from_key_0_only_when_all_its_folders_are() -> None:
    keyless = CollectionRequest(INBOX.id, INBOX.cls, NO_SYNC_KEY)
    keyed = CollectionRequest(CALENDAR.id, CALENDAR.cls, CALENDAR.sync_key)

    assert describe(Send(Sync((keyless, keyed)))) == "Sync"
    assert describe(Send(Sync((keyless,)))) == "Sync from key 0"
    assert describe(Record(Progress())) == "record"


def test_a_refused_credential_is_rehearsed_to_its_end() -> None:
    conduct = rehearse(Case("", Unauthorized("no", others_accepted=True)))

    assert conduct.ended
    assert conduct.remedy == ("wait 1 min", "OPTIONS")
    assert [pause.seconds for pause in conduct.waits] == [60.0, 900.0]
