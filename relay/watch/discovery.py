"""Own Autodiscover over HTTP: the questions of the search go out, the answers go in."""

from typing import Final

from eas_watcher.autodiscover.search import Lookup, discover
from eas_watcher.errors import EasError
from eas_watcher.names import USER_AGENT
from eas_watcher.ports import HttpRequest, Transport
from eas_watcher.wire import Account

PATIENCE: Final = 30.0  # seconds per question; somebody who registers waits for it


class Discovery:
    """Find where the mailboxes of a domain are."""

    def __init__(self, transport: Transport, hosts: frozenset[str]) -> None:
        """Take the transport to the hosts that may be asked."""
        self._transport = transport
        self._hosts = hosts

    async def find(self, account: Account) -> str:
        """Return the ActiveSync URL of an account whose user is an address; raises EasError as `discover` does."""
        search = discover(account.user, self._hosts)
        try:
            lookup = next(search)
            while True:
                try:
                    reply = await self._transport.send(_write(lookup, account))
                except EasError as error:
                    lookup = search.throw(error)
                else:
                    lookup = search.send(reply)
        except StopIteration as end:
            url: str = end.value
            return url


def _write(lookup: Lookup, account: Account) -> HttpRequest:
    headers = {"User-Agent": USER_AGENT}
    authorization = account.credential.authorization() if lookup.credential else None
    if authorization is not None:
        headers["Authorization"] = authorization
    if lookup.body:
        headers["Content-Type"] = "text/xml; charset=utf-8"
    return HttpRequest(lookup.method, lookup.url, headers, lookup.body, PATIENCE)
