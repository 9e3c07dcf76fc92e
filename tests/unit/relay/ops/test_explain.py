import json
from dataclasses import replace
from datetime import UTC, timedelta
from typing import cast

import pytest

from eas_watcher.machine.memory import WatchState
from eas_watcher.names import CollectionClass, MailboxId
from relay.domain.explanation import Findings, KnownRegistration, MailboxExplanation
from relay.domain.model import Mode, Quarantine
from relay.domain.outcome import LastOutcome, OutcomeKind
from relay.domain.timeline import Event, EventKind, Happening
from relay.ops.explain import document, strangers, text
from tests.unit.relay.ops.test_advice import MAILBOX, NOW, REGISTRATION, WAITING

CANARY = "canary-device-token"
OWN = replace(
    REGISTRATION,
    device_token=CANARY,
    secret_hash=CANARY.encode(),
    classes=frozenset({CollectionClass.EMAIL, CollectionClass.CALENDAR}),
    subfolders=frozenset({CollectionClass.EMAIL}),
    mode=Mode.ALERT,
    last_push_at=NOW - timedelta(hours=3),
    last_outcome=LastOutcome(OutcomeKind.DELIVERED),
)
CASE = MailboxExplanation(
    replace(MAILBOX, detail="it says why", last_ping_at=NOW - timedelta(seconds=90)),
    "node-1",
    NOW + timedelta(seconds=20),
    (KnownRegistration(OWN, candidate_pending=False, candidate_refused=True, marks=(WAITING,)),),
)


def test_people_read_what_happened_and_what_to_do() -> None:
    lines = text(CASE, NOW).splitlines()

    assert lines == [
        "mailbox mb-ann: ann@example.com at server main",
        "  state        watching, since 2026-11-24T12:00:00Z (0 seconds ago)",
        "  because      it says why",
        "  last Ping    2026-11-24T11:58:30Z (90 seconds ago), held up to 600 s",
        "  last change  never",
        "  device       id DEVICE, type PushRelay",
        "  watched by   node-1",
        "  to do        Nothing: the mail server holds a Ping for this mailbox.",
        "registration reg-ann: com.example.mail through apns (production)",
        "  state        active; alert pushes for calendar, email with sub-folders",
        "  last push    2026-11-24T09:00:00Z (3 hours ago)",
        "  provider     delivered",
        (
            "  waiting      email x 1, since 2026-11-24T12:00:00Z (0 seconds ago), 0 tries, "
            "due 2026-11-24T12:00:00Z (0 seconds ago)"
        ),
        "  to do        Nothing: a push is on its way.",
    ]


def test_moments_in_the_future_are_shown_too() -> None:
    mailbox = replace(MAILBOX, next_try_at=NOW + timedelta(minutes=5), last_ping_at=None, heartbeat=None)
    mark = replace(WAITING, due_at=NOW + timedelta(minutes=5), claimed=False)
    known = replace(CASE.registrations[0], marks=(mark, replace(mark, claimed=True)))

    told = text(MailboxExplanation(mailbox, None, None, (replace(known, registration=REGISTRATION),)), NOW)

    assert "next try     2026-11-24T12:05:00Z" in told
    assert "last Ping    not noted yet: look again in half a minute\n" in told
    waiting = replace(mailbox, state=WatchState.WAITING)
    assert "last Ping    never\n" in text(MailboxExplanation(waiting, None, None, ()), NOW)
    assert "watched by   no process" in told
    assert "due 2026-11-24T12:05:00Z (in 5 minutes)" in told
    assert "in hand" in told
    assert "provider     said nothing yet" in told


def test_programs_read_the_same() -> None:
    told = json.loads(json.dumps(document(Findings((CASE,)), NOW)[0]))

    assert told["mailbox"]["last_ping_at"] == "2026-11-24T11:58:30Z"
    assert (told["mailbox"]["device_id"], told["mailbox"]["device_type"]) == ("DEVICE", "PushRelay")
    assert told["mailbox"]["to_do"].startswith("Nothing: ")
    (own,) = told["registrations"]
    assert own["credential"] == {"pending": False, "refused": True}
    assert own["waiting"] == [
        {
            "mark": "email",
            "count": 1,
            "first_at": "2026-11-24T12:00:00Z",
            "due_at": "2026-11-24T12:00:00Z",
            "attempts": 0,
            "in_hand": False,
            "set_aside": None,
        }
    ]


