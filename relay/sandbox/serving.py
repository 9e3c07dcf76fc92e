"""Own how simulators of services that speak HTTP/1.1 are served."""

import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Protocol

from aiohttp import web
from aiohttp.web_protocol import RequestHandler


class HttpSimulator(Protocol):
    """Answers requests, and can cut the connections that they came on."""

    def listen(self, port: int, connections: Callable[[], Iterable[RequestHandler]]) -> None:
        """Take the port and what tells the open connections."""

    def app(self) -> web.Application:
        """Make the web application."""


@asynccontextmanager
async def serve_simulator(simulator: HttpSimulator, tls: ssl.SSLContext, host: str, port: int) -> AsyncIterator[None]:
    """Serve until the block ends; port 0 takes a free one."""
    # A stalled request must not hold up the end.
    runner = web.AppRunner(simulator.app(), access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        server = runner.server
        if server is None:
            raise AssertionError("set up a moment ago")
        site = web.TCPSite(runner, host, port, ssl_context=tls)
        await site.start()
        simulator.listen(int(runner.addresses[0][1]), lambda: server.connections)
        yield
    finally:
        await runner.cleanup()
