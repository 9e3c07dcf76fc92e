"""Servers on loopback that speak TLS with a certificate of their own, honest and hostile ones."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trustme
from aiohttp import web

HOST = "127.0.0.1"


class Authority:
    """A CA that issues the certificate of a server, and the context of a client that trusts it."""

    def __init__(self) -> None:
        ca = self.ca = trustme.CA()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert(HOST).configure_cert(self.server)
        self.client = ssl.create_default_context()
        ca.configure_trust(self.client)


@asynccontextmanager
async def serving(
    authority: Authority, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> AsyncIterator[str]:
    """Serve every path with one handler; yield the base URL."""
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, 0, ssl_context=authority.server)
        await site.start()
        yield f"https://{HOST}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def talking(authority: Authority | None, talk: Talk) -> AsyncIterator[str]:
    """Serve connections with a function of their streams, without TLS if there is no authority; yield the base URL."""
    talks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            talks.add(task)
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client closed the connection
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(connected, HOST, 0, ssl=None if authority is None else authority.server)
    async with server:
        yield f"https://{HOST}:{server.sockets[0].getsockname()[1]}"
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """Read the head and the body of one request; raises IncompleteReadError when there is none."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return head + await reader.readexactly(length)