def test_a_quarantine_and_a_parked_push_are_shown() -> None:
    quarantine = Quarantine(NOW - timedelta(hours=3), "BadDeviceToken", "look", NOW + timedelta(hours=2))
    known = replace(CASE.registrations[0], registration=replace(OWN, quarantine=quarantine))
    case = replace(CASE, registrations=(replace(known, marks=(replace(WAITING, parked="internal-error"),)),))

    assert (
        "  quarantine   BadDeviceToken since 2026-11-24T09:00:00Z (3 hours ago); "
        "the first change after 2026-11-24T14:00:00Z (in 2 hours) tries it again\n"
    ) in text(case, NOW)
    assert ", set aside: internal-error\n" in text(case, NOW)
    (own,) = json.loads(json.dumps(document(Findings((case,)), NOW)[0]))["registrations"]
    assert own["quarantine"] == {
        "since": "2026-11-24T09:00:00Z",
        "reason": "BadDeviceToken",
        "recheck_at": "2026-11-24T14:00:00Z",
    }


@pytest.mark.parametrize("told", [text(CASE, NOW), json.dumps(document(Findings((CASE,)), NOW)[0])])
def test_neither_shows_a_device_token_or_a_secret(told: str) -> None:
    assert CANARY not in told


PING = Happening(NOW - timedelta(hours=1), Event(EventKind.STATE, "mb-ann", what="watching"))
MAIL = Happening(NOW, Event(EventKind.NOTICED, "mb-ann", what="email"))
DENIED = Happening(NOW, Event(EventKind.DENIED, account=CANARY, code="credential"))


def test_people_read_what_happened_last() -> None:
    told = text(replace(CASE, events=(PING, MAIL)), NOW, UTC).splitlines()

    assert told[-3:] == [
        "happened last, times in UTC",
        "  2026-11-24 11:00:00  Ping held",
        "  2026-11-24 12:00:00  new mail noticed",
    ]


def test_people_read_what_was_so_at_a_moment() -> None:
    told = text(replace(CASE, events=(PING, MAIL)), NOW, UTC, at=NOW + timedelta(minutes=1)).splitlines()

    assert told[-3:] == [
        "around 2026-11-24 12:01:00, times in UTC",
        (
            "  A Ping was held, since 2026-11-24 11:00:00; new mail noticed at 2026-11-24 12:00:00; "
            "no push had an answer within 10 minutes."
        ),
        "  2026-11-24 12:00:00  new mail noticed",
    ]
    assert text(CASE, NOW, UTC, at=NOW).endswith("  no event is kept from then\n")


def test_programs_read_a_moment_too() -> None:
    (told,) = document(Findings((replace(CASE, events=(PING, MAIL)),)), NOW, NOW)

    assert told["at"] == "2026-11-24T12:00:00Z"
    assert str(told["verdict"]).startswith("A Ping was held")
    assert [each["words"] for each in cast("list[dict[str, str]]", told["events"])] == ["new mail noticed"]


def test_users_without_a_mailbox_are_told_of_without_a_mailbox() -> None:
    found = Findings(events=(DENIED,))

    assert strangers(found, "ann", NOW, UTC).splitlines() == [
        "ann has no mailbox here. Of users with this name, in any spelling and domain:",
        "happened last, times in UTC",
        "  2026-11-24 12:00:00  a registration was refused: wrong user or password, says the mail server",
    ]
    assert "Ping" not in strangers(found, "ann", NOW, UTC, at=NOW)
    (told,) = document(found, NOW)
    assert told["mailbox"] is None
    assert CANARY not in json.dumps(told)


def test_several_mailboxes_are_listed_and_nothing_of_them_explained() -> None:
    found = Findings(similar=(MAILBOX, replace(MAILBOX, id=MailboxId("mb-anna"), user="anna@example.com")))

    assert strangers(found, "ann", NOW) == (
        "ann@example.com\tmain\twatching\tmb-ann\nanna@example.com\tmain\twatching\tmb-anna\n"
    )
    assert [each["registrations"] for each in document(found, NOW)] == [None, None]
    assert strangers(Findings(), "ann", NOW) == ""
