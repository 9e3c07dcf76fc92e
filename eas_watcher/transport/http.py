"""HTTP to one EAS server: one client session for all its watches, and the library's errors turned into ours.

The transport repeats nothing, follows no redirect and keeps no cookie: a Sync sent twice by a transport can lose a mail
[observed: Z-Push 2.7.1, 2026-11], and a password must never follow a redirect.
"""

import asyncio
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import aiohttp
from yarl import URL

from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import ProtocolViolation, Unreachable
from eas_watcher.transport.deadlines import Deadlines
from eas_watcher.transport.holding import HoldsInTask
from eas_watcher.transport.limits import AnswerLimits
from eas_watcher.transport.sources import Sources
from eas_watcher.transport.tls import client_context, in_words

if TYPE_CHECKING:
    from aiohttp import ClientHandlerType, ClientRequest, ClientTimeout
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace


class ConnectionUse:
    """The use of a connection by one request."""

    __slots__ = ("answered", "connection", "kept", "limits", "refusal")

    def __init__(self, largest: int) -> None:
        """Allow an answer whose body has `largest` octets."""
        self.limits = AnswerLimits(largest)
        self.connection: WatchedConnection | None = None
        """None: the request has got no connection."""
        self.kept = False
        """True if the request found the connection open, from an earlier request."""
        self.answered = False
        """True if a byte came."""
        self.refusal: ProtocolViolation | None = None
        """The limit that the answer passed."""

    def end(self) -> None:
        """Note that the answer is whole; another request may use the connection already."""
        if self.connection is not None and self.connection.use is self:
            self.connection.use = None


class WatchedConnection(asyncio.Protocol):
    """A layer between the transport and aiohttp's protocol: it passes on what an answer may have.

    It cuts the connection when an answer passes a limit, and when bytes come that no request asked for: aiohttp would
    queue them without end.
    """

    __slots__ = ("_protocol", "_transport", "use")

    def __init__(self, protocol: asyncio.Protocol, transport: asyncio.Transport) -> None:
        """Pass everything on to `protocol`."""
        self._protocol = protocol
        self._transport: asyncio.Transport | None = transport
        self.use: ConnectionUse | None = None
        """The request that waits for its answer."""

    def begin(self, use: ConnectionUse, *, kept: bool) -> None:
        """Note that a request goes out."""
        self.use = use
        use.connection, use.kept, use.answered = self, kept, False

    def data_received(self, data: bytes) -> None:
        """Pass on what the limits allow."""
        use = self.use
        if use is None:
            self._cut()
            return
        use.answered = True
        try:
            passed = use.limits.pass_on(data)
        except ProtocolViolation as error:
            use.refusal, self.use = error, None
            self._cut()
            return
        if passed:
            self._protocol.data_received(passed)

    def eof_received(self) -> bool | None:
        """Pass the end of the server's bytes on."""
        return self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the end of the connection on."""
        self._transport = self.use = None  # no cycle of references stays
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass on that the socket accepts no more bytes."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the socket accepts bytes again."""
        self._protocol.resume_writing()

    def _cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()


present_use: Final[ContextVar[ConnectionUse]] = ContextVar("present_use")
"""The use of a connection by a task's present request."""


class Connector(aiohttp.TCPConnector):
    """aiohttp's connector, with a WatchedConnection on each connection."""

    async def connect(
        self,
        req: "ClientRequest",
        traces: "list[Trace]",
        timeout: "ClientTimeout",  # noqa: ASYNC109 -- aiohttp's signature
    ) -> "Connection":
        """Return a connection, kept or fresh, for one request."""
        connection = await super().connect(req, traces, timeout)
        transport, protocol = connection.transport, connection.protocol
        if transport is not None and protocol is not None:
            watched = transport.get_protocol()
            kept = isinstance(watched, WatchedConnection)
            if not isinstance(watched, WatchedConnection):
                watched = WatchedConnection(protocol, transport)
                transport.set_protocol(watched)
            watched.begin(present_use.get(), kept=kept)
        return connection


class ConnectionBroken(aiohttp.ClientConnectionError):
    """A lost connection, as an error that aiohttp does not answer with a second attempt."""

    def __init__(self, lost: aiohttp.ClientError) -> None:
        super().__init__(str(lost))
        self.name = type(lost).__name__


async def send_once(request: "ClientRequest", send: "ClientHandlerType") -> aiohttp.ClientResponse:
    """Send a request once, as a middleware of aiohttp.

    aiohttp sends OPTIONS again when its connection breaks. Then a wrong password would count twice, and a ticket would
    be a replay.
    """
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise ConnectionBroken(error) from error


ONCE: Final = (send_once,)
OK: Final = 200
CONNECT: Final = 20.0  # seconds for TCP and TLS
REPEATED: Final = ("ms-asprotocolversions", "www-authenticate")
"""Headers that may come in several lines, which commas join [RFC 9110 5.3]."""
KEEP_IDLE: Final = 75.0  # seconds an unused connection waits for its next request
STALE: Final = 5.0
"""Seconds until a kept connection that the server had closed shows it: a round trip on a busy machine."""
GOODBYE: Final = 0.05
"""Seconds that a cancelled Ping waits for the server's TLS goodbye: the next Ping comes at once."""
CUT_TRIES, CUT_STEP = 100, 0.01  # count, seconds; a cut connection is gone after one or two turns of the loop
TCP_IDLE, TCP_INTERVAL, TCP_PROBES = 60, 15, 4  # seconds, seconds, count: a dead peer is noticed after two minutes


