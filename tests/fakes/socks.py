"""A SOCKS5 proxy, honest or hostile [RFC 1928, RFC 1929], that notes what it was asked for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

from tests.fakes.proxy import Talk, pump
from tests.fakes.tls import HOST

OPENED = bytes.fromhex("05000001000000000000")


@dataclass
class SocksProxy:
    """The behaviour of a proxy, and the requests that it got."""

    user: str = ""
    """As "user:password"; empty: it serves every client."""
    reply: int = 0
    """Its reply to every request, 0 to open tunnels."""
    talk: Talk | None = None
    """Its behaviour instead, from the first byte on."""
    targets: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    port: int = 0
    _talks: set[asyncio.Task[None]] = field(default_factory=set)

    def cut(self) -> None:
        """Cut all connections."""
        for talk in self._talks:
            talk.cancel()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)
        try:
            await (self._talk if self.talk is None else self.talk)(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # one side has gone, or we are closed: either way this connection is over
        finally:
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        version, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        assert version == 5
        wanted = 2 if self.user else 0
        writer.write(bytes([5, wanted if wanted in methods else 0xFF]))
        if self.user:
            assert wanted in methods
            _, length = await reader.readexactly(2)
            user = await reader.readexactly(length)
            password = await reader.readexactly((await reader.readexactly(1))[0])
            self.logins.append(f"{user.decode()}:{password.decode()}")
            good = self.logins[-1] == self.user
            writer.write(bytes([1, 0 if good else 1]))
            if not good:
                await writer.drain()
                return
        _, command, _, kind = await reader.readexactly(4)
        assert command == 1
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = str(ip_address(await reader.readexactly(4 if kind == 1 else 16)))
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.targets.append(f"{host}:{port}")
        if self.reply:
            writer.write(bytes([5, self.reply, 0, 1]) + bytes(6))
            await writer.drain()
            return
        to_reader, to_writer = await asyncio.open_connection(host, port)
        try:
            writer.write(OPENED)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(pump(reader, to_writer))
                tasks.create_task(pump(to_reader, writer))
        except* (OSError, EOFError):
            pass  # one side has gone
        finally:
            to_writer.transport.abort()


@asynccontextmanager
async def socks_proxy(proxy: SocksProxy | None = None) -> AsyncIterator[SocksProxy]:
    """Serve a proxy on loopback."""
    proxy = proxy or SocksProxy()
    server = await asyncio.start_server(proxy.serve, HOST, 0)
    proxy.port = int(server.sockets[0].getsockname()[1])
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
        await asyncio.gather(*proxy._talks, return_exceptions=True)
