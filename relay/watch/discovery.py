"""Autodiscover over HTTP: sends the questions of a search, and remembers what came of the searches for moved mailboxes.

The relay searches once an hour at most for a mailbox that moved, and for few of them at a time: when a server goes for
good, all of its mailboxes miss it in the same minute. Watches and candidates have slots and memories of their own: what
Autodiscover says to one credential says nothing about another, and a user who registers waits behind no fleet.
"""

import asyncio
from collections.abc import Awaitable
from functools import partial
from typing import Final, Protocol

from eas_watcher.autodiscover.search import Lookup, discover
from eas_watcher.autodiscover.urls import host_and_port
from eas_watcher.commands.flow import converse
from eas_watcher.commands.request import HttpReply
from eas_watcher.errors import AccessDenied, EasError
from eas_watcher.names import MailboxId
from eas_watcher.ports import Transport
from eas_watcher.reasons import Reason
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.client import Admitted, AutodiscoverClient
from eas_watcher.server.admissions import Admissions

AGAIN: Final = 3600.0  # seconds between two searches for one mailbox that was found before
AT_ONCE: Final = 4  # such searches


class Find(Protocol):
    """Asks Autodiscover."""

    def __call__(self, account: Account, *, show: bool = True) -> Awaitable[str]:
        """Return the ActiveSync URL of an account whose user is an address; raises EasError as `discover` does.

        Without `show`, no question is asked that needs the credential.
        """


class Discovery:
    """Finds where the mailboxes of a domain are."""

    def __init__(self, transport: Transport, hosts: frozenset[str], admissions: Admissions, rate: float) -> None:
        """Take the hosts that may be asked, the transport to them, and how many mailboxes per second each lets in."""
        self._transport = transport
        self._hosts = hosts
        self._admissions = admissions
        self._rate = rate
        self._candidate_slots = asyncio.Semaphore(AT_ONCE)
        self.watches = Searches(self.find, asyncio.Semaphore(AT_ONCE))
        """Searches for the mailboxes that are watched."""

    def for_candidate(self, admitted: Admitted | None = None) -> "Searches":
        """Return what searches for the mailbox of one candidate, with its credential."""
        return Searches(partial(self.find, candidate=True, admitted=admitted), self._candidate_slots)

    async def find(
        self, account: Account, *, show: bool = True, candidate: bool = False, admitted: Admitted | None = None
    ) -> str:
        """Search as `Find` says; `candidate` and `admitted` as `EasClient` says."""
        client = AutodiscoverClient(
            account, self._transport, self._admissions, self._rate, candidate=candidate, admitted=admitted
        )

        async def ask(lookup: Lookup) -> HttpReply:
            if lookup.credential and not show:
                raise AccessDenied("Autodiscover tells nothing without the credential", Reason.AUTODISCOVER)
            return await client.ask(lookup)

        return await converse(discover(account.user, self._hosts), ask)


class Searches:
    """Searches for mailboxes that may have moved, once an hour at most for each, and remembers the result as long."""

    def __init__(self, find: Find, slots: asyncio.Semaphore) -> None:
        """Take what asks Autodiscover, and how many such searches may run at once."""
        self.find = find
        """Searches at once, whatever was found before."""
        self._slots = slots
        self._found: dict[MailboxId, tuple[float, str]] = {}
        """For the last `AGAIN` seconds, oldest first: when, by the loop's clock, and what the search found."""

    async def seek(self, account: Account, *, show: bool) -> str:
        """Search for a mailbox, if that was not done within the hour; raises EasError as `Seeker.seek` says."""
        self._forget()
        if (before := self._found.get(account.mailbox)) is not None:
            raise AccessDenied(f"{before[1]} (asked within the hour)", Reason.AUTODISCOVER)
        self._note(account, "Autodiscover gave no answer")
        async with self._slots:
            try:
                url = await self.find(account, show=show)
            except EasError as error:
                self._note(account, str(error))
                raise
        self._note(account, f"Autodiscover names {host_and_port(url)}")
        return url

    def _note(self, account: Account, result: str) -> None:
        self._found.pop(account.mailbox, None)
        self._found[account.mailbox] = asyncio.get_running_loop().time(), result

    def _forget(self) -> None:
        due = asyncio.get_running_loop().time() - AGAIN
        while self._found and (first := next(iter(self._found.items())))[1][0] <= due:
            del self._found[first[0]]
