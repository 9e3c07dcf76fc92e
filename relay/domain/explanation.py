"""Own the values that explain one mailbox: what happened last and what waits."""

from dataclasses import dataclass
from datetime import datetime

from relay.domain.model import Mailbox, Mark, Registration


@dataclass(frozen=True, slots=True)
class WaitingMark:
    """Hold what a registration is still to be told."""

    mark: Mark
    count: int
    first_at: datetime
    due_at: datetime
    attempts: int
    claimed: bool
    """Whether a push process has it in hand."""
    parked: str = ""
    """Why it is set aside; empty: it is not."""


@dataclass(frozen=True, slots=True)
class KnownRegistration:
    """Join a registration with what waits for it."""

    registration: Registration
    candidate_pending: bool
    candidate_refused: bool
    marks: tuple[WaitingMark, ...]


@dataclass(frozen=True, slots=True)
class MailboxExplanation:
    """Hold all that is known of one mailbox."""

    mailbox: Mailbox
    owner: str | None
    """The process that may watch it; None: none."""
    owned_until: datetime | None
    registrations: tuple[KnownRegistration, ...]
