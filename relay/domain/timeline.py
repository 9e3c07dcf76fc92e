"""The timeline: what happened lately to a mailbox and its registrations, without content, gathered in memory.

It is for people who ask why a push is missing. A process that is killed loses the events of its last five seconds.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from eas_watcher.machine.memory import Progress, WatchState
from eas_watcher.names import MailboxId
from relay.domain.clock import Clock
from relay.domain.model import DuePush, Registration, RegistrationChange, RegistrationId, RegistrationView
from relay.domain.outcome import Delivered, OutcomeKind, PushEnd, Reach, Refused, RetryLater, Shadowed
from relay.domain.reasons import write_reason
from relay.domain.receipts import Receipt

HELD: Final = 10_000
"""Events that wait in memory to be written; more of them are dropped and counted."""
MANY: Final = 500
"""Events that wait no longer: written at once, they hold up the database for some 25 ms."""
PER_HOUR: Final = 120
"""Events of one mailbox, registration or account that one process keeps within an hour."""
STRANGERS: Final = 5_000
"""Events of accounts without a mailbox that one process keeps within an hour."""
LONGEST: Final = 80
"""Characters of a code; a provider's may be longer."""
HOUR: Final = timedelta(hours=1)

_STRANGE: Final = re.compile(r"[^A-Za-z0-9_.,:/ -]")


def _ignore() -> None:
    """Leave the events that wait to their time."""


def _nobody(_user: str) -> str:
    return ""


class EventKind(StrEnum):
    """What happened; a name that this version does not know is shown as it is."""

    NOTICED = "noticed"
    """The mail server reported new items: `what` is their class, `count` their number; `result` is `uncertain` if they
    are inferred."""
    STATE = "state"
    """The watch came into another state: `what` is the state, `code` its reason."""
    PUSHED = "pushed"
    """The provider answered a push, or shadow mode held it back: `what` is its mark, `through` the platform, `result`
    the kind of the answer, or CHANNEL if it concerns all phones of the app; `code` is its reason, `count` the number of
    items."""
    SHOWN = "shown"
    """An app showed a push, at its moment: `what` is the mark, `through` the platform, `code` the id of the push."""
    REGISTERED = "registered"
    """An app registered: `through` is its platform, `result` the mail server's verdict."""
    DENIED = "denied"
    """A try to register, or to change the credential (`what`), was refused: `code` is a Denial."""
    ACCEPTED = "accepted"
    """The mail server accepted a credential."""
    REFUSED = "refused"
    """The mail server refused a credential of an app."""
    UNCHECKED = "unchecked"
    """A credential was dropped since the mail server could not be asked in time."""
    CHANGED = "changed"
    """An app changed its registration: `what` names the properties."""
    PROVED = "proved"
    """An app proved that it is on its device."""
    ASKED = "asked"
    """An app asked for a push: `what` is its mark, `test` or `challenge`."""
    ENDED = "ended"
    """A registration ended: `result` says how."""
    FORGOTTEN = "forgotten"
    """The mailbox was deleted: it has no registration any more."""
    OMITTED = "omitted"
    """More events came within the hour than are kept."""


class Denial(StrEnum):
    """Why a try to register was refused."""

    CREDENTIAL = "credential"
    """The mail server refused user or password."""
    WIPED = "wiped"
    """An administrator wiped the device of the account."""
    TOO_MANY = "too-many-refusals"
    """So many credentials of the account, or at its server, were refused that none is shown now."""
    FULL = "mailbox-full"


CHANNEL: Final = "channel-refused"
"""The result of a push that the provider refused because of the app's key, topic or project."""
UNCERTAIN: Final = "uncertain"


class Event(NamedTuple):
    """What happened to a mailbox, a registration or an account; no field can hold content of a mail or a credential."""

    kind: str
    mailbox_id: str = ""
    """Empty: that of the registration, or of none that is left."""
    registration_id: str = ""
    account: str = ""
    """The keyed hash of the user who tried to register; empty: the mailbox says who it is."""
    what: str = ""
    through: str = ""
    result: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class Happening:
    """An event with its moment; of events that came together, how many items or times it stands for."""

    at: datetime
    event: Event
    count: int = 1


