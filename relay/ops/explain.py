"""The explanation of a mailbox: lines for people, JSON values for programs.

Neither has a device token, secret or credential.
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, tzinfo
from typing import Final

from eas_watcher.machine.memory import WatchState
from eas_watcher.names import DEVICE_TYPE
from relay.domain.explanation import Findings, KnownRegistration, MailboxExplanation, UnreadableMailbox, WaitingMark
from relay.domain.model import Mailbox, Quarantine, Registration
from relay.domain.reasons import write_reason
from relay.domain.timeline import Happening
from relay.ops import timeline
from relay.ops.advice import advise_on_mailbox, advise_on_registration
from relay.ops.unreadable import REMEDY


def document(found: Findings, now: datetime, at: datetime | None = None) -> list[dict[str, object]]:
    """Return what was found as JSON values; moments as ISO 8601 in UTC, null where there is none.

    Several mailboxes of which the name is a part have no registrations and events. Events of an account without a
    mailbox stand in an element whose mailbox is null.
    """
    documents = [_document(each, now, at) for each in found.mailboxes]
    documents += [{"mailbox": _names(each), "registrations": None} for each in found.similar]
    if found.events:
        documents.append({"mailbox": None, "registrations": [], "events": timeline.document(found.events)})
    return documents


def _names(mailbox: Mailbox) -> dict[str, object]:
    return {"id": mailbox.id, "server": mailbox.server, "user": mailbox.user, "state": mailbox.state.value}


def _document(
    explanation: MailboxExplanation | UnreadableMailbox, now: datetime, at: datetime | None
) -> dict[str, object]:
    unreadable = [asdict(row) for row in explanation.unreadable]
    if isinstance(explanation, UnreadableMailbox):
        return {"mailbox": {"id": explanation.id, "to_do": REMEDY}, "registrations": [], "unreadable": unreadable}
    mailbox = explanation.mailbox
    return {
        "mailbox": {
            "id": mailbox.id,
            "server": mailbox.server,
            "user": mailbox.user,
            "device_id": mailbox.device_id,
            "device_type": DEVICE_TYPE,
            "state": mailbox.state.value,
            "reason": write_reason(mailbox.reason),
            "detail": mailbox.detail,
            "since": _moment(mailbox.since),
            "next_try_at": _moment(mailbox.next_try_at),
            "last_ping_at": _moment(mailbox.last_ping_at),
            "heartbeat": mailbox.heartbeat,
            "last_change_at": _moment(mailbox.last_change_at),
            "watched_by": explanation.owner,
            "lease_until": _moment(explanation.owned_until),
            "to_do": advise_on_mailbox(explanation, now),
        },
        "registrations": [_registration(known, mailbox, now) for known in explanation.registrations],
        "unreadable": unreadable,
        "events": timeline.document(explanation.events if at is None else timeline.around(explanation.events, at)),
        **({} if at is None else {"at": _moment(at), "verdict": timeline.verdict(explanation.events, at, UTC)}),
    }


def text(
    explanation: MailboxExplanation | UnreadableMailbox,
    now: datetime,
    zone: tzinfo | None = None,
    at: datetime | None = None,
) -> str:
    """Return an explanation as lines for people, with the last events, or with those around a moment.

    Events are in `zone`; None: the zone of this host.
    """
    if isinstance(explanation, UnreadableMailbox):
        lines = [f"mailbox {explanation.id}: its row cannot be read, so nothing is known of it", *_aside(explanation)]
        return "\n".join(lines) + "\n"
    mailbox = explanation.mailbox
    state = f"{mailbox.state.value} {write_reason(mailbox.reason)}".rstrip()
    lines = [
        f"mailbox {mailbox.id}: {mailbox.user} at server {mailbox.server}",
        f"  state        {state}, since {_ago(mailbox.since, now)}",
        *([f"  because      {mailbox.detail}"] if mailbox.detail else []),
        f"  last Ping    {_last_ping(mailbox, now)}{_held(mailbox)}",
        f"  last change  {_ago(mailbox.last_change_at, now)}",
        *([f"  next try     {_moment(mailbox.next_try_at)}"] if mailbox.next_try_at else []),
        f"  device       id {mailbox.device_id}, type {DEVICE_TYPE}",
        f"  watched by   {explanation.owner or 'no process'}",
        f"  to do        {advise_on_mailbox(explanation, now)}",
    ]
    for known in explanation.registrations:
        own = known.registration
        classes = ", ".join(_with_subfolders(own))
        lines += [
            f"registration {own.id}: {own.app} through {own.platform.value} ({own.environment.value})",
            f"  state        {own.state.value}; {own.mode.value} pushes for {classes}",
            f"  last push    {_ago(own.last_push_at, now)}",
            f"  provider     {_last_outcome(own) or 'said nothing yet'}",
            *([f"  quarantine   {_quarantined(own.quarantine, now)}"] if own.quarantine else []),
            *(f"  waiting      {_waiting(mark, now)}" for mark in known.marks),
            f"  to do        {_advise(known, mailbox, now)}",
        ]
    lines += _aside(explanation) + _happened(explanation.events, now, zone, at)
    return "\n".join(lines) + "\n"


def strangers(found: Findings, name: str, now: datetime, zone: tzinfo | None = None, at: datetime | None = None) -> str:
    """Return lines about mailboxes with a similar name, and about users without a mailbox; empty: there are none."""
    lines = [f"{each.user}\t{each.server}\t{each.state.value}\t{each.id}" for each in found.similar]
    if found.events:
        lines.append(f"{name} has no mailbox here. Of users with this name, in any spelling and domain:")
        lines += _happened(found.events, now, zone, at, judged=False)
    return "\n".join([*lines, ""]) if lines else ""


def _happened(
    events: Sequence[Happening], now: datetime, zone: tzinfo | None, at: datetime | None, *, judged: bool = True
) -> list[str]:
    """Return the lines about events: the last ones, or those around a moment with what they show of it."""
    named = timeline.zone_of(at or now, zone)
    if at is None:
        shown = events[-timeline.SHOWN :]
        return [f"happened last, times in {named}", *timeline.lines(shown, zone)] if shown else []
    shown = timeline.around(events, at)
    heading = f"around {timeline.clock_time(at, zone)}, times in {named}"
    verdict = [f"  {timeline.verdict(events, at, zone)}"] if judged else []
    return [heading, *verdict, *(timeline.lines(shown, zone) or ["  no event is kept from then"])]


def _aside(explanation: MailboxExplanation | UnreadableMailbox) -> list[str]:
    """Return the lines about rows that cannot be read."""
    rows = [f"{row.table} {row.key}: cannot be read, so set aside: {row.fault}" for row in explanation.unreadable]
    return [*rows, f"  to do        {REMEDY}"] if rows else []


def _registration(known: KnownRegistration, mailbox: Mailbox, now: datetime) -> dict[str, object]:
    own = known.registration
    return {
        "id": own.id,
        "app": own.app,
        "platform": own.platform.value,
        "environment": own.environment.value,
        "classes": sorted(cls.value for cls in own.classes),
        "subfolders": sorted(cls.value for cls in own.subfolders),
        "mode": own.mode.value,
        "state": own.state.value,
        "created_at": _moment(own.created_at),
        "credential": {"pending": known.candidate_pending, "refused": known.candidate_refused},
        "last_push_at": _moment(own.last_push_at),
        "last_outcome": _last_outcome(own),
        "quarantine": None
        if own.quarantine is None
        else {
            "since": _moment(own.quarantine.since),
            "reason": own.quarantine.reason,
            "recheck_at": _moment(own.quarantine.recheck_at),
        },
        "waiting": [
            {
                "mark": mark.mark.value,
                "count": mark.count,
                "first_at": _moment(mark.first_at),
                "due_at": _moment(mark.due_at),
                "attempts": mark.attempts,
                "in_hand": mark.claimed,
                "set_aside": mark.parked or None,
            }
            for mark in known.marks
        ],
        "to_do": _advise(known, mailbox, now),
    }


def _advise(known: KnownRegistration, mailbox: Mailbox, now: datetime) -> str:
    return advise_on_registration(known, mailbox.reason, now, paused=mailbox.state is WatchState.PAUSED)


def _with_subfolders(own: Registration) -> list[str]:
    """Return the classes of a registration, with a remark where sub-folders count too."""
    return sorted(f"{cls.value} with sub-folders" if cls in own.subfolders else cls.value for cls in own.classes)


def _last_outcome(own: Registration) -> str:
    return "" if own.last_outcome is None else own.last_outcome.line


def _held(mailbox: Mailbox) -> str:
    return "" if mailbox.heartbeat is None else f", held up to {mailbox.heartbeat:.0f} s"


def _quarantined(quarantine: Quarantine, now: datetime) -> str:
    since, recheck = _ago(quarantine.since, now), _ago(quarantine.due_at(now), now)
    return f"{quarantine.reason} since {since}; the first change after {recheck} tries it again"


def _waiting(mark: WaitingMark, now: datetime) -> str:
    when = "in hand" if mark.claimed else f"due {_ago(mark.due_at, now)}"
    when += f", set aside: {mark.parked}" if mark.parked else ""
    return f"{mark.mark.value} x {mark.count}, since {_ago(mark.first_at, now)}, {mark.attempts} tries, {when}"


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _last_ping(mailbox: Mailbox, now: datetime) -> str:
    """Return when the last Ping began; the first one is noted up to half a minute later."""
    if mailbox.last_ping_at is None and mailbox.state is WatchState.WATCHING:
        return "not noted yet: look again in half a minute"
    return _ago(mailbox.last_ping_at, now)


def _ago(moment: datetime | None, now: datetime) -> str:
    """Return a moment with its distance from now."""
    if moment is None:
        return "never"
    seconds = int((now - moment).total_seconds())
    size, unit = next(((size, unit) for size, unit in _UNITS if abs(seconds) >= 2 * size), (1, "seconds"))
    distance = f"{abs(seconds) // size} {unit}"
    return f"{_moment(moment)} ({distance} ago)" if seconds >= 0 else f"{_moment(moment)} (in {distance})"


_UNITS: Final[Sequence[tuple[int, str]]] = ((86400, "days"), (3600, "hours"), (60, "minutes"))
