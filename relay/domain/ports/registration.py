"""Own what each role needs from outside, one protocol per need; adapters are built in `relay.compose` only."""

from datetime import datetime
from typing import Protocol

from relay.domain.model import (
    Mailbox,
    Mark,
    NewMailbox,
    Registration,
    RegistrationChange,
    RegistrationId,
    RegistrationView,
)


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
