"""Own what each role needs from outside, one protocol per need; adapters are built in `relay.compose` only."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from eas_watcher.names import MailboxId
from eas_watcher.path import Lesson
from eas_watcher.progress import WatchState
from relay.model import (
    Candidate,
    CommitEntry,
    DuePush,
    Environment,
    Lane,
    Mailbox,
    Mark,
    NewMailbox,
    Platform,
    Registration,
    RegistrationChange,
    RegistrationId,
    RegistrationState,
    RegistrationView,
    WatchRecord,
)
from relay.push.outcome import Outcome


class Topic(StrEnum):
    """Name what one role tells another has changed in the store."""

    MAILBOXES = "mailboxes"
    """api -> watch: mailboxes are dirty."""
    VERDICTS = "verdicts"
    """watch -> api: a candidate was accepted or refused."""
    OUTBOX_APNS = "outbox-apns"
    """watch, api -> push: marks for APNs were set or may be claimed again; the next two likewise."""
    OUTBOX_FCM = "outbox-fcm"
    OUTBOX_WEBPUSH = "outbox-webpush"

    @classmethod
    def outbox(cls, platform: Platform) -> "Topic":
        """Return the topic of one platform's marks; only the dispatcher of that platform listens to it."""
        return cls(f"outbox-{platform.value}")


class Waiter(Protocol):
    """Wait for one topic; remembers what was told between two waits, so nothing is missed."""

    async def wait(self, timeout_s: float) -> None:
        """Return when the topic was told since the last return, or after `timeout_s` seconds."""


class Wakeups(Protocol):
    """Carry wake-ups between roles; they may be lost, so every wait has a time limit."""

    def tell(self, topic: Topic) -> None:
        """Wake the waiters of this process; the store calls it after each commit (PostgreSQL tells the others)."""

    def waiter(self, topic: Topic) -> Waiter:
        """Start to listen to one topic."""


class RegistrationStore(Protocol):
    """Keep registrations for the API; never returns a credential."""

    async def mailbox_of(self, server: str, user: str) -> Mailbox | None:
        """Find a mailbox by its exact server name and user."""

    async def create(self, mailbox: NewMailbox, registration: Registration, sealed_candidate: bytes) -> None:
        """Insert the mailbox if its id is new, the registration and its candidate; mark the mailbox dirty.

        It replaces what the same app on the same device wished for before and was never proved: an app that gets no
        answer tries again. Raises MailboxExists when (server, user) is already kept under another id.
        """

    async def view(self, registration_id: RegistrationId) -> RegistrationView | None:
        """Read one registration with its mailbox."""

    async def change(self, registration_id: RegistrationId, change: RegistrationChange, now: datetime) -> None:
        """Apply a change and mark the mailbox dirty.

        A new device token counts from `now` and revives a `token-gone` registration; a new sealed candidate
        replaces one that still waits. A wiped registration stays as it is.
        """

    async def remove(self, registration_id: RegistrationId) -> None:
        """Delete the registration, its marks and its candidate; mark the mailbox dirty."""

    async def supersede(self, registration_id: RegistrationId) -> int:
        """Delete the mailbox's other registrations of the same app on the same device; return how many there were.

        An app that lost the answer to its registration makes another one, and its phone would get every push twice.
        """

    async def mark(self, registration_id: RegistrationId, mark: Mark, now: datetime) -> None:
        """Set a dirty mark by hand (test pushes)."""


