"""The JSON values of what administrators see: no device token, secret or credential is among them. Pure."""

from datetime import datetime
from typing import TypeAlias

from relay.admin.audit import Act
from relay.admin.values import Done, KeptMailbox, KeptRegistration, ListedMailbox, Maintenance, NotDone
from relay.domain.model import Mailbox, PushTest, RegistrationView
from relay.domain.reasons import row_of, write_reason
from relay.domain.timeline import Happening

Json: TypeAlias = dict[str, object]

NOT_EXPORTED = (
    "the sealed credential, which only the watch role can open",
    "the hash of each registration's secret, and its device token, which is a secret of the phone",
    "sync keys, and the ids of folders and of the items seen last: numbers that the mail server made, without content",
)
"""What the relay keeps besides, in words."""


def mailbox(listed: ListedMailbox) -> Json:
    """Return a mailbox as lists show it."""
    return {**_mailbox(listed.mailbox), "registrations": listed.registrations}


def registration(view: RegistrationView) -> Json:
    """Return a registration as lists show it."""
    own = view.registration
    return {
        "id": own.id,
        "mailbox": own.mailbox_id,
        "server": view.mailbox.server,
        "user": view.mailbox.user,
        "mailbox_state": view.mailbox.state.value,
        "app": own.app,
        "platform": own.platform.value,
        "environment": own.environment.value,
        "classes": sorted(each.value for each in own.classes),
        "subfolders": sorted(each.value for each in own.subfolders),
        "mode": own.mode.value,
        "locale": own.locale,
        "state": own.state.value,
        "created_at": _moment(own.created_at),
        "token_since": _moment(own.token_since),
        "last_push_at": _moment(own.last_push_at),
        "last_outcome": "" if own.last_outcome is None else own.last_outcome.line,
        "seen_at": _moment(view.seen_at),
        "credential": {"pending": view.candidate_pending, "refused": view.candidate_refused},
        "quarantine": None
        if own.quarantine is None
        else {
            "since": _moment(own.quarantine.since),
            "reason": own.quarantine.reason,
            "recheck_at": _moment(own.quarantine.recheck_at),
        },
    }


def act(entry: Act) -> Json:
    """Return an entry of the audit log."""
    return {
        "number": entry.number,
        "at": _moment(entry.at),
        "who": entry.who,
        "via": entry.via,
        "what": entry.what,
        "server": entry.server,
        "subject": entry.subject,
        "detail": entry.detail,
        "key": entry.key,
        "digest": entry.digest,
    }


def maintenance(kept: Maintenance) -> Json:
    """Return a server in maintenance."""
    return {"server": kept.server, "since": _moment(kept.since)}


def outcome(name: str, result: Done | NotDone) -> Json:
    """Return what became of an act."""
    match result:
        case Done(text):
            return {"id": name, "done": True, "text": text}
        case NotDone(why):  # pragma: no branch -- mypy proves that there is no other
            return {"id": name, "done": False, "text": why}


def export(kept: KeptMailbox) -> Json:
    """Return all that the relay keeps of a user, for the user: what is not here is named in words."""
    return {
        "mailbox": _mailbox(kept.mailbox),
        "registrations": [_kept_registration(each) for each in kept.registrations],
        "tries": [
            {"server": each.server, "user": each.user, "spent": each.spent, "last_at": _moment(each.last_at)}
            for each in kept.tries
        ],
        "wipes": [
            {"server": each.server, "user": each.user, "wiped_at": _moment(each.wiped_at)} for each in kept.wipes
        ],
        "acts": [act(each) for each in kept.acts],
        "events": [_event(each) for each in kept.events],
        "also_kept": list(NOT_EXPORTED),
    }


def _mailbox(own: Mailbox) -> Json:
    return {
        "id": own.id,
        "server": own.server,
        "user": own.user,
        "device_id": own.device_id,
        "state": own.state.value,
        "reason": write_reason(own.reason),
        "detail": own.detail,
        "since": _moment(own.since),
        "next_try_at": _moment(own.next_try_at),
        "last_ping_at": _moment(own.last_ping_at),
        "heartbeat": own.heartbeat,
        "last_change_at": _moment(own.last_change_at),
        "remedy": row_of(own.state, own.reason).remedy,
    }


def _kept_registration(kept: KeptRegistration) -> Json:
    return {
        **registration(kept.view),
        "tested_at": _moment(kept.tested_at),
        "proved_at": _moment(kept.proved_at),
        "idle_since": _moment(kept.idle_since),
        "waiting": [
            {
                "mark": mark.mark.value,
                "count": mark.count,
                "first_at": _moment(mark.first_at),
                "due_at": _moment(mark.due_at),
                "attempts": mark.attempts,
            }
            for mark in kept.marks
        ],
        "tests": [_test(each) for each in kept.tests],
    }


def _event(happening: Happening) -> Json:
    own = happening.event
    return {
        "at": _moment(happening.at),
        "kind": str(own.kind),
        "registration": own.registration_id,
        "what": own.what,
        "through": own.through,
        "result": own.result,
        "code": own.code,
        "count": happening.count,
    }


def _test(test: PushTest) -> Json:
    return {
        "id": test.id,
        "state": test.state.value,
        "asked_at": _moment(test.asked_at),
        "ended_at": _moment(test.ended_at),
        "reason": test.reason,
    }


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds").replace("+00:00", "Z")
