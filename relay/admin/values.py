"""What administrators ask for and get: filters, pages, and what became of an act. Pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Generic, TypeVar

from eas_watcher.machine.memory import WatchState
from relay.admin.audit import Act
from relay.domain.model import (
    Mailbox,
    Mark,
    Platform,
    PushTest,
    RegistrationState,
    RegistrationView,
)
from relay.domain.timeline import Happening

T = TypeVar("T")

MOST: Final = 500
"""Rows of one page at most."""
USUAL: Final = 100
"""Rows of one page, unless another number is asked for."""


@dataclass(frozen=True, slots=True)
class MailboxFilter:
    """Which mailboxes are listed; None and empty: any."""

    server: str | None = None
    state: WatchState | None = None
    user: str = ""
    """A part of the user, in upper or lower case."""


@dataclass(frozen=True, slots=True)
class RegistrationFilter:
    """Which registrations are listed; None and empty: any."""

    server: str | None = None
    state: RegistrationState | None = None
    user: str = ""
    """A part of the user of its mailbox, in upper or lower case."""
    platform: Platform | None = None
    app: str | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows of a list, and where the next page begins."""

    rows: tuple[T, ...]
    cursor: str | None = None
    """None: this is the last page."""


@dataclass(frozen=True, slots=True)
class ListedMailbox:
    """A mailbox as lists show it."""

    mailbox: Mailbox
    registrations: int


@dataclass(frozen=True, slots=True)
class Maintenance:
    """A mail server in maintenance."""

    server: str
    since: datetime


class Order(StrEnum):
    """What an administrator orders about a mailbox."""

    RETRY = "retry"
    PAUSE = "pause"
    RESUME = "resume"
    FORGET = "forget"


@dataclass(frozen=True, slots=True)
class Done:
    """An act that was done, and is in the audit log."""

    text: str
    """What follows from it, as a sentence."""


@dataclass(frozen=True, slots=True)
class NotDone:
    """An act that makes no sense now: nothing changed."""

    why: str
    """Why, and what to do instead."""


class Unknown(Exception):
    """There is nothing of this name."""


class BadCursor(Exception):
    """The row at which a page should begin is gone: list from the beginning."""


@dataclass(frozen=True, slots=True)
class Tries:
    """How often credentials of an account were shown lately, by the spelling of its user."""

    server: str
    user: str
    spent: int
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Wiped:
    """When the device of an account was wiped."""

    server: str
    user: str
    wiped_at: datetime


@dataclass(frozen=True, slots=True)
class KeptMark:
    """A push that waits."""

    mark: Mark
    count: int
    first_at: datetime
    due_at: datetime
    attempts: int


@dataclass(frozen=True, slots=True)
class KeptRegistration:
    """All that is kept of a registration, but for secrets and its device token."""

    view: RegistrationView
    tested_at: datetime | None
    proved_at: datetime | None
    idle_since: datetime | None
    marks: tuple[KeptMark, ...]
    tests: tuple[PushTest, ...]


@dataclass(frozen=True, slots=True)
class KeptMailbox:
    """All that is kept of a mailbox and its user, but for secrets and what the mail server alone understands."""

    mailbox: Mailbox
    registrations: tuple[KeptRegistration, ...]
    tries: tuple[Tries, ...]
    wipes: tuple[Wiped, ...]
    acts: tuple[Act, ...]
    events: tuple[Happening, ...] = ()
    """Those of the timeline."""
