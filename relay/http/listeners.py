"""The relay's HTTP listeners: one aiohttp application each.

aiohttp by itself answers bytes that are no HTTP with these bytes, writes them into the log, and waits as long for the
first request of a connection as for the next ones. Those bytes may be the body of a registration, and each connection
uses a file descriptor that a Ping may need.
"""

import asyncio
import logging
import socket
import ssl
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.http_exceptions import ContentEncodingError
from aiohttp.typedefs import Handler, Middleware

from relay.http import kinds, problems
from relay.http.acceptor import BACKLOG, Acceptor
from relay.http.admission import Admission, Pace, Refused
from relay.http.hosts import bind

log = logging.getLogger(__name__)

BEGIN: Final = 4  # requests that begin in one turn of the loop, some 0.3 ms each
GOODBYE: Final = 10.0  # seconds for requests in progress when the relay stops; a registration waits less for its check
HANDSHAKE: Final = 10.0  # seconds for a client's TLS handshake
FAREWELL: Final = 2.0  # seconds for a client to end TLS too; a closed connection keeps its file so long
IDLE: Final = 75.0  # seconds between two requests of a connection; long enough for a proxy to use it again
FIRST: Final = 20.0  # seconds until the first request of a connection has come with all its headers
LINGER: Final = 2.0  # seconds in which a client may read an answer that came before the end of its request
UNREAD: Final = 30.0  # seconds that a client may leave an answer unread
PLAIN: Final = 0.25  # cost of a connection without TLS, compared with one whose handshake signs with a key
UNPACED: Final = 10_000.0  # connections per second


class Door:
    """How a listener receives its clients; what changes here holds for those that come next."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        """Set up with the context of TLS; None: plain HTTP."""
        self.tls = tls
        self._server: web.Server | None = None

    def leads_to(self, server: web.Server) -> None:
        """Note what serves the connections."""
        self._server = server

    def see_out(self) -> None:
        """End all connections, each after the request in progress: their clients come again, as strangers."""
        for connection in () if self._server is None else self._server.connections:
            if isinstance(connection, _Connection):
                connection.see_out()


@asynccontextmanager
async def open_listener(
    app: web.Application,
    hosts: str | Sequence[str],
    port: int,
    tls: ssl.SSLContext | Door | None = None,
    *,
    sockets: Sequence[socket.socket] = (),
    admission: Admission | None = None,
    pace: Pace | None = None,
    spare: int = 0,
    first: float = FIRST,
    largest: int | None = None,
) -> AsyncIterator[int]:
    """Serve an application until the block ends; yield the port, which matters when `port` is 0. Raises CannotListen.

    `hosts` is one host or several, as `relay.http.hosts.bind` takes them.

    `admission` decides which connections the listener takes, `pace` how fast, by default as fast as they come. The
    listener keeps `spare` files for them, and cuts a connection that brings no request within `first` seconds. It reads
    no more than `largest` bytes of a request, before decoding; None: all. With `sockets`, which listen already, it
    opens none of its own; it closes them at its end.
    """
    loop = asyncio.get_running_loop()
    entry = tls if isinstance(tls, Door) else Door(tls)
    door = Admission() if admission is None else admission
    app.middlewares.insert(0, _beginning(Turns(BEGIN)))
    app.on_response_prepare.append(_marked)
    runner = web.AppRunner(app, shutdown_timeout=GOODBYE)
    async with AsyncExitStack() as stack:
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        manager = runner.server
        if manager is None:
            raise AssertionError("a runner that is set up has a server")
        entry.leads_to(manager)

        async def serve(accepted: socket.socket, leave: Callable[[], None]) -> None:
            tls = entry.tls
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD * 1000))
            await loop.connect_accepted_socket(
                lambda: _Connection(manager, loop, first, largest, door, leave),
                accepted,
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else HANDSHAKE,
                ssl_shutdown_timeout=None if tls is None else FAREWELL,
            )

        common = Pace(UNPACED, UNPACED) if pace is None else pace
        listening = sockets or await asyncio.to_thread(bind, (hosts,) if isinstance(hosts, str) else hosts, port)
        for each in listening:
            stack.callback(each.close)
        for each in listening:
            each.settimeout(0)
            each.listen(BACKLOG)
            acceptor = Acceptor(
                each, serve, door, pace=common, cost=lambda: PLAIN if entry.tls is None else 1.0, spare=spare
            )
            stack.push_async_callback(acceptor.close)
        yield int(listening[0].getsockname()[1])


def server_tls(certificate: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """Return a server's TLS context from PEM files, for TLS 1.2 and newer.

    With a `client_ca` clients are asked for a certificate of it; those without one are served, with a wrong one not.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    # Set whole, as for mail servers (ADR 0014): from Python 3.13 on the default refuses CAs of an older form.
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