class WatchStore(Protocol):
    """Keep the memory of watches and commit their progress."""

    async def lease_shards(self, node: str, until: datetime, now: datetime, take_over: bool) -> Mapping[int, int]:
        """Renew the node's shards and take free or expired ones; return shard -> epoch of all it owns now.

        Taking a shard raises its epoch, renewing does not. `take_over` takes every shard whoever owns it: only for
        a process that knows the others are dead (the lock on an embedded database).
        """

    async def release_shards(self, node: str) -> None:
        """Give up all leases of a node that stops; others may take its shards at once."""

    async def records(self, shards: Sequence[int], now: datetime) -> list[WatchRecord]:
        """Read all mailboxes of some shards and clear their dirty flags.

        Counts a try on every collection's key, since an answer may have been lost with the process before.
        """

    async def take_dirty(self, shards: Sequence[int], now: datetime) -> list[WatchRecord]:
        """Read the dirty mailboxes of some shards and clear their flags, in one transaction."""

    async def record(self, mailbox_id: MailboxId, now: datetime) -> WatchRecord | None:
        """Read one mailbox as it is now, whether dirty or not."""

    async def commit(self, batch: Sequence[CommitEntry], now: datetime) -> frozenset[MailboxId]:
        """Commit progress of many mailboxes in one transaction; return those whose lease is no longer ours.

        Changes become marks of the mailbox's active registrations that asked for the class, and for its sub-folders if
        the change is in one: count added up, generation raised, `first_at` kept, a mark that waits for a retry keeps
        waiting. `attention` marks them all.
        A condition sets state, reason, detail, `since` (only when state or reason differ) and `next_try_at`
        (now + retry_in). WIPED also destroys the sealed credential, the candidates, the collections, the hierarchy,
        every mark, and the registrations: active ones become `wiped` with one `attention` mark, the others are deleted
        at once.
        Fenced entries change nothing; the others are committed all the same.
        """

    async def note_pings(self, pings: Mapping[MailboxId, tuple[datetime, float]]) -> None:
        """Note when each mailbox's last Ping began and its heartbeat in seconds."""

    async def accept(self, candidate: Candidate, now: datetime, url: str | None = None) -> None:
        """Make a proved candidate the mailbox's credential, its registration active, the mailbox dirty.

        `url` is where the mailbox was discovered; None leaves it where it is known to be.
        The mailbox's refusals (of candidates, and of the credential) start from nothing; its state becomes `starting`
        if it was `verifying`, `credential-refused` or `wiped`: a wipe leaves no candidate, so this one came after it.
        Does nothing when the candidate was replaced meanwhile.
        """

    async def refuse(self, candidate: Candidate, now: datetime) -> None:
        """Drop a refused candidate and count it on the mailbox.

        A registration that was never active becomes `credential-refused`, and a mailbox without any credential too.
        """

    async def reseal(self, mailbox_id: MailboxId, before: bytes, after: bytes) -> None:
        """Put one seal in the place of another wherever the mailbox keeps it: as its credential, or as a candidate.

        For a credential that changed without its user, e.g. a rotated refresh token; a seal that is not there any more
        was replaced by a newer one, which stays. Marks nothing dirty.
        """

    async def forget(self, mailbox_id: MailboxId) -> bool:
        """Delete a mailbox that no registration names any more; return whether it is gone."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """Hold how one claimed push ended, and when a failed one is due again."""

    push: DuePush
    outcome: Outcome
    next_try_at: datetime | None = None
    counted: bool = True
    """Whether a failed try counts as one of this mark's; not so when the provider or its channel is at fault."""
    aside: str = ""
    """Why the mark is set aside until `next_try_at`; empty: it is not."""


class Claims(list[DuePush]):
    """Hold the pushes of one claim."""

    delayed_until: datetime | None = None
    """When the first of those marks falls due that this claim put off; None: it put none off."""
    unfinished: bool = False
    """Whether it put so many off that it has not looked at all that is due: claim again at once."""


