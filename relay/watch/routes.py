"""Own which transport carries a request: each allowed host is trusted by the CAs that were configured for it."""

from collections.abc import Mapping

from eas_watcher.commands.request import HttpReply
from eas_watcher.locations import authority
from eas_watcher.ports import HttpRequest, Transport


class Routes:
    """Be the transport of one server whose mailboxes may be sent to others."""

    def __init__(self, own: Transport, others: Mapping[str, Transport]) -> None:
        """Take the server's own transport and those of other hosts, by host and port as `locations` writes them."""
        self._own = own
        self._others = others

    async def send(self, request: HttpRequest) -> HttpReply:
        """Carry a request by the transport of its host."""
        return await self._others.get(authority(request.url) or "", self._own).send(request)
