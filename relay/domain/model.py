"""The values that the roles exchange through the store: mailboxes, registrations and dirty marks."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NewType

from eas_watcher.machine.memory import Condition, Memory, Progress, WatchState
from eas_watcher.names import CollectionClass, DeviceId, MailboxId
from eas_watcher.reasons import Reason
from relay.domain.outcome import LastOutcome
from relay.domain.reasons import Cause

MOST_REGISTRATIONS: Final = 20
"""Of one mailbox: more phones than one person has, and few enough that each change costs little."""
AUTODISCOVER: Final = "autodiscover"  # the server's name in mailboxes whose server was found by Autodiscover

OWN_TEXTS: Final = "x-app"
"""The locale of a registration whose app has texts of its own: pushes name them by keys [RFC 5646 2.2.7]."""

RegistrationId = NewType("RegistrationId", str)
"""Opaque, random, safe in URLs; the only name of a registration that a provider ever sees."""
ISSUED_ID: Final = re.compile(r"[A-Za-z0-9_-]{24}", re.ASCII)
"""The id of a registration, whether the relay makes it or the app: 18 random bytes in base64url."""


class Role(StrEnum):
    """What a process does."""

    ALL = "all"
    API = "api"
    WATCH = "watch"
    PUSH = "push"


class Platform(StrEnum):
    """The push provider that serves a device."""

    APNS = "apns"
    FCM = "fcm"
    WEBPUSH = "webpush"
    """Any push service that speaks WebPush, among them the distributors of UnifiedPush."""


class Environment(StrEnum):
    """The provider's environment that issued a device token (APNs only; FCM has just production)."""

    PRODUCTION = "production"
    SANDBOX = "sandbox"


class Mode(StrEnum):
    """How a push behaves on the phone."""

    ALERT = "alert"
    BACKGROUND = "background"


class Mark(StrEnum):
    """What is dirty for a registration: a class with new items, or a notice without a class."""

    EMAIL = "email"
    CALENDAR = "calendar"
    CONTACTS = "contacts"
    TASKS = "tasks"
    NOTES = "notes"
    ATTENTION = "attention"
    TEST = "test"
    CHALLENGE = "challenge"
    """The app must return what this push brings, to prove that it is on the device."""

    @classmethod
    def of(cls, collection_class: CollectionClass) -> "Mark":
        """Return the mark that new items of a class set."""
        return cls(collection_class.value)


class RegistrationState(StrEnum):
    """Whether a registration may be pushed to."""

    VERIFYING = "verifying"
    """The mail server has not accepted its credential yet; it is never pushed to."""
    PROVING = "proving"
    """Its credential was accepted; the app has not shown yet that it is on the device: it gets challenges alone."""
    ACTIVE = "active"
    REFUSED = "credential-refused"
    TOKEN_GONE = "token-gone"
    """The provider said that the app is gone from the device; a new token makes it active again."""
    WIPED = "wiped"
    """Its mailbox was wiped: only its `attention` mark is still pushed, then a tombstone takes its place."""


