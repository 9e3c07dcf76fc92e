"""The relay's HTTP listeners: one aiohttp application each.

aiohttp by itself answers bytes that are no HTTP with these bytes, writes them into the log, and waits as long for the
first request of a connection as for the next ones. Those bytes may be the body of a registration, and each connection
uses a file descriptor that a Ping may need.
"""

import asyncio
import logging
import ssl
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler

from relay.http import problems

log = logging.getLogger(__name__)

GOODBYE: Final = 10.0  # seconds for requests in progress when the relay stops; a registration waits less for its check
HANDSHAKE: Final = 10.0  # seconds for a client's TLS handshake
IDLE: Final = 75.0  # seconds between two requests of a connection; long enough for a proxy to use it again
FIRST: Final = 20.0  # seconds until the first request of a connection has come with all its headers
MOST: Final = 4096  # connections at once to one listener; Pings and pushes need the rest of the open files


@asynccontextmanager
async def open_listener(
    app: web.Application,
    host: str,
    port: int,
    tls: ssl.SSLContext | None = None,
    *,
    first: float = FIRST,
    most: int = MOST,
) -> AsyncIterator[int]:
    """Serve an application until the block ends; yield the port, which matters when `port` is 0. Raises OSError.

    The listener cuts a connection that brings no request within `first` seconds, and one more than `most`.
    """
    loop = asyncio.get_running_loop()
    app.middlewares.insert(0, _note_request)
    runner = web.AppRunner(app, shutdown_timeout=GOODBYE)
    await runner.setup()
    manager = runner.server
    if manager is None:
        raise AssertionError("a runner that is set up has a server")
    try:
        listener = await loop.create_server(
            lambda: _Connection(manager, loop, first, most),
            host,
            port,
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else HANDSHAKE,
        )
        try:
            yield int(listener.sockets[0].getsockname()[1])
        finally:
            listener.close()
    finally:
        await runner.cleanup()


def server_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return a server's TLS context from PEM files, for TLS 1.2 and newer."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


@web.middleware
async def _note_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell the connection that its first request has come."""
    if isinstance(request.protocol, _Connection):
        request.protocol.stop_waiting()
    return await handler(request)


class _Connection(web.RequestHandler):
    """One connection; neither answers nor the log repeat anything that came over it."""

    __slots__ = ("_first", "_most", "_patience", "_server")

    def __init__(self, server: web.Server, loop: asyncio.AbstractEventLoop, first: float, most: int) -> None:
        super().__init__(server, loop=loop, access_log=None, keepalive_timeout=IDLE)  # type: ignore[arg-type]  # None: no log
        self._server = server
        self._first = first
        self._most = most
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if len(self._server.connections) > self._most:
            log.warning("connection refused: too many are open", extra={"most": self._most})
            self.force_close()
            return
        self._patience = asyncio.get_running_loop().call_later(self._first, self.force_close)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.stop_waiting()
        super().connection_lost(exc)

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
        if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            log.info("request is no HTTP", extra={"error": type(exc).__name__})
            kind = problems.BAD_REQUEST
        else:
            frames = "" if exc is None else "".join(traceback.format_tb(exc.__traceback__))
            log.error("request failed", extra={"error": type(exc).__name__, "frames": frames})
            kind = problems.INTERNAL
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        answer = problems.document(kind, "")
        answer.force_close()
        return answer

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; aiohttp's own refusals repeat the request in their text, so they become problem documents."""
        if isinstance(resp, web.HTTPException) and resp.content_type != problems.MEDIA_TYPE:
            resp = problems.framework_refusal(resp)
        return await super().finish_response(request, resp, start_time)

    def log_exception(self, *_: Any, exc_info: BaseException | None = None, **__: Any) -> None:
        """Log that a connection ended by an error, without the error's text."""
        log.info("connection broken", extra={"error": type(exc_info).__name__})
