"""Own Autodiscover over HTTP: the questions of the search go out, the answers go in.

A mailbox that moved is looked for once an hour at most, and few of them at a time: when a server goes for good, all of
its mailboxes miss it in the same minute. Watches and proofs of candidates each have turns and memories of their own:
what Autodiscover says to one credential says nothing about another, and who registers waits behind no fleet.
"""

import asyncio
from collections.abc import Awaitable
from typing import Final, Protocol

from eas_watcher.autodiscover.search import Lookup, discover
from eas_watcher.autodiscover.urls import authority
from eas_watcher.commands.request import HttpRequest
from eas_watcher.errors import AccessDenied, EasError
from eas_watcher.names import USER_AGENT, MailboxId
from eas_watcher.ports import Transport
from eas_watcher.reasons import Reason
from eas_watcher.runtime.account import Account

PATIENCE: Final = 30.0  # seconds per question; somebody who registers waits for it
AGAIN: Final = 3600.0  # seconds between two searches for one mailbox that was found before
AT_ONCE: Final = 4  # such searches


class Discovery:
    """Find where the mailboxes of a domain are."""

    def __init__(self, transport: Transport, hosts: frozenset[str]) -> None:
        """Take the transport to the hosts that may be asked."""
        self._transport = transport
        self._hosts = hosts
        self._proofs = asyncio.Semaphore(AT_ONCE)
        self.watches = Searches(self.find, asyncio.Semaphore(AT_ONCE))
        """Looks for the mailboxes that are watched."""

    def for_candidate(self) -> "Searches":
        """Give what looks for the mailbox of one candidate, with its credential."""
        return Searches(self.find, self._proofs)

    async def find(self, account: Account, *, show: bool = True) -> str:
        """Return the ActiveSync URL of an account whose user is an address; raises EasError as `discover` does.

        Without `show`, no question is asked that needs the credential.
        """
        search = discover(account.user, self._hosts)
        try:
            lookup = next(search)
            while True:
                if lookup.credential and not show:
                    raise AccessDenied("Autodiscover tells nothing without the credential", Reason.AUTODISCOVER)
                try:
                    reply = await self._transport.send(_write(lookup, account))
                except EasError as error:
                    lookup = search.throw(error)
                else:
                    lookup = search.send(reply)
        except StopIteration as end:
            url: str = end.value
            return url


class Find(Protocol):
    """Ask Autodiscover."""

    def __call__(self, account: Account, *, show: bool = True) -> Awaitable[str]:
        """Return the ActiveSync URL of an account; raises EasError."""


class Searches:
    """Look for mailboxes anew, each once an hour at most, and remember what came of it for as long."""

    def __init__(self, find: Find, turns: asyncio.Semaphore) -> None:
        """Take what asks, and how many may do so at a time."""
        self._find = find
        self._turns = turns
        self._sought: dict[MailboxId, tuple[float, str]] = {}
        """Within the last `AGAIN` seconds, oldest first: when, by the loop's clock, and what came of it."""

    async def seek(self, account: Account, *, show: bool) -> str:
        """Find a mailbox anew, if that was not tried within the hour; raises EasError as `Seeker.seek` says."""
        self._forget()
        if (before := self._sought.get(account.mailbox)) is not None:
            raise AccessDenied(f"{before[1]} (asked within the hour)", Reason.AUTODISCOVER)
        self._note(account, "Autodiscover gave no answer")
        async with self._turns:
            try:
                url = await self._find(account, show=show)
            except EasError as error:
                self._note(account, str(error))
                raise
        self._note(account, f"Autodiscover names {authority(url)}")
        return url

    def _note(self, account: Account, result: str) -> None:
        self._sought.pop(account.mailbox, None)
        self._sought[account.mailbox] = asyncio.get_running_loop().time(), result

    def _forget(self) -> None:
        due = asyncio.get_running_loop().time() - AGAIN
        while self._sought and (first := next(iter(self._sought.items())))[1][0] <= due:
            del self._sought[first[0]]


def _write(lookup: Lookup, account: Account) -> HttpRequest:
    headers = {"User-Agent": USER_AGENT}
    authorization = account.credential.authorization() if lookup.credential else None
    if authorization is not None:
        headers["Authorization"] = authorization
    if lookup.body:
        headers["Content-Type"] = "text/xml; charset=utf-8"
    return HttpRequest(lookup.method, lookup.url, headers, lookup.body, PATIENCE)
