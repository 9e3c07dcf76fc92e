"""A process in which every lookup of a name without a dot hangs: `HOSTALIASES=PIPE python -m tests.fakes.silent_names`.

glibc reads the file HOSTALIASES before it asks a name server for such a name, and opening a pipe waits for a writer
[hostname(7)]. It writes what could be connected to meanwhile.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Awaitable
from typing import Final

import uvloop

from eas_watcher.transport.connecting import Connector
from eas_watcher.transport.sources import Sources
from eas_watcher.transport.target import Endpoint
from relay.network.dialling import Dialler
from relay.network.route import DIRECT

SILENT: Final = 8  # names; uvloop's own lookups have two threads
LIMIT: Final = 10.0  # seconds for each connection, which takes a millisecond


async def _dial(dialler: Dialler, host: str, port: int) -> None:
    protocol = await dialler.connect(_Kept, host, port, None)
    protocol.transport.abort()


class _Kept(asyncio.Protocol):
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's is no subclass


async def _connect(connector: Connector, host: str, port: int) -> None:
    (await connector.connect(Endpoint(host, port))).close()


async def _report(what: str, connection: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(LIMIT):
            await connection
    except OSError as error:
        sys.stdout.write(f"{what} fails: {type(error).__name__}\n")
    else:
        sys.stdout.write(f"{what} is connected\n")


async def main() -> None:
    """Let names hang in every way that the relay knows, and in the loop's own; then connect."""
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connector, dialler = Connector(Sources([])), Dialler(DIRECT)
    hung: list[asyncio.Future[object]] = []
    for n in range(SILENT):
        hung.append(asyncio.ensure_future(connector.connect(Endpoint(f"silent{n}", port))))
        hung.append(asyncio.ensure_future(dialler.connect(_Kept, f"silent{n}", port, None)))
        hung.append(asyncio.ensure_future(loop.getaddrinfo(f"silent{n}", port, type=socket.SOCK_STREAM)))
    done, _ = await asyncio.wait(hung, timeout=0.2)
    if done:
        sys.stdout.write("names do not hang here\n")
    else:
        for host in ("127.0.0.1", "localhost"):
            await _report(f"mail server {host}", _connect(connector, host, port))
            await _report(f"provider {host}", _dial(dialler, host, port))
    sys.stdout.flush()
    os._exit(0)  # without waiting for the threads that hang


if __name__ == "__main__":
    uvloop.run(main())
