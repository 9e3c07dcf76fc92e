"""Own how the relay listens: one aiohttp application per listener, closed with its block.

aiohttp by itself answers what is no HTTP with the bytes it got, writes them into the log, and waits for ever for the
first request of a connection. Those bytes may be the body of a registration, and each connection is a file that a Ping
may need.
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

from relay.http import problems

log = logging.getLogger(__name__)

GOODBYE: Final = 10.0  # seconds that requests under way may take when the relay stops; a verdict is waited for shorter
HANDSHAKE: Final = 10.0  # seconds for a client's TLS handshake
IDLE: Final = 75.0  # seconds a connection may be without a request; long enough for a proxy to use it again
FIRST: Final = 20.0  # seconds until the first request of a connection is there with all its headers
MOST: Final = 4096  # connections at once to one listener; the rest of the open files belongs to Pings and pushes


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
    """Serve an application until the block ends; give the port, which matters when `port` is 0. Raises OSError.

    A connection is cut that brings no request within `first` seconds, and at once if it is one more than `most`.
    """
    loop = asyncio.get_running_loop()
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
    """Make a server's TLS context of PEM files, TLS 1.2 and newer."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


class _Connection(web.RequestHandler):
    """Serve one connection, and repeat nothing that came over it: not in an answer, not in the log."""

    __slots__ = ("_first", "_most")

    def __init__(self, manager: web.Server, loop: asyncio.AbstractEventLoop, first: float, most: int) -> None:
        super().__init__(manager, loop=loop, access_log=None, keepalive_timeout=IDLE)  # type: ignore[arg-type]  # None: no log
        self._first = first
        self._most = most

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._manager is not None and len(self._manager.connections) > self._most:
            log.warning("connection refused: too many are open", extra={"most": self._most})
            self.force_close()
            return
        # What ends a connection that got its answers and brings no further request; aiohttp starts it after the first.
        self._next_keepalive_close_time = self._loop.time() + self._first
        self._keepalive_handle = self._loop.call_later(self._first, self._process_keepalive)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 -- aiohttp's text, which repeats the request
    ) -> web.StreamResponse:
        """Answer what is no HTTP, or a fault of ours that no application caught; the connection ends."""
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
        """Send an answer; aiohttp's own refusals, no problem documents, repeat the request in their text."""
        if isinstance(resp, web.HTTPException) and resp.content_type != problems.MEDIA_TYPE:
            resp = problems.framework_refusal(resp)
        return await super().finish_response(request, resp, start_time)

    def log_exception(self, *_: Any, exc_info: BaseException | None = None, **__: Any) -> None:
        """Tell that a connection ended by an error, without its text."""
        log.info("connection broken", extra={"error": type(exc_info).__name__})
