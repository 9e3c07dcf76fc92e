"""An HTTP proxy, honest or hostile, that opens tunnels by CONNECT and notes the requests."""

import asyncio
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.fakes.tls import HOST

OPENED = b"HTTP/1.1 200 Connection established\r\n\r\n"
WANTS_BASIC = b'HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm="Staff"\r\nContent-Length: 0\r\n\r\n'

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class ConnectProxy:
    """The behaviour of a proxy, and the requests that it got."""

    user: str = ""
    """As "user:password"; empty: it serves every client."""
    opened: bytes = OPENED
    talk: Talk | None = None
    """Its behaviour after it has read a request, instead of opening a tunnel."""
    targets: list[str] = field(default_factory=list)
    """The hosts and ports for which clients asked for tunnels."""
    heads: list[bytes] = field(default_factory=list)
    tunnels: int = 0
    """The number of open tunnels."""
    port: int = 0
    _talks: set[asyncio.Task[None]] = field(default_factory=set)

    _server: asyncio.Server | None = None

    def cut(self) -> None:
        """Cut all connections."""
        for talk in self._talks:
            talk.cancel()

    async def stop(self) -> None:
        """Accept no new connections, and cut the open ones."""
        if self._server is not None:
            self._server.close()
        self.cut()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)
        try:
            await self._talk(reader, writer)
        except (OSError, EOFError, ssl.SSLError, asyncio.CancelledError):
            pass  # one side has gone, or we are closed: either way this connection is over
        finally:
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        method, target, _ = head.split(b" ", 2)
        assert method == b"CONNECT"
        self.targets.append(target.decode())
        if self.talk is not None:
            await self.talk(reader, writer)
            return
        shown = b"Proxy-Authorization: Basic " + b64encode(self.user.encode()) + b"\r\n"
        if self.user and shown not in head:
            writer.write(WANTS_BASIC)
            await writer.drain()
            return
        host, _, port = target.decode().rpartition(":")
        to_reader, to_writer = await asyncio.open_connection(host.strip("[]"), int(port))
        self.tunnels += 1
        try:
            writer.write(self.opened)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(pump(reader, to_writer))
                tasks.create_task(pump(to_reader, writer))
        except* (OSError, EOFError):
            pass  # one side has gone
        finally:
            self.tunnels -= 1
            to_writer.transport.abort()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what one side sends until it ends; raises EOFError then."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise EOFError


@asynccontextmanager
async def connect_proxy(
    proxy: ConnectProxy | None = None, tls: ssl.SSLContext | None = None, host: str = HOST, port: int = 0
) -> AsyncIterator[ConnectProxy]:
    """Serve a proxy on loopback, over TLS if it has a context."""
    proxy = proxy or ConnectProxy()
    server = await asyncio.start_server(proxy.serve, host, port, ssl=tls)
    proxy.port = int(server.sockets[0].getsockname()[1])
    proxy._server = server
    try:
        yield proxy
    finally:
        await proxy.stop()


def says(*parts: bytes, then_hold: bool = False) -> Talk:
    """Return a behaviour: answer with these bytes, part by part, and close or hold the connection."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        if then_hold:
            await asyncio.Event().wait()

    return talk


async def never_ends(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with headers that never end."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-Padding: " + b"x" * 4000 + b"\r\n")
        await writer.drain()