@asynccontextmanager
async def open_transport(
    tls: ssl.SSLContext | None = None, *, reuse: bool = True, sources: Iterable[str] = ()
) -> AsyncIterator["HttpTransport"]:
    """Open the transport to one server; without `tls`, it trusts the CAs of the system.

    Without `reuse` every connection carries one request. Connections come from the addresses `sources` of this host in
    turn.
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
        # aiohttp 3.12 deprecates `ssl_shutdown_timeout` and offers nothing else for a request that is cancelled.
        warnings.simplefilter("ignore", DeprecationWarning)
        connector = Connector(
            limit=0,
            ttl_dns_cache=60,
            keepalive_timeout=KEEP_IDLE if reuse else None,
            force_close=not reuse,
            ssl=tls or client_context(),
            ssl_shutdown_timeout=GOODBYE,
            socket_factory=make_socket,
        )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT),
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
    ) as session:
        yield HttpTransport(session, Deadlines())
    await _cut(sockets)


class HttpTransport(HoldsInTask):
    """The transport for any number of watches."""

    __slots__ = ("_deadlines", "_session", "_tls")

    def __init__(self, session: aiohttp.ClientSession, deadlines: Deadlines, tls: ssl.SSLContext | None = None) -> None:
        """Use the session of one server and the deadlines of the process; `tls` makes connections of its own."""
        self._session = session
        self._deadlines = deadlines
        self._tls = tls

    def with_tls(self, tls: ssl.SSLContext) -> "HttpTransport":
        """Return a transport with the same session whose connections use another TLS context, and only that one."""
        return HttpTransport(self._session, self._deadlines, tls)

    async def send(self, request: HttpRequest) -> HttpReply:
        """Return any HTTP answer; raises Unreachable when none arrived whole in time.

        Raises ProtocolViolation for an answer that is no HTTP or passes a limit. The body of an error that is larger
        than the request allows is left out. No request is sent twice.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        use = ConnectionUse(request.largest)
        present_use.set(use)
        try:
            with self._deadlines.within(request.deadline):
                reply = await self._exchange(request)
        except aiohttp.ConnectionTimeoutError as error:
            raise Unreachable("no connection in time", reached=False) from error
        except TimeoutError as error:
            raise Unreachable("no answer in time", clock() - began) from error
        except aiohttp.ClientConnectorError as error:
            raise Unreachable(f"no connection: {_describe(error.os_error)}", reached=False) from error
        except (aiohttp.ClientResponseError, aiohttp.InvalidURL) as error:
            raise ProtocolViolation("the answer is not HTTP") from error
        except (aiohttp.ClientError, OSError) as error:
            if use.refusal is not None:
                raise use.refusal from error
            survived = clock() - began
            stale = use.kept and not use.answered and survived < STALE
            name = error.name if isinstance(error, ConnectionBroken) else type(error).__name__
            raise Unreachable(f"connection lost: {name}", survived, stale=stale) from error
        use.end()
        return reply

    async def _exchange(self, request: HttpRequest) -> HttpReply:
        async with self._session.request(
            request.method,
            URL(request.url, encoded=True),
            headers=request.headers,
            data=request.body or None,
            allow_redirects=False,
            middlewares=() if request.method == "POST" else ONCE,  # aiohttp sends no POST twice
            ssl=self._tls or True,
        ) as response:
            body = await _read_limited(response, request.largest)
            headers = {name.lower(): value for name, value in response.headers.items()}
            # Exchange Online sends its versions twice, and each authentication scheme in a line of its own.
            for name in REPEATED:
                if name in headers:
                    headers[name] = ",".join(response.headers.getall(name))
            return HttpReply(response.status, headers, body, tuple(response.headers.getall("Set-Cookie", [])))


async def _cut(sockets: Iterable[socket.socket]) -> None:
    """End the connections of cancelled requests that wait for the server's TLS goodbye.

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


async def _read_limited(response: aiohttp.ClientResponse, largest: int) -> bytes:
    """Read a body chunk by chunk up to a limit in octets; a larger one of an error is left out."""
    length = response.content_length
    too_large = length is not None and length > largest
    chunks: list[bytes] = []
    size = 0
    while not too_large and not response.content.at_eof():
        chunk = await response.content.readany()
        size += len(chunk)
        too_large = size > largest
        chunks.append(chunk)
    if not too_large:
        return b"".join(chunks)
    response.close()
    if response.status == OK:
        raise ProtocolViolation(f"the answer is larger than {largest // 1024} KiB")
    return b""


def _describe(error: OSError) -> str:
    """Return the text of an error of the network or of TLS, without addresses that change."""
    if isinstance(error, ssl.SSLError):
        return in_words(error)
    return error.strerror or type(error).__name__


def _kept_alive_socket(address: tuple[Any, ...]) -> socket.socket:
    """Return a socket that notices when the peer vanishes without a word, as often happens during a long hold."""
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", TCP_IDLE), ("TCP_KEEPINTVL", TCP_INTERVAL), ("TCP_KEEPCNT", TCP_PROBES)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return sock
