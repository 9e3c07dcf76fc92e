"""Own what is known of the connection that a request went over: whether it was a kept one, and whether it answered."""

import asyncio
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler

if TYPE_CHECKING:
    from aiohttp.client import ClientTimeout
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace


class WatchedConnection(ResponseHandler):
    """Note what happens on one connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin with a fresh one."""
        super().__init__(loop)
        self.used = False
        self.kept = False
        """Whether the present request found it open, from an earlier one."""
        self.answered = False
        """Whether a byte came since the present request had it."""

    def begin(self) -> None:
        """Note that a request goes out."""
        self.kept, self.used, self.answered = self.used, True, False

    def data_received(self, data: bytes) -> None:
        """Note that something came, and read it."""
        self.answered = True
        super().data_received(data)


last_connection: Final[ContextVar[WatchedConnection | None]] = ContextVar("last_connection", default=None)
"""What the last request of a task went over; None: it got no connection."""


class Connector(aiohttp.TCPConnector):
    """Make connections that note what happens on them."""

    def __init__(self, **options: Any) -> None:
        """Take the options of aiohttp's connector."""
        super().__init__(**options)
        made: type[ResponseHandler] = WatchedConnection
        self._factory = partial(made, loop=self._loop)

    async def connect(
        self,
        req: "ClientRequest",
        traces: "list[Trace]",
        timeout: "ClientTimeout",  # noqa: ASYNC109 -- aiohttp's signature
    ) -> "Connection":
        """Give a connection, kept or fresh, to one request."""
        connection = await super().connect(req, traces, timeout)
        if isinstance(connection.protocol, WatchedConnection):
            connection.protocol.begin()
            last_connection.set(connection.protocol)
        return connection
