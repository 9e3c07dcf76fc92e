"""The use cases of administrators: the same for the command line, the admin API and the console.

They return plain values; `documents.py` writes these as JSON.
"""

import secrets
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Final, TypeVar

from eas_watcher.names import MailboxId
from relay.admin.audit import Act, AuditKey, Stamp, Verdict
from relay.admin.ports import AdminStore
from relay.admin.values import (
    MOST,
    Done,
    KeptMailbox,
    ListedMailbox,
    MailboxFilter,
    Maintenance,
    NotDone,
    Order,
    Page,
    RegistrationFilter,
    Unknown,
)
from relay.domain.model import PushTest, RegistrationId, RegistrationView

T = TypeVar("T")

TEST_ID: Final = 12  # random bytes of the id of a test push


class Administration:
    """What administrators see and do. What is done by somebody is written into the audit log."""

    def __init__(
        self,
        store: AdminStore,
        servers: Collection[str],
        keys: Sequence[AuditKey],
        clock: Callable[[], datetime],
        via: str,
    ) -> None:
        """Act through a store; `servers` are those of relay.toml, `keys` those of the audit log, the newest first."""
        self._store = store
        self.servers = frozenset(servers)
        """The names of the mail servers; a new configuration may have others."""
        self.keys = tuple(keys)
        self._clock = clock
        self._via = via

    def stamp(self, who: str) -> Stamp:
        """Return the stamp of an act of somebody now."""
        return Stamp(who, self._via, self._clock(), self.keys)

    # --- lists

    async def mailboxes(self, wanted: MailboxFilter, limit: int, cursor: str | None = None) -> Page[ListedMailbox]:
        """Return a page of mailboxes; raises BadCursor, StoreUnavailable."""
        return await self._store.mailboxes(wanted, min(limit, MOST), cursor)

    async def registrations(
        self, wanted: RegistrationFilter, limit: int, cursor: str | None = None
    ) -> Page[RegistrationView]:
        """Return a page of registrations; raises BadCursor, StoreUnavailable."""
        return await self._store.registrations(wanted, min(limit, MOST), cursor)

    async def acts(self, limit: int, before: int | None = None) -> Sequence[Act]:
        """Return the last entries of the audit log, the newest first."""
        return await self._store.acts(min(limit, MOST), before)

    async def verify_acts(self) -> Verdict:
        """Check the whole audit log."""
        return await self._store.verify_acts({key.id: key for key in self.keys})

    # --- mailboxes

    async def named(self, name: str) -> Sequence[MailboxId]:
        """Return the mailboxes of a name: an id of a mailbox or registration, or a whole user; raises Unknown."""
        found = await self._store.named(name)
        if not found:
            raise Unknown(name)
        return found

    async def order(self, mailbox: MailboxId, order: Order, who: str) -> Done | NotDone:
        """Do what is ordered about a mailbox; raises Unknown, StoreUnavailable."""
        done = await self._store.order(mailbox, order, self.stamp(who))
        if done is None:
            raise Unknown(mailbox)
        return done

    async def gone(self, mailbox: MailboxId) -> bool:
        """Return True once nothing of a forgotten mailbox is left in the database."""
        return not await self._store.known([mailbox])

    async def export(self, mailbox: MailboxId, who: str) -> KeptMailbox:
        """Return all that the relay keeps of a mailbox and its user, without secrets; raises Unknown."""
        return _known(mailbox, await self._store.kept(mailbox, self.stamp(who)))

    # --- registrations

    async def registration(self, registration: RegistrationId) -> RegistrationView:
        """Return one registration with its mailbox; raises Unknown."""
        return _known(registration, await self._store.view(registration))

    async def tests(self, registration: RegistrationId) -> Sequence[PushTest]:
        """Return the last test pushes of a registration, the newest first."""
        return await self._store.tests(registration)

    async def retry_pushes(self, registration: RegistrationId, who: str) -> Done | NotDone:
        """Try at once what waits for a registration; raises Unknown."""
        done = await self._store.retry_pushes(registration, self.stamp(who))
        if done is None:
            raise Unknown(registration)
        return done

    async def test_push(self, registration: RegistrationId, who: str) -> Done | NotDone:
        """Send a test push; raises Unknown."""
        done = await self._store.test_push(registration, secrets.token_urlsafe(TEST_ID), self.stamp(who))
        if done is None:
            raise Unknown(registration)
        return done

    async def forget_registration(self, registration: RegistrationId, who: str) -> Done:
        """End a registration, e.g. of a lost phone; raises Unknown."""
        return _known(registration, await self._store.forget_registration(registration, self.stamp(who)))

    # --- servers

    async def maintained(self) -> Sequence[Maintenance]:
        """Return the servers in maintenance."""
        return await self._store.maintained()

    async def maintain(self, server: str, who: str, *, on: bool) -> Done | NotDone:
        """Put a server into maintenance, or end that; raises Unknown for a server that relay.toml does not have."""
        if on and server not in self.servers:
            raise Unknown(server)
        return await self._store.maintain(server, self.stamp(who), on=on)


def _known(name: str, found: T | None) -> T:
    if found is None:
        raise Unknown(name)
    return found