class OutboxStore(Protocol):
    """Keep the dirty marks for senders."""

    async def claim(
        self,
        platform: Platform,
        limit: int,
        owner: str,
        until: datetime,
        now: datetime,
        *,
        only: Lane | None = None,
        without: Collection[Lane] = (),
    ) -> Claims:
        """Claim due marks of one platform's active registrations, longest due first, for `owner` until `until`.

        `only` and `without` choose lanes. Of a wiped registration the `attention` mark is claimed too, the only one
        that it has. A registration in quarantine gives one mark once its re-check is due. Marks whose pace wants them
        later are put off, those that expired are left to `expire`, and those that cannot be read are set aside.
        """

    async def settle(self, settlements: Sequence[Settlement], now: datetime) -> None:
        """Record outcomes in one transaction.

        Delivered: delete the mark if its generation is still the one sent, else keep what came meanwhile, due as its
        pace allows; the quarantine ends. TokenGone: unless the token is younger than `gone_since`, set the
        registration `token-gone`, delete its marks and mark its mailbox dirty. RetryLater and Refused: count an attempt
        if `counted`, due again at `next_try_at`; Refused for its token puts the registration into quarantine, longer
        with each re-check. What was said of a token that was replaced meanwhile counts for nothing. Every outcome ends
        the claim and notes `last_push_at` (delivered only) and `last_outcome`. A wiped registration is deleted by
        every outcome but RetryLater and Refused, and by these from a day after the wipe on.
        """

    async def set_aside(self, push: DuePush, reason: str, until: datetime) -> None:
        """End the claim of a mark whose outcome cannot be recorded; it rests until `until`."""

    async def expire(self, platform: Platform, now: datetime) -> int:
        """Drop the unclaimed marks whose newest change is too old for a push; return how many.

        `attention` never expires, for what it says stays true. The registration's last outcome tells of it.
        """

    async def release(self, owner: str | None) -> None:
        """End all claims of one owner, or every claim when None (the other owners are known to be dead)."""

    async def next_due(self, platform: Platform, without: Collection[Lane] = ()) -> datetime | None:
        """Tell when the next mark of a platform falls due, claims running out included; None when there is none.

        Lanes in `without` do not count.
        """


@dataclass(frozen=True, slots=True)
class OutboxLevel:
    """Tell how many marks wait for one platform and how old the oldest is."""

    pending: int
    oldest_at: datetime | None
    failing: int
    """How many of them have failed at least once."""
    aside: int = 0
    """How many more are set aside, for they break what they meet."""


@dataclass(frozen=True, slots=True)
class TokenLevel:
    """Count the active registrations of one app in one environment whose provider says the same of their tokens."""

    platform: Platform
    app: str
    environment: Environment
    reason: str
    """Why the tokens are refused; empty: they are not."""
    remedy: str
    registrations: int


class PathStore(Protocol):
    """Keep what was learnt of the paths to mail servers."""

    async def lessons(self, since: datetime) -> Mapping[str, Lesson]:
        """Return what was learnt since a moment, by URL."""

    async def keep_lesson(self, url: str, lesson: Lesson, now: datetime) -> None:
        """Keep a lesson in place of the one before."""


class OpsStore(Protocol):
    """Count, for health and metrics."""

    async def reachable(self) -> None:
        """Raise StoreUnavailable when the database does not answer."""

    async def mailboxes_by_state(self) -> Mapping[tuple[WatchState, str], int]:
        """Count mailboxes by state and reason."""

    async def registrations_by_state(self) -> Mapping[tuple[Platform, RegistrationState], int]:
        """Count registrations."""

    async def outbox(self) -> Mapping[Platform, OutboxLevel]:
        """Measure the outbox of each platform; marks of registrations in quarantine are not among it."""

    async def tokens(self) -> Sequence[TokenLevel]:
        """Count active registrations by app, environment and what their provider says of their tokens."""


@dataclass(frozen=True, slots=True)
class Room:
    """Tell how many more pushes a sender takes in one lane."""

    lane: Lane
    places: int
    until: float | None = None
    """Until when there are no more, in `loop.time()`; None: until a push under way ends, if there are none."""


class Rooms(Protocol):
    """Tell which lanes of a sender take few pushes or none, by what the sender itself knows."""

    def __call__(self, now: float, /) -> Iterable[Room]:
        """List them; all others take as many as there are places. `now` is `loop.time()`."""


class PushSender(Protocol):
    """Hand one push to a provider."""

    async def send(self, push: DuePush) -> Outcome:
        """Return what the provider said, in bounded time; never raises for anything a provider or network does."""


class Clock(Protocol):
    """Tell the time."""

    def __call__(self) -> datetime:
        """Return now as an aware UTC datetime."""
