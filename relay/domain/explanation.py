"""The values that explain one mailbox: what happened last and which pushes wait."""

from dataclasses import dataclass
from datetime import datetime

from relay.domain.model import Mailbox, Mark, Registration
from relay.domain.timeline import Happening
from relay.domain.unreadable import Unreadable


@dataclass(frozen=True, slots=True)
class WaitingMark:
    """A push that a registration has not had yet."""

    mark: Mark
    count: int
    first_at: datetime
    due_at: datetime
    attempts: int
    claimed: bool
    """Whether a push process has claimed it."""
    parked: str = ""
    """Why it is parked; empty: it is not."""


@dataclass(frozen=True, slots=True)
class KnownRegistration:
    """A registration with its waiting pushes."""

    registration: Registration
    candidate_pending: bool
    candidate_refused: bool
    marks: tuple[WaitingMark, ...]


@dataclass(frozen=True, slots=True)
class MailboxExplanation:
    """All that the database has about one mailbox."""

    mailbox: Mailbox
    owner: str | None
    """The process that may watch it; None: no process."""
    owned_until: datetime | None
    registrations: tuple[KnownRegistration, ...]
    unreadable: tuple[Unreadable, ...] = ()
    """The rows that belong to it and cannot be read."""
    events: tuple[Happening, ...] = ()
    """What happened lately, the oldest first."""


@dataclass(frozen=True, slots=True)
class UnreadableMailbox:
    """A mailbox of which nothing can be explained but what is wrong with its row."""

    id: str
    unreadable: tuple[Unreadable, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """What a name stands for."""

    mailboxes: tuple[MailboxExplanation | UnreadableMailbox, ...] = ()
    similar: tuple[Mailbox, ...] = ()
    """Several mailboxes whose users have the name as a part; then nothing is explained."""
    events: tuple[Happening, ...] = ()
    """What happened to an account of that name which has no mailbox, e.g. tries to register that were refused."""
