"""Own the values that the roles exchange through the store: mailboxes, registrations and dirty marks."""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, NewType

from eas_watcher.machine.memory import Memory, Progress, WatchState
from eas_watcher.names import CollectionClass, DeviceId, MailboxId
from eas_watcher.reasons import Reason
from relay.domain.outcome import LastOutcome

AUTODISCOVER: Final = "autodiscover"  # what stands for a server's name in mailboxes that were discovered

RegistrationId = NewType("RegistrationId", str)
"""Opaque, random, safe in URLs; the only name of a registration that a provider ever sees."""


class Role(StrEnum):
    """What a process does."""

    ALL = "all"
    API = "api"
    WATCH = "watch"
    PUSH = "push"


class Platform(StrEnum):
    """Name the push provider that serves a device."""

    APNS = "apns"
    FCM = "fcm"
    WEBPUSH = "webpush"
    """Any push service that speaks WebPush, among them the distributors of UnifiedPush."""


class Environment(StrEnum):
    """Name the provider's environment that issued a device token (APNs only; FCM has just production)."""

    PRODUCTION = "production"
    SANDBOX = "sandbox"


class Mode(StrEnum):
    """Name how a push behaves on the phone."""

    ALERT = "alert"
    BACKGROUND = "background"


class Mark(StrEnum):
    """Name what is dirty for a registration: a class with new items, or one of the two notices without a class."""

    EMAIL = "email"
    CALENDAR = "calendar"
    CONTACTS = "contacts"
    TASKS = "tasks"
    NOTES = "notes"
    ATTENTION = "attention"
    TEST = "test"

    @classmethod
    def of(cls, collection_class: CollectionClass) -> "Mark":
        """Name the mark that new items of a class leave."""
        return cls(collection_class.value)


class RegistrationState(StrEnum):
    """Name whether a registration may be pushed to."""

    VERIFYING = "verifying"
    """Its credential has not been proved at the mailbox's server so far; it is never pushed to."""
    ACTIVE = "active"
    REFUSED = "credential-refused"
    TOKEN_GONE = "token-gone"
    """The provider said that the app is gone from the device; a new token revives it."""
    WIPED = "wiped"
    """Its mailbox was wiped: only its `attention` mark is still pushed, then it is deleted."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Hold what operators and the API may know about a mailbox: everything but its credential and keys."""

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
    """Seconds of the Ping last held."""
    last_change_at: datetime | None
    candidate_refusals: int
    """How many candidate credentials were refused since the last accepted one."""
    candidate_refused_at: datetime | None


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Tell why the provider refuses a registration's device token, and when it is tried again."""

    since: datetime
    reason: str
    remedy: str
    recheck_at: datetime
    """From then on the next change tries the token again."""
    rechecks: int = 1
    """How many re-checks the quarantine has set; each waits longer than the one before."""


@dataclass(frozen=True, slots=True)
class Registration:
    """Hold one app install's wish to be told about a mailbox."""

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
    """The classes of whose sub-folders it is told too; only those count that are among `classes`."""


@dataclass(frozen=True, slots=True)
class RegistrationView:
    """Join a registration with its mailbox and tell whether a candidate credential of it still waits for its proof."""

    registration: Registration
    mailbox: Mailbox
    candidate_pending: bool
    candidate_refused: bool
    """Whether the last candidate was refused while the registration itself lives on with an older credential."""


@dataclass(frozen=True, slots=True)
class NewMailbox:
    """Hold what is fixed for ever when a mailbox is first seen."""

    id: MailboxId
    server: str
    user: str
    device_id: DeviceId
    shard: int


@dataclass(frozen=True, slots=True)
class RegistrationChange:
    """Hold what a PATCH asks for; None leaves a property as it is."""

    device_token: str | None = field(default=None, repr=False)
    environment: Environment | None = None
    classes: frozenset[CollectionClass] | None = None
    mode: Mode | None = None
    locale: str | None = None
    sealed_candidate: bytes | None = None
    subfolders: frozenset[CollectionClass] | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """Hold a sealed credential that waits for its proof at the server."""

    registration_id: RegistrationId
    mailbox_id: MailboxId
    sealed: bytes


@dataclass(frozen=True, slots=True)
class WatchRecord:
    """Hold everything the watch role needs to start, change or stop the watch of one mailbox."""

    mailbox: Mailbox
    sealed_credential: bytes | None
    memory: Memory
    """Its `classes` and `subfolders` are those of the mailbox's active registrations."""
    candidates: tuple[Candidate, ...]
    registrations: int
    """How many registrations, in any state, name this mailbox; none: the mailbox may be forgotten."""


@dataclass(frozen=True, slots=True)
class CommitEntry:
    """Hold one watch's progress and the lease under which it may be committed."""

    mailbox_id: MailboxId
    shard: int
    epoch: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class Lane:
    """Name what can rest by itself at a provider: one of its environments, or one app or push service there."""

    environment: Environment
    app: str | None = None
    """None: all apps."""
    service: str | None = None
    """A push service of WebPush, by host and port; None: all."""


@dataclass(frozen=True, slots=True)
class DuePush:
    """Hold one claimed dirty mark with everything its push needs."""

    registration_id: RegistrationId
    mark: Mark
    count: int
    certain: bool
    generation: int
    """Grows with every change; the mark is done only if it still has this generation after the push."""
    attempts: int
    """Failed tries so far."""
    first_at: datetime
    platform: Platform
    app: str
    environment: Environment
    device_token: str = field(repr=False)
    token_since: datetime
    mode: Mode
    locale: str


SHARDS: Final = 256
"""Fixed for ever: the database has one row per shard, and every mailbox keeps the shard it was given."""


def shard_of(mailbox: MailboxId) -> int:
    """Tell the shard of a mailbox, 0 to SHARDS - 1: 8 bytes of its id's SHA-256, big-endian, modulo SHARDS."""
    return int.from_bytes(hashlib.sha256(mailbox.encode()).digest()[:8], "big") % SHARDS