class Ending(StrEnum):
    """How a registration ended."""

    WIPED = "wiped"
    REMOVED = "removed"
    """Its app removed it."""
    REPLACED = "replaced"
    """The same app on the same device registered again."""
    EXPIRED = "expired"
    """It was of no use for too long."""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What is kept of a registration that ended, so that its app learns how."""

    secret_hash: bytes = field(repr=False)
    ending: Ending


@dataclass(frozen=True, slots=True)
class Mailbox:
    """What operators and the API may know about a mailbox: everything except its credential and keys."""

    id: MailboxId
    server: str
    """The name of a configured server, not a host."""
    user: str
    device_id: DeviceId
    shard: int
    state: WatchState
    reason: Reason | None
    detail: str
    since: datetime
    next_try_at: datetime | None
    last_ping_at: datetime | None
    heartbeat: float | None
    """Heartbeat interval of the last Ping, in seconds."""
    last_change_at: datetime | None


LEAP: Final = timedelta(minutes=5)
"""More than the clocks of hosts differ: what is noted further in the future was noted while a clock was wrong."""
FAR_RECHECK: Final = timedelta(hours=36)
"""Longer than any quarantine waits, which tries its token once a day at least."""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Why the provider refuses a registration's device token, and when the token is tried again."""

    since: datetime
    reason: str
    remedy: str
    recheck_at: datetime
    """From then on the next mark tries the token again."""
    rechecks: int = 1
    """How many re-checks the quarantine has set; each waits longer than the one before."""
    refused_at: datetime | None = None
    """When the token was refused last, which set `recheck_at`; None: a version that did not note it set it."""

    def due_at(self, now: datetime) -> datetime:
        """Return from when on the next mark tries the token; now, if a wrong clock set a later moment."""
        leapt = self.refused_at is not None and self.refused_at > now + LEAP
        return min(self.recheck_at, now) if leapt or self.recheck_at > now + FAR_RECHECK else self.recheck_at


@dataclass(frozen=True, slots=True)
class Registration:
    """One app install that gets pushes about a mailbox."""

    id: RegistrationId
    mailbox_id: MailboxId
    secret_hash: bytes = field(repr=False)
    """SHA-256 of the registration secret, 32 bytes."""
    app: str
    platform: Platform
    environment: Environment
    device_token: str = field(repr=False)
    token_since: datetime
    classes: frozenset[CollectionClass]
    mode: Mode
    locale: str
    state: RegistrationState
    created_at: datetime
    last_push_at: datetime | None = None
    last_outcome: LastOutcome | None = None
    """None: no push has had an outcome yet."""
    quarantine: Quarantine | None = None
    """Set while the provider refuses its device token."""
    subfolders: frozenset[CollectionClass] = frozenset()
    """The classes whose sub-folders count too; only those that are among `classes`."""
    credential_proof: bytes = field(default=b"", repr=False)
    """Shows whether the app sends its last credential again, to those who know the secret; empty: unknown."""
    must_prove: bool = False
    """Whether the app has yet to return the nonce of a challenge push to this device token."""


class PushTestState(StrEnum):
    """What became of a test push."""

    QUEUED = "queued"
    """The provider has not taken it yet."""
    DELIVERED = "delivered"
    """The provider took it."""
    REFUSED = "refused"
    SUPERSEDED = "superseded"
    """A later test was asked for before the provider took this one."""
    EXPIRED = "expired"
    """The provider took it in no hour, or the registration got no pushes any more."""


@dataclass(frozen=True, slots=True)
class PushTest:
    """A test push that an app asked for."""

    id: str
    """Opaque, random, safe in URLs."""
    state: PushTestState
    asked_at: datetime
    ended_at: datetime | None = None
    """None: it is queued, or was dropped with its mark."""
    reason: str = ""
    """The provider's last answer; empty: it has not answered, or took the push."""
    channel: bool = False
    """Whether the relay's channel to the provider is at fault, and not the device token."""


@dataclass(frozen=True, slots=True)
class RegistrationView:
    """A registration with its mailbox and the state of its candidate."""

    registration: Registration
    mailbox: Mailbox
    candidate_pending: bool
    """Whether a candidate waits for its credential check."""
    candidate_refused: bool
    """Whether the last candidate was refused while the registration continues with an older credential."""
    seen_at: datetime | None = None
    """When its app was seen last, to the day; None: never since it registered."""


@dataclass(frozen=True, slots=True)
class NewMailbox:
    """The values of a mailbox that never change."""

    id: MailboxId
    server: str
    user: str
    device_id: DeviceId
    shard: int
    user_key: str | None = None
    """What all spellings of the user have in common; None: each is a user of its own."""