class Timeline:
    """Gathers events until they are written; equal ones add up meanwhile."""

    def __init__(self, clock: Clock, *, on: bool = True, account_of: Callable[[str], str] = _nobody) -> None:
        """Gather with the moments of a clock, or drop everything if it is not `on`.

        `account_of` returns the keyed hash that stands for a user; empty: this process has no key for it.
        """
        self.account_of = account_of
        self._clock = clock
        self.on = on
        self._waiting: dict[Event, tuple[datetime, int]] = {}
        self._spent: dict[str, int] = {}
        self._hour: tuple[datetime, datetime] | None = None
        """When the present hour began, and when it ends."""
        self._states: dict[str, tuple[WatchState, str]] = {}
        """The last state of each mailbox that is not plainly watched."""
        self.dropped = 0
        """Events that were dropped because too many waited."""
        self.on_many: Callable[[], None] = _ignore
        """Called when so many events wait that they should be written now."""

    @classmethod
    def off(cls) -> "Timeline":
        """Return one that drops everything."""
        return cls(_no_clock, on=False)

    def note(self, event: Event, count: int = 1, at: datetime | None = None) -> None:
        """Add an event that happened at a moment; None: now."""
        if not self.on:
            return
        known = self._waiting.get(event)
        if known is not None:
            self._waiting[event] = (known[0], known[1] + count)
            return
        if len(self._waiting) >= HELD:
            self.dropped += 1
            return
        now, before = self._clock(), len(self._waiting)
        if self._may_keep(event, now):
            self._waiting[event] = (at or now, count)
        if before < MANY <= len(self._waiting):  # the note that more came than is kept counts, too
            self.on_many()

    def take(self) -> list[Happening]:
        """Return what was gathered, and forget it."""
        waiting, self._waiting = self._waiting, {}
        return [Happening(at, event, count) for event, (at, count) in waiting.items()]

    def _may_keep(self, event: Event, now: datetime) -> bool:
        """Return True if its mailbox has room for an event in this hour; the first one without is noted as such."""
        if self._hour is None or not self._hour[0] <= now < self._hour[1]:
            self._spent.clear()
            self._hour = now, now + HOUR
        stranger = event.account if not event.mailbox_id else ""
        if stranger and not self._spend("", STRANGERS):
            return False
        subject = event.registration_id or event.mailbox_id or stranger
        if self._spend(subject, PER_HOUR):
            return True
        if self._spent[subject] == PER_HOUR + 1:
            whose = Event(EventKind.OMITTED, event.mailbox_id, event.registration_id, event.account)
            self._waiting[whose] = (now, 1)
        return False

    def _spend(self, subject: str, most: int) -> bool:
        spent = self._spent[subject] = self._spent.get(subject, 0) + 1
        return spent <= most

    # --- what the roles note

    def progressed(self, mailbox: MailboxId, progress: Progress) -> None:
        """Note what was committed of a watch: new items, and another state."""
        if not self.on:
            return
        for change in progress.changes:
            result = "" if change.certain else UNCERTAIN
            self.note(Event(EventKind.NOTICED, mailbox, what=change.cls.value, result=result), change.count)
        condition = progress.condition
        if condition is None:
            return
        now = condition.state, write_reason(condition.reason)
        if self._states.get(mailbox) == now:
            return
        if now == (WatchState.WATCHING, ""):
            self._states.pop(mailbox, None)
        else:
            self._states[mailbox] = now
        self.note(Event(EventKind.STATE, mailbox, what=now[0].value, code=now[1]))

    def forgotten(self, mailbox: MailboxId, user: str) -> None:
        """Note that a mailbox was deleted; by its user's hash the help desk still finds its events."""
        self.note(Event(EventKind.FORGOTTEN, mailbox, account=self.account_of(user)))

    def left(self, mailbox: MailboxId) -> None:
        """Forget the state of a mailbox that this process does not watch any more."""
        self._states.pop(mailbox, None)

    def pushed(self, push: DuePush, outcome: PushEnd) -> None:
        """Note a provider's answer, or that shadow mode held the push back; another push that was not sent has none."""
        if not self.on:
            return
        if isinstance(outcome, (RetryLater, Refused)) and outcome.reach is Reach.HERE:
            return
        reason = "" if isinstance(outcome, (Delivered, Shadowed)) else clean(outcome.reason)
        channel = isinstance(outcome, Refused) and outcome.channel
        result = CHANNEL if channel else OutcomeKind.of(outcome).value
        mark, platform = push.mark.value, push.platform.value
        self.note(Event(EventKind.PUSHED, "", push.registration_id, "", mark, platform, result, reason), push.count)

    def shown(self, own: Registration, receipt: Receipt) -> None:
        """Note that an app showed a push."""
        event = Event(EventKind.SHOWN, own.mailbox_id, own.id, what=receipt.push.mark.value)
        self.note(event._replace(through=own.platform.value, code=receipt.push.text), at=receipt.shown_at)

    def registered(self, view: RegistrationView, verdict: str, account: str) -> None:
        """Note that an app registered."""
        own = view.registration
        event = Event(EventKind.REGISTERED, view.mailbox.id, own.id, account, through=own.platform.value)
        self.note(event._replace(result=verdict))

    def denied(self, account: str, why: Denial, view: RegistrationView | None = None, what: str = "") -> None:
        """Note that a try was refused; `what` is what the app sent: a registration, or something for one."""
        mailbox, own = ("", "") if view is None else (view.mailbox.id, view.registration.id)
        self.note(Event(EventKind.DENIED, mailbox, own, account, what=what, code=why.value))

    def changed(self, own: Registration, change: RegistrationChange) -> None:
        """Note which properties an app changed, not their values."""
        names = [name for name in PROPERTIES if getattr(change, name) is not None]
        if names:
            self.note(Event(EventKind.CHANGED, own.mailbox_id, own.id, what=",".join(names)))

    def of_registration(
        self, kind: EventKind, mailbox: MailboxId, registration: RegistrationId, what: str = ""
    ) -> None:
        """Note an event of a registration that has no more properties."""
        self.note(Event(kind, mailbox, registration, what=what))


def _no_clock() -> datetime:  # pragma: no cover -- nothing is noted
    raise AssertionError("a timeline that is off asks for the time")


PROPERTIES: Final = ("device_token", "environment", "classes", "subfolders", "mode", "locale", "sealed_candidate")
"""The properties of a change that the timeline names."""


def clean(code: str) -> str:
    """Return a provider's code as the timeline keeps it: short, and without characters that no code has."""
    return _STRANGE.sub("?", code)[:LONGEST]
