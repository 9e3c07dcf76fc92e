"""The timeline for people: events in words, in local time, and what they show of a moment."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, time, timedelta, tzinfo
from typing import Final

from eas_watcher.machine.memory import WatchState
from relay.domain.model import Ending, Mark
from relay.domain.outcome import OutcomeKind
from relay.domain.reasons import read_reason, row_of
from relay.domain.receipts import read_noticed_at
from relay.domain.timeline import CHANNEL, UNCERTAIN, Denial, EventKind, Happening

AROUND: Final = timedelta(minutes=10)
"""How far from a moment events are shown, and a push may come after what it reports."""
_COMMITTING: Final = timedelta(seconds=10)
"""A change is in the timeline once it is committed, so long after its mark has the moment."""
SHOWN: Final = 20
"""Events that people see unless they ask for a moment."""

PROVIDERS: Final[Mapping[str, str]] = {"apns": "APNs", "fcm": "FCM", "webpush": "the push service"}
_ITEMS: Final[Mapping[str, str]] = {
    "email": "mail",
    "calendar": "calendar items",
    "contacts": "contacts",
    "tasks": "tasks",
    "notes": "notes",
}
_PUSHES: Final[Mapping[str, str]] = {
    Mark.ATTENTION: "attention push",
    Mark.TEST: "test push",
    Mark.CHALLENGE: "challenge push",
}
_STATES: Final[Mapping[str, str]] = {
    WatchState.VERIFYING: "the credential waits for the mail server's word",
    WatchState.STARTING: "the watch starts",
    WatchState.WATCHING: "Ping held",
    WatchState.WAITING: "the watch waits",
    WatchState.CREDENTIAL_REFUSED: "the credential is refused: the watch has ended",
    WatchState.BLOCKED: "the mail server denies access",
    WatchState.WIPING: "a wipe is acknowledged",
    WatchState.WIPED: "an administrator wiped the device: the watch has ended",
    WatchState.PAUSED: "an administrator paused the mailbox: no watch, and no pushes",
}
_DENIALS: Final[Mapping[str, str]] = {
    Denial.CREDENTIAL: "wrong user or password, says the mail server",
    Denial.WIPED: "an administrator wiped the device of this account (`relay wipes list`)",
    Denial.TOO_MANY: "so many credentials were refused that the relay shows none for a while",
    Denial.FULL: "the mailbox has as many registrations as it may have",
}
_ENDINGS: Final[Mapping[str, str]] = {
    Ending.WIPED: "after a wipe",
    Ending.REMOVED: "its app removed it",
    Ending.REPLACED: "the same app on the same device registered again",
    Ending.EXPIRED: "it was of no use for too long",
}
_ANSWERS: Final[Mapping[str, str]] = {
    OutcomeKind.DELIVERED: "accepted by {provider}",
    OutcomeKind.RETRY_LATER: "not taken by {provider} yet{because}; it is tried again",
    OutcomeKind.TOKEN_GONE: "not delivered, {provider} says that the app is gone from the device{because}",
    OutcomeKind.REFUSED: "refused by {provider}{because}; the device token is in quarantine",
    OutcomeKind.SHADOWED: "not sent: shadow mode",
    CHANNEL: "refused by {provider} for all phones of the app{because}; see health",
}


def words(happening: Happening) -> str:
    """Return an event in words, without its moment; a name that this version does not know is shown as it is."""
    own = happening.event
    describe = _WORDS.get(own.kind)
    text = f"{own.kind}, an event of a newer version" if describe is None else describe(happening)
    return f"{text} [{own.registration_id}]" if own.registration_id else text


def _noticed(happening: Happening) -> str:
    own, times = happening.event, f": {happening.count}" if happening.count > 1 else ""
    doubt = ", inferred after the server lost its sync state" if own.result == UNCERTAIN else ""
    return f"new {_ITEMS.get(own.what, own.what)} noticed{times}{doubt}"


def _state(happening: Happening) -> str:
    own = happening.event
    text = _STATES.get(own.what, f"state {own.what}")
    return f"{text} ({own.code})" if own.code else text


def _answer(happening: Happening) -> str:
    own = happening.event
    answer = _ANSWERS.get(own.result, f"{own.result} by {{provider}}{{because}}")
    because = f": {own.code}" if own.code else ""
    return f"{_push(happening)} {answer.format(provider=_provider(happening), because=because)}"


def _push(happening: Happening) -> str:
    what = happening.event.what
    return _PUSHES.get(what) or f"push for {_ITEMS.get(what, what)}"


def _shown(happening: Happening) -> str:
    noticed_at = read_noticed_at(happening.event.code)
    seconds = 0.0 if noticed_at is None else (happening.at - noticed_at).total_seconds()
    after = "" if noticed_at is None else f", {seconds:.1f} s after the relay noticed the change"
    return f"{_push(happening)} shown by the app{after}"


def _registered(happening: Happening) -> str:
    accepted = happening.event.result == "accepted"
    verdict = "its credential was accepted" if accepted else "the mail server has not said yet whether it takes it"
    return f"an app registered through {_provider(happening)}: {verdict}"


def _denied(happening: Happening) -> str:
    own = happening.event
    return f"a {own.what or 'registration'} was refused: {_DENIALS.get(own.code, own.code)}"


def _changed(happening: Happening) -> str:
    names = happening.event.what.replace("sealed_candidate", "credential").replace("_", " ").replace(",", ", ")
    return f"the app changed its registration: {names}"


def _asked(happening: Happening) -> str:
    what = happening.event.what
    return f"the app asked for a {_PUSHES.get(what, what)}"


def _ended(happening: Happening) -> str:
    result = happening.event.result
    return f"the registration ended: {_ENDINGS.get(result, result)}"


def _always(text: str) -> Callable[[Happening], str]:
    return lambda _: text


_WORDS: Final[Mapping[str, Callable[[Happening], str]]] = {
    EventKind.NOTICED: _noticed,
    EventKind.STATE: _state,
    EventKind.PUSHED: _answer,
    EventKind.SHOWN: _shown,
    EventKind.REGISTERED: _registered,
    EventKind.DENIED: _denied,
    EventKind.ACCEPTED: _always("the mail server accepted the credential"),
    EventKind.REFUSED: _always("the mail server refused the credential that the app sent"),
    EventKind.UNCHECKED: _always("the credential was dropped: the mail server could not be asked in time"),
    EventKind.CHANGED: _changed,
    EventKind.PROVED: _always("the app proved that it is on its device"),
    EventKind.ASKED: _asked,
    EventKind.ENDED: _ended,
    EventKind.FORGOTTEN: _always("the mailbox and its credential were deleted, as no registration was left"),
    EventKind.OMITTED: _always("more events came within the hour than are kept"),
}


def _provider(happening: Happening) -> str:
    through = happening.event.through
    return PROVIDERS.get(through, through)


# --- moments


def read_moment(text: str, now: datetime, zone: tzinfo | None = None) -> datetime:
    """Return the moment that a time of day, the last one, or an ISO 8601 date and time stands for.

    Without an offset it is local: in `zone`, or if that is None in the zone of this host. Raises ValueError, which says
    what is wrong.
    """
    local_now = now.astimezone(zone)
    try:
        moment = _local(datetime.combine(local_now.date(), time.fromisoformat(text)), zone)
        if moment > now:
            moment = _local(datetime.combine(local_now.date() - timedelta(days=1), time.fromisoformat(text)), zone)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text!r} is no time: write 14:05, or 2026-11-29T14:05") from None
        if moment.tzinfo is None:
            moment = _local(moment, zone)
    if moment > now:
        raise ValueError(f"{text} is in the future: it is {clock_time(now, zone)} {zone_of(now, zone)} now")
    return moment


def _local(moment: datetime, zone: tzinfo | None) -> datetime:
    if moment.tzinfo is not None:
        return moment
    return moment.astimezone() if zone is None else moment.replace(tzinfo=zone)


def clock_time(moment: datetime, zone: tzinfo | None = None) -> str:
    """Return a local date and time to the second."""
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M:%S}"


def zone_of(moment: datetime, zone: tzinfo | None = None) -> str:
    """Return the name of the zone of local times, with its offset."""
    local = moment.astimezone(zone)
    name, offset = local.tzname() or "", f"{local:%z}"
    offset = f"UTC{offset[:3]}:{offset[3:]}"
    return "UTC" if name == "UTC" else f"{name} ({offset})"


# --- what they show


def lines(happenings: Sequence[Happening], zone: tzinfo | None = None) -> list[str]:
    """Return a line for each event, with its local time."""
    return [f"  {clock_time(each.at, zone)}  {words(each)}" for each in happenings]


def around(happenings: Sequence[Happening], at: datetime) -> list[Happening]:
    """Return the events near a moment."""
    return [each for each in happenings if abs(each.at - at) <= AROUND]


def verdict(happenings: Sequence[Happening], at: datetime, zone: tzinfo | None = None) -> str:
    """Return what was so at a moment, and whether a push left then."""
    state = _last(happenings, EventKind.STATE, at)
    if state is None:
        return "What the watch did then is not known: no event from before is kept."
    if state.event.what != WatchState.WATCHING.value:
        since = clock_time(state.at, zone)
        return f"Nothing could be noticed: {words(state)}, since {since}. {_meaning(state)}".rstrip()
    noticed = [each for each in happenings if each.event.kind == EventKind.NOTICED and abs(each.at - at) <= AROUND]
    held = f"A Ping was held, since {clock_time(state.at, zone)}"
    minutes = round(AROUND.total_seconds() / 60)
    if not noticed:
        return f"{held}; the mail server reported nothing new within {minutes} minutes."
    first = noticed[0]
    answers = [
        each
        for each in happenings
        if each.event.kind == EventKind.PUSHED
        and each.event.what == first.event.what
        and first.at <= each.at <= noticed[-1].at + AROUND
    ]
    told = f"{held}; {words(first)} at {clock_time(first.at, zone)}"
    accepted = [each for each in answers if each.event.result == OutcomeKind.DELIVERED.value]
    if accepted:
        seconds = (accepted[0].at - first.at).total_seconds()
        shown = [each for each in happenings if _reports(each, first, accepted[-1].at)]
        told = f"{told}; {words(accepted[0])} {seconds:.0f} s later"
        return f"{told}; {words(shown[0])}." if shown else f"{told}."
    if answers:
        return f"{told}; {words(answers[-1])}."
    return f"{told}; no push had an answer within {minutes} minutes."


def _reports(shown: Happening, noticed: Happening, accepted_at: datetime) -> bool:
    """Return True if an app showed a push for a change, which it was sent until a moment."""
    if (shown.event.kind, shown.event.what) != (EventKind.SHOWN, noticed.event.what):
        return False
    noticed_at = read_noticed_at(shown.event.code)
    return noticed_at is not None and noticed.at - _COMMITTING <= noticed_at <= accepted_at


def _last(happenings: Sequence[Happening], kind: EventKind, at: datetime) -> Happening | None:
    return next((each for each in reversed(happenings) if each.event.kind == kind and each.at <= at), None)


def _meaning(state: Happening) -> str:
    """Return what the reason of a state asks for."""
    try:
        known = WatchState(state.event.what)
    except ValueError:
        return ""
    return row_of(known, read_reason(state.event.code)).remedy


def document(happenings: Sequence[Happening]) -> list[dict[str, object]]:
    """Return events as JSON values; moments as ISO 8601 in UTC."""
    return [
        {
            "at": each.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            **{name: value or None for name, value in each.event._asdict().items() if name != "account"},
            "count": each.count,
            "words": words(each),
        }
        for each in happenings
    ]
