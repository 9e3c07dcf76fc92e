"""Own HTTP to one EAS server: one client session for all its watches, and foreign errors turned into ours.

Nothing is repeated, redirected, or remembered here: a Sync sent twice by a transport can lose a mail
[observed: Z-Push 2.7.1, 2026-11], and a password must never follow a redirect.
"""

import asyncio
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import ProtocolViolation, Unreachable
from eas_watcher.transport.deadlines import Deadlines
from eas_watcher.transport.sources import Sources

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


BODY_LIMIT: Final = 8 * 1024 * 1024  # bytes; the decoder's limit too
CONNECT: Final = 20.0  # seconds for TCP and TLS
REPEATED: Final = ("ms-asprotocolversions", "www-authenticate")
"""Lists that may come in several lines, to be joined by commas [RFC 9110 5.3]."""
KEEP_IDLE: Final = 75.0  # seconds an unused connection waits for its next request
STALE: Final = (
    5.0  # seconds within which a kept connection that had been closed shows it; a round trip, on a busy machine
)
FAREWELL: Final = (
    0.05  # seconds that a cancelled Ping may linger for the peer's TLS goodbye: the next one comes at once
)
CUT_TRIES, CUT_STEP = 100, 0.01  # count, seconds; a cut connection is gone after one or two turns of the loop
TCP_IDLE, TCP_INTERVAL, TCP_PROBES = 60, 15, 4  # seconds, seconds, count: a dead peer shows after two minutes


@asynccontextmanager
async def open_transport(
    tls: ssl.SSLContext | None = None, *, reuse: bool = True, sources: Iterable[str] = ()
) -> AsyncIterator["HttpTransport"]:
    """Open the transport to one server; `tls` trusts what the operator configured, None what the system trusts.

    Without `reuse` every connection carries one request and is closed. `sources` are addresses of this host that
    connections come from in turn.
    """
    sockets: WeakSet[socket.socket] = WeakSet()
    bound = Sources(sources)

    def make_socket(address: tuple[Any, ...]) -> socket.socket:
        sock = _kept_alive_socket(address)
        try:
            bound.bind(sock)
        except OSError:
            sock.close()
            raise
        sockets.add(sock)
        return sock

    with warnings.catch_warnings():
        # aiohttp 3.12 wants `ssl_shutdown_timeout` to go, and has nothing in its place for a request that is cancelled.
        warnings.simplefilter("ignore", DeprecationWarning)
        connector = Connector(
            limit=0,
            ttl_dns_cache=60,
            keepalive_timeout=KEEP_IDLE if reuse else None,
            force_close=not reuse,
            ssl=tls or ssl.create_default_context(),
            ssl_shutdown_timeout=FAREWELL,
            socket_factory=make_socket,
        )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT),
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
    ) as session:
        # aiohttp sends OPTIONS again when its connection breaks. A wrong password would count twice then, and a ticket
        # be a replay: what is sent is sent once.
        session._retry_connection = False  # noqa: SLF001 -- as aiohttp's own test client does; there is no other way
        yield HttpTransport(session, Deadlines())
    await _cut(sockets)


class HttpTransport:
    """Carry requests of any number of watches."""

    __slots__ = ("_deadlines", "_session", "_tls")

    def __init__(self, session: aiohttp.ClientSession, deadlines: Deadlines, tls: ssl.SSLContext | None = None) -> None:
        """Take the session of one server and the dead-lines of the process; `tls` for connections of its own."""
        self._session = session
        self._deadlines = deadlines
        self._tls = tls

    def with_tls(self, tls: ssl.SSLContext) -> "HttpTransport":
        """Return the same session for connections of another TLS context, never shared with those of any other."""
        return HttpTransport(self._session, self._deadlines, tls)

    async def send(self, request: HttpRequest) -> HttpReply:
        """Return any HTTP answer; raise Unreachable when none arrived whole in time.

        Raises ProtocolViolation for an answer that is no HTTP or is larger than 8 MiB. No request is sent twice.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        last_connection.set(None)
        try:
            with self._deadlines.within(request.deadline):
                return await self._exchange(request)
        except aiohttp.ConnectionTimeoutError as error:
            raise Unreachable("no connection in time", reached=False) from error
        except TimeoutError as error:
            raise Unreachable("no answer in time", clock() - began) from error
        except aiohttp.ClientConnectorError as error:
            raise Unreachable(f"no connection: {_describe(error.os_error)}", reached=False) from error
        except (aiohttp.ClientResponseError, aiohttp.InvalidURL) as error:
            raise ProtocolViolation("the answer is not HTTP") from error
        except (aiohttp.ClientError, OSError) as error:
            survived, used = clock() - began, last_connection.get()
            stale = used is not None and used.kept and not used.answered and survived < STALE
            raise Unreachable(f"connection lost: {type(error).__name__}", survived, stale=stale) from error

    async def _exchange(self, request: HttpRequest) -> HttpReply:
        async with self._session.request(
            request.method,
            URL(request.url, encoded=True),
            headers=request.headers,
            data=request.body or None,
            allow_redirects=False,
            ssl=self._tls or True,
        ) as response:
            body = await _read_limited(response)
            headers = {name.lower(): value for name, value in response.headers.items()}
            # Exchange Online sends its versions twice, and each way to log in in a line of its own.
            for name in REPEATED:
                if name in headers:
                    headers[name] = ",".join(response.headers.getall(name))
            return HttpReply(response.status, headers, body, tuple(response.headers.getall("Set-Cookie", [])))


async def _cut(sockets: Iterable[socket.socket]) -> None:
    """End the connections that cancelled requests left while their TLS waits for the peer's farewell.

    nginx sends none while it waits for the server behind it [observed: nginx 1.22, 2026-11].
    """
    for _ in range(CUT_TRIES):
        left = [sock for sock in sockets if sock.fileno() >= 0]
        if not left:
            return
        for sock in left:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        await asyncio.sleep(CUT_STEP)


async def _read_limited(response: aiohttp.ClientResponse) -> bytes:
    """Read a body chunk by chunk, so that a huge or endless one ends at the limit."""
    length = response.content_length
    if length is not None and length > BODY_LIMIT:
        raise ProtocolViolation("the answer is larger than 8 MiB")
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > BODY_LIMIT:
            raise ProtocolViolation("the answer is larger than 8 MiB")
        chunks.append(chunk)
    return b"".join(chunks)


def _describe(error: OSError) -> str:
    """Say what the network or TLS said, without addresses that change."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not trusted: {error.verify_message}"
    return error.strerror or type(error).__name__


def _kept_alive_socket(address: tuple[Any, ...]) -> socket.socket:
    """Make a socket that notices a peer which vanished without a word, the usual end of a long hold."""
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", TCP_IDLE), ("TCP_KEEPINTVL", TCP_INTERVAL), ("TCP_KEEPCNT", TCP_PROBES)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return sock
