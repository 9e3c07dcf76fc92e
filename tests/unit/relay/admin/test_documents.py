"""The JSON values of what administrators see: complete, and without secrets."""

import json
from dataclasses import replace

from eas_watcher.machine.memory import WatchState
from relay.admin import documents
from relay.admin.audit import START, AuditKey, Stamp, What, new_act
from relay.admin.values import (
    Done,
    KeptMailbox,
    KeptMark,
    KeptRegistration,
    ListedMailbox,
    Maintenance,
    NotDone,
    Tries,
    Wiped,
)
from relay.domain.model import Mark, PushTest, PushTestState, Quarantine
from relay.domain.outcome import LastOutcome
from relay.domain.timeline import Event, EventKind, Happening
from tests.contract.samples import LATER, NOW
from tests.unit.relay.admin.test_rules import MAILBOX, PHONE, view

ACT = new_act(Stamp("cleo", "cli", NOW, (AuditKey(b"k" * 32),)), What.MAILBOX_EXPORT, (0, START), user="ann")


def test_a_mailbox_says_what_to_do() -> None:
    found = documents.mailbox(ListedMailbox(replace(MAILBOX, state=WatchState.PAUSED), 2))

    assert (found["state"], found["registrations"], found["since"]) == ("paused", 2, "2026-11-24T08:30:15Z")
    assert "relay mailboxes resume" in str(found["remedy"])


def test_a_registration_has_its_state_and_its_quarantine_but_no_device_token() -> None:
    own = replace(
        PHONE, quarantine=Quarantine(NOW, "BadDeviceToken", "x", LATER), last_outcome=LastOutcome.read("delivered")
    )
    found = documents.registration(replace(view(), registration=own))

    assert found["quarantine"] == {
        "since": "2026-11-24T08:30:15Z",
        "reason": "BadDeviceToken",
        "recheck_at": "2026-11-24T08:31:15Z",
    }
    assert found["last_outcome"] == "delivered"
    assert documents.registration(view())["quarantine"] is None
    assert own.device_token not in json.dumps(found)


def test_an_outcome_says_whether_it_was_done() -> None:
    assert documents.outcome("m", Done("so be it")) == {"id": "m", "done": True, "text": "so be it"}
    assert documents.outcome("m", NotDone("no")) == {"id": "m", "done": False, "text": "no"}


def test_maintenance_and_acts_are_plain_values() -> None:
    assert documents.maintenance(Maintenance("main", NOW)) == {"server": "main", "since": "2026-11-24T08:30:15Z"}
    found = documents.act(ACT)
    assert (found["number"], found["who"], found["what"]) == (1, "cleo", "mailbox.export")
    assert json.loads(json.dumps(found)) == found


def test_an_export_has_all_that_is_kept_and_names_what_is_left_out() -> None:
    kept = KeptMailbox(
        MAILBOX,
        (
            KeptRegistration(
                view(),
                NOW,
                NOW,
                None,
                (KeptMark(Mark.EMAIL, 2, NOW, LATER, 1),),
                (PushTest("t1", PushTestState.DELIVERED, NOW, LATER),),
            ),
        ),
        (Tries("main", "ann", 1, NOW),),
        (Wiped("main", "ann", NOW),),
        (ACT,),
        (Happening(NOW, Event(EventKind.NOTICED, "m", what="email"), 2),),
    )

    found = json.loads(json.dumps(documents.export(kept)))

    [phone] = found["registrations"]
    assert phone["waiting"][0]["mark"] == "email"
    assert phone["tests"][0]["state"] == "delivered"
    assert phone["idle_since"] is None
    assert found["tries"][0]["spent"] == 1
    assert found["wipes"][0]["wiped_at"] == "2026-11-24T08:30:15Z"
    assert found["acts"][0]["what"] == "mailbox.export"
    assert (found["events"][0]["kind"], found["events"][0]["count"]) == ("noticed", 2)
    assert "sealed credential" in found["also_kept"][0]
    assert PHONE.device_token not in json.dumps(found)
