"""What the use cases of administrators need from the store. Each act is one transaction with its entry in the log."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from eas_watcher.names import MailboxId
from relay.admin.audit import Act, AuditKey, Stamp, Verdict
from relay.admin.values import (
    Done,
    KeptMailbox,
    ListedMailbox,
    MailboxFilter,
    Maintenance,
    NotDone,
    Order,
    Page,
    RegistrationFilter,
)
from relay.domain.model import PushTest, RegistrationId, RegistrationView


class AdminStore(Protocol):
    """Lists, acts and their audit log. All raise StoreUnavailable."""

    async def mailboxes(self, wanted: MailboxFilter, limit: int, cursor: str | None) -> Page[ListedMailbox]:
        """Return a page of mailboxes by server and user; raises BadCursor."""

    async def registrations(self, wanted: RegistrationFilter, limit: int, cursor: str | None) -> Page[RegistrationView]:
        """Return a page of registrations by server, user and id; raises BadCursor."""

    async def named(self, name: str) -> Sequence[MailboxId]:
        """Return the mailboxes of a name: the id of one, of one of its registrations, or the whole user."""

    async def order(self, mailbox: MailboxId, order: Order, stamp: Stamp) -> Done | NotDone | None:
        """Do what is ordered about a mailbox, if it makes sense; None: there is no such mailbox."""

    async def known(self, mailboxes: Collection[MailboxId]) -> frozenset[MailboxId]:
        """Return which of some mailboxes are there."""

    async def kept(self, mailbox: MailboxId, stamp: Stamp) -> KeptMailbox | None:
        """Return all that is kept of a mailbox and its user, and note that it was exported; None: it is not there."""

    async def view(self, registration: RegistrationId) -> RegistrationView | None:
        """Read one registration with its mailbox."""

    async def tests(self, registration: RegistrationId) -> Sequence[PushTest]:
        """Return the last test pushes of a registration, the newest first."""

    async def retry_pushes(self, registration: RegistrationId, stamp: Stamp) -> Done | NotDone | None:
        """Make what waits for a registration due now, and end the wait of its quarantine; None: it is not there."""

    async def test_push(self, registration: RegistrationId, test: str, stamp: Stamp) -> Done | NotDone | None:
        """Set the mark of a test push with an id; None: there is no such registration."""

    async def forget_registration(self, registration: RegistrationId, stamp: Stamp) -> Done | None:
        """End a registration; None: there is none."""

    async def maintained(self) -> Sequence[Maintenance]:
        """Return the servers in maintenance, by name."""

    async def maintain(self, server: str, stamp: Stamp, *, on: bool) -> Done | NotDone:
        """Put a server into maintenance, or end that."""

    async def acts(self, most: int, before: int | None) -> Sequence[Act]:
        """Return the last entries of the audit log, the newest first; `before`: of those with smaller numbers."""

    async def verify_acts(self, keys: Mapping[str, AuditKey]) -> Verdict:
        """Check the whole audit log; `keys` by their ids."""
