"""Own one request of a watch: past the server's door, over the wire, and back as a reply or what went wrong."""

import asyncio
import logging
from dataclasses import replace
from typing import Any, Final, TypeVar

from eas_watcher.commands import cookies
from eas_watcher.commands.folder_sync import FolderSync
from eas_watcher.commands.http_status import raise_for_cut, raise_for_http
from eas_watcher.commands.ping import Ping
from eas_watcher.commands.request import Command, HttpReply, HttpRequest
from eas_watcher.errors import EasError, RequestRefused, ServerRenewed
from eas_watcher.machine.state import Watch
from eas_watcher.names import NO_SYNC_KEY
from eas_watcher.ports import Transport
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.context import WatchContext
from eas_watcher.runtime.http_request import compose
from eas_watcher.server.admission import ServerAdmission, WatchAdmission
from eas_watcher.server.breaker import concerns_server

log = logging.getLogger(__name__)
R = TypeVar("R")

REFUSED_KEPT: Final = 512  # bytes of a refused request that are logged; a whole Ping of five folders has 200


class EasClient:
    """Send the commands of one mailbox, one at a time."""

    __slots__ = ("_account", "_around", "_cookies", "_rate", "_renewal", "_transport", "_url", "_visitor", "shared")

    def __init__(self, account: Account, transport: Transport, around: WatchContext, rate: float) -> None:
        """Take the account, the transport to its server, and how many mailboxes per second may return to it."""
        self._account = account
        self._transport = transport
        self._around = around
        self._rate = rate
        self._url = account.url
        self._visitor = WatchAdmission(account.mailbox)
        self._cookies: dict[str, str] = {}
        self._renewal = ""
        self.shared = False
        """Whether what came of the last request was a failure that concerns the whole server."""

    @property
    def url(self) -> str:
        """Where requests go."""
        return self._url

    @property
    def began(self) -> float:
        """When the last request was let through, by the loop's clock."""
        return self._visitor.began

    @property
    def door(self) -> ServerAdmission:
        """The door to that server."""
        return self._around.door(self._url, self._rate)

    def address(self, url: str | None) -> None:
        """Send to a URL from now on; None: the configured one."""
        url = url or self._account.url
        if url != self._url:
            self._url, self._visitor = url, WatchAdmission(self._account.mailbox)
            self._cookies = {}  # cookies are for the host that set them

    async def send(self, command: Command[R], watch: Watch) -> R:
        """Send one command, when the server's door lets us, and read its answer; raises EasError."""
        self.address(watch.partnership.url)
        door, visitor = self.door, self._visitor
        visitor.refusals = watch.counters.refusals
        await door.enter(visitor, holds=isinstance(command, Ping))
        try:
            reply = await self._transmit(command, watch, door)
        except EasError as error:
            self.shared = concerns_server(error)
            understood = door.failed(visitor, error)
            if understood is error:
                raise
            raise understood from error
        else:
            self.shared = False
            door.answered(visitor)
            door.accepted(visitor)
            return reply
        finally:
            door.leave(visitor)

    async def _transmit(self, command: Command[R], watch: Watch, door: ServerAdmission) -> R:
        partnership = watch.partnership
        account = replace(self._account, url=self._url) if partnership.url is not None else self._account
        cookie = cookies.header(self._cookies) if self._cookies else ""
        request = compose(account, command, partnership.version, partnership.policy_key, cookie)
        if isinstance(command, Ping):
            reply = await self._hold(command, request)
        else:
            async with door.short:
                reply = await self._transport.send(request)
        if reply.set_cookies:
            self._cookies = cookies.merge(self._cookies, reply.set_cookies)
        try:
            raise_for_http(reply, self._around.now())
            self._raise_for_renewal(command, reply)
            return command.read(reply)
        except RequestRefused:
            if command.policy_key is None:
                # For whoever repairs it: our own bytes, which hold keys and ids, nothing of the mailbox.
                refused = {"command": command.name, "body": request.body[:REFUSED_KEPT].hex()}
                log.warning("request refused", extra={"mailbox": self._account.mailbox, **refused})
            raise

    async def _hold(self, command: Ping, request: HttpRequest) -> HttpReply:
        """Send a Ping, and note that it is held."""
        mailbox, held = self._account.mailbox, self._around.stats.held
        clock = asyncio.get_running_loop().time
        began = clock()
        held[mailbox] = command.heartbeat
        self._around.journal.pinged(mailbox, command.heartbeat)
        try:
            reply = await self._transport.send(request)
        finally:
            held.pop(mailbox, None)
        raise_for_cut(reply, clock() - began)
        return reply

    def _raise_for_renewal(self, command: Command[Any], reply: HttpReply) -> None:
        """Raise ServerRenewed, once, when the server wants all clients to start over [MS-ASHTTP 2.2.2.1.2].

        Servers go on saying so; an answer to a start says it too and means nothing.
        """
        said = reply.headers.get("x-ms-rp", "")
        if said in {"", self._renewal}:
            return
        self._renewal = said
        if command.name and command != FolderSync(NO_SYNC_KEY):
            raise ServerRenewed("the server says that what it offers has changed (X-MS-RP)")
