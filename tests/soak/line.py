"""The line between the relay and its database: a socket of its own that can be cut, or fall silent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


class Line:
    """A line that carries bytes both ways between the clients of one socket and the server behind another."""

    def __init__(self, server: Path) -> None:
        self._server = server
        self._whole = asyncio.Event()
        self._whole.set()
        self._cut = False
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Drop all connections, and every new one."""
        self._cut = True
        self._drop()

    def silence(self) -> None:
        """Keep all connections, accept new ones, and carry nothing, as a firewall does that forgot them."""
        self._whole.clear()

    def mend(self) -> None:
        """Carry new connections again; those that fell silent are lost."""
        if not self._whole.is_set():
            self._drop()
        self._cut = False
        self._whole.set()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until it closes."""
        self._writers.add(writer)
        try:
            await self._whole.wait()
            if self._cut or writer.is_closing():
                return
            behind_reader, behind_writer = await asyncio.open_unix_connection(str(self._server))
            self._writers.add(behind_writer)
            try:
                async with asyncio.TaskGroup() as ways:
                    ways.create_task(self._carry(reader, behind_writer))
                    ways.create_task(self._carry(behind_reader, writer))
            finally:
                self._end(behind_writer)
        except (OSError, ExceptionGroup):
            pass  # one side has closed: the other is closed below
        finally:
            self._end(writer)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._whole.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError

    def _drop(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def _end(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.transport.abort()


@asynccontextmanager
async def open_line(folder: Path, server: Path) -> AsyncIterator[Line]:
    """Listen in a folder under the name that PostgreSQL's clients expect."""
    line = Line(server)
    listener = await asyncio.start_unix_server(line.take, str(folder / server.name))
    try:
        yield line
    finally:
        listener.close()
        line.cut()