class Turns:
    """Lets a few requests begin in each turn of the event loop, in order; pushes and Pings come between."""

    def __init__(self, each: int) -> None:
        """Set up with the requests that begin in one turn."""
        self._each = each
        self._left = each
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._next: asyncio.Handle | None = None

    async def wait(self) -> None:
        """Return when it is this request's turn."""
        loop = asyncio.get_running_loop()
        if self._next is None:
            self._next = loop.call_soon(self._turn, loop)
        if self._left > 0 and not self._waiting:
            self._left -= 1
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._left = self._each
        while self._waiting and self._left > 0:
            turn = self._waiting.popleft()
            if not turn.done():  # its connection may be gone
                turn.set_result(None)
                self._left -= 1
        self._next = loop.call_soon(self._turn, loop) if self._left < self._each else None


def _beginning(turns: Turns) -> Middleware:
    @web.middleware
    async def beginning(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Tell the connection that its first request has come, and let it wait for its turn."""
        if isinstance(request.protocol, _Connection):
            request.protocol.begins()
        await turns.wait()
        return await handler(request)

    return beginning


async def _marked(_: web.Request, response: web.StreamResponse) -> None:
    _mark(response)


def _mark(response: web.StreamResponse) -> None:
    """Leave out which programs answer, in which versions; let nobody keep an answer that does not allow it."""
    response.headers.popall(hdrs.SERVER, None)
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"


class _Bare(web.Response):
    """The answer to bytes that are no HTTP: no application prepares it, so nothing else marks it."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        _mark(self)


class _Connection(web.RequestHandler):
    """One connection; neither answers nor the log repeat anything that came over it."""

    __slots__ = ("_door", "_first", "_largest", "_last", "_leave", "_patience", "_serves", "_unread")

    def __init__(
        self,
        server: web.Server,
        loop: asyncio.AbstractEventLoop,
        first: float,
        largest: int | None,
        door: Admission,
        leave: Callable[[], None],
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # None: no log
            keepalive_timeout=IDLE,
            lingering_time=LINGER,
        )
        self._largest = largest
        self._unread = largest
        self._first = first
        self._door = door
        self._leave = leave
        self._patience: asyncio.TimerHandle | None = None
        self._serves = False
        """True while a request is served."""
        self._last = False
        """True if that is the connection's last one."""

    def see_out(self) -> None:
        """End the connection, after the request in progress if there is one."""
        self._last = True
        if not self._serves:
            self.force_close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._patience = asyncio.get_running_loop().call_later(self._first, self._cut)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and nothing of a request beyond its limit: a body may come in chunks of one byte each."""
        if self._unread is not None:
            if self._unread < 0:
                return
            self._unread -= len(data)
            if self._unread < 0:
                data = data[: self._unread]
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.stop_waiting()
        self._leave()
        super().connection_lost(exc)

    def _cut(self) -> None:
        self._door.refused[Refused.SILENT] += 1
        self.force_close()

    def begins(self) -> None:
        """Note that a request has come."""
        self._serves = True
        self.stop_waiting()

    def stop_waiting(self) -> None:
        """Leave the connection open: a request has come."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 -- aiohttp's text, which repeats the request
    ) -> web.StreamResponse:
        """Answer bytes that are no HTTP, or an error that no application caught; the connection ends."""
        if hung_up(request, exc):
            raise ConnectionError("the client is gone")
        if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            log.info("request is no HTTP", extra={"error": type(exc).__name__})
            # A body of an encoding whose library is missing is refused before any handler is chosen.
            unknown = isinstance(exc, ContentEncodingError)
            kind = kinds.UNKNOWN_ENCODING if unknown else kinds.BAD_REQUEST
        else:
            frames = "" if exc is None else "".join(traceback.format_tb(exc.__traceback__))
            log.error("request failed", extra={"error": type(exc).__name__, "frames": frames})
            kind = kinds.INTERNAL
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        accepted: dict[str, str] = {}
        if kind is kinds.UNKNOWN_ENCODING:
            accepted[hdrs.ACCEPT_ENCODING] = ", ".join(kinds.ENCODINGS)
        document = problems.document(kind, "", headers=accepted)
        answer = _Bare(body=document.body, status=document.status, headers=document.headers)
        answer.force_close()
        return answer

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; aiohttp's own refusals repeat the request in their text, so they become problem documents."""
        if isinstance(resp, web.HTTPException) and resp.content_type != problems.MEDIA_TYPE:
            resp = problems.framework_refusal(resp)
        if self._last or (self._unread is not None and self._unread < 0):
            resp.force_close()
        else:
            self._unread = self._largest
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._serves = False
            if self._last:
                self.force_close()

    def log_exception(self, *_: Any, exc_info: BaseException | None = None, **__: Any) -> None:
        """Log that a connection ended by an error, without the error's text."""
        log.info("connection broken", extra={"error": type(exc_info).__name__})


def hung_up(request: web.BaseRequest, error: BaseException | None) -> bool:
    """Return True if an error says no more than that the client of the request is gone."""
    transport = request.transport
    return isinstance(error, OSError) and (transport is None or transport.is_closing())