@dataclass(frozen=True, slots=True)
class RegistrationChange:
    """The properties that a PATCH changes; None leaves one as it is."""

    device_token: str | None = field(default=None, repr=False)
    environment: Environment | None = None
    classes: frozenset[CollectionClass] | None = None
    mode: Mode | None = None
    locale: str | None = None
    sealed_candidate: bytes | None = None
    subfolders: frozenset[CollectionClass] | None = None
    credential_proof: bytes | None = field(default=None, repr=False)
    """Comes with `sealed_candidate`."""
    proves: bool = False
    """Whether a new device token must be proved."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sealed credential that the mail server has not accepted yet."""

    registration_id: RegistrationId
    mailbox_id: MailboxId
    sealed: bytes
    created_at: datetime | None = None
    """None: an older version of the relay stored it."""


@dataclass(frozen=True, slots=True)
class WatchRecord:
    """Everything that the watch role needs to start, change or stop the watch of one mailbox."""

    mailbox: Mailbox
    sealed_credential: bytes | None
    memory: Memory
    """Its `classes` and `subfolders` are those of the mailbox's active registrations."""
    candidates: tuple[Candidate, ...]
    registrations: int
    """How many registrations, in any state, name this mailbox; none: the mailbox may be forgotten."""
    halted: Condition | None = None
    """Set while an administrator paused the mailbox, or its server is in maintenance: nobody asks the server."""
    retry: bool = False
    """True once if an administrator ends the wait of the mailbox."""
    forgotten: bool = False
    """True if an administrator has the relay forget the mailbox's user."""

    @property
    def seals(self) -> list[bytes]:
        """Every seal of the mailbox: of its credential, and of its candidates."""
        own = [] if self.sealed_credential is None else [self.sealed_credential]
        return own + [candidate.sealed for candidate in self.candidates]

    def resealed(self, seals: Mapping[bytes, bytes]) -> "WatchRecord":
        """Return the record after some of its credentials were sealed again: seal before -> seal now."""
        own = self.sealed_credential
        candidates = (replace(each, sealed=seals.get(each.sealed, each.sealed)) for each in self.candidates)
        return replace(
            self, sealed_credential=None if own is None else seals.get(own, own), candidates=tuple(candidates)
        )


@dataclass(frozen=True, slots=True)
class SealedMailbox:
    """A mailbox with seals for another key than the present one."""

    id: MailboxId
    server: str
    user: str
    seals: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class CommitEntry:
    """One watch's progress and the lease under which it may be committed."""

    mailbox_id: MailboxId
    shard: int
    epoch: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class Lane:
    """A part of the outbox that claims can leave out: a provider's environment, or one app or push service in it."""

    environment: Environment
    app: str | None = None
    """None: all apps."""
    service: str | None = None
    """A push service of WebPush, by host and port; None: all."""
    retried: bool | None = None
    """True: only pushes that have failed before; False: only the others; None: all."""


@dataclass(frozen=True, slots=True)
class DuePush:
    """One claimed mark with everything that its push needs."""

    registration_id: RegistrationId
    mark: Mark
    count: int
    certain: bool
    generation: int
    """Grows with every change; the mark is done only if it still has this generation after the push."""
    attempts: int
    """Failed tries."""
    first_at: datetime
    last_at: datetime
    """When the mark last grew."""
    platform: Platform
    app: str
    environment: Environment
    device_token: str = field(repr=False)
    token_since: datetime
    mode: Mode
    locale: str
    mailbox_id: MailboxId
    cause: Cause | None = None
    """What an `attention` is about; None: unknown, or another mark."""
    nonce: str = field(default="", repr=False)
    """What the app returns to a `challenge`; it is made when the push leaves."""


SHARDS: Final = 256
"""Never changes: the database has one row per shard, and every mailbox keeps its shard."""


def shard_of(mailbox: MailboxId) -> int:
    """Return the shard of a mailbox, 0 to SHARDS - 1: 8 bytes of its id's SHA-256, big-endian, modulo SHARDS."""
    return int.from_bytes(hashlib.sha256(mailbox.encode()).digest()[:8], "big") % SHARDS
