"""Fronts of a PostgreSQL server that listens on a Unix socket only.

One serves TCP: with TLS as PostgreSQL has it, or without. The other keeps connections open that the server has closed.
"""

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

SSL_REQUEST = bytes.fromhex("0000000804d2162f")  # length 8, code 80877103 [PostgreSQL: SSLRequest]


class _Talks(ABC):
    """The connections that are served now."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._talks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        try:
            await self._talk(reader, writer)
        except (OSError, EOFError, ssl.SSLError, asyncio.CancelledError):
            pass  # the client has gone, or we are closed
        finally:
            self._talks.discard(task)
            writer.transport.abort()

    async def close(self) -> None:
        talks = list(self._talks)
        for talk in talks:
            talk.cancel()
        await asyncio.gather(*talks, return_exceptions=True)

    @abstractmethod
    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""


class Front(_Talks):
    """What clients sent."""

    def __init__(self, socket: Path, tls: ssl.SSLContext | None) -> None:
        super().__init__(socket)
        self._tls = tls
        self.port = 0
        self.sessions = 0
        """The number of connections whose TLS handshake succeeded."""
        self.plain = b""
        """The bytes that came without TLS, except for the question for TLS."""

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readexactly(len(SSL_REQUEST))
        if asked != SSL_REQUEST or self._tls is None:
            self.plain += b"" if asked == SSL_REQUEST else asked
            writer.write(b"N")
            self.plain += await reader.read()
            return
        writer.write(b"S")
        await writer.drain()
        await writer.start_tls(self._tls)
        self.sessions += 1
        from_server, to_server = await asyncio.open_unix_connection(self._socket)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pump(reader, to_server))
                tasks.create_task(_pump(from_server, writer))
        except* (OSError, EOFError):
            pass  # one side has gone
        finally:
            to_server.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise EOFError


@asynccontextmanager
async def postgres_front(socket: Path, tls: ssl.SSLContext | None) -> AsyncIterator[Front]:
    """Serve a PostgreSQL server's socket on all addresses, over TLS, or refusing TLS as a server without it does."""
    front = Front(socket, tls)
    server = await asyncio.start_server(front.serve, "0.0.0.0", 0)
    front.port = int(server.sockets[0].getsockname()[1])
    try:
        yield front
    finally:
        server.close()
        await front.close()


class LingeringFront(_Talks):
    """Keeps connections open that the server has closed: a client knows of it only what the server said last."""

    def __init__(self, socket: Path, folder: Path) -> None:
        super().__init__(socket)
        self._folder = folder
        self._closed = asyncio.Event()

    def url(self, url: str) -> str:
        """Return the URL of a database behind this front for one of the server itself."""
        host, _, _ = url.partition("?")
        return f"{host}?host={self._folder}"

    async def closed(self) -> None:
        """Return when the server has closed a connection, and the client has read what it said last."""
        await self._closed.wait()
        await asyncio.sleep(0.1)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(self._socket)
        sending = asyncio.ensure_future(_pump(reader, to_server))
        try:
            with suppress(OSError, EOFError):
                await _pump(from_server, writer)
            self._closed.set()
            await sending
        finally:
            sending.cancel()
            to_server.transport.abort()


@asynccontextmanager
async def lingering_front(socket: Path, folder: Path) -> AsyncIterator[LingeringFront]:
    """Serve a PostgreSQL server's socket in a folder; connections stay open that the server has closed."""
    front = LingeringFront(socket, folder)
    server = await asyncio.start_unix_server(front.serve, folder / socket.name)
    try:
        yield front
    finally:
        server.close()
        await front.close()
