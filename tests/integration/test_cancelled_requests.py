"""A cancelled request ends for the server too, even for one that ignores the closing alerts of TLS."""

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from eas_watcher.commands.request import HttpRequest
from eas_watcher.transport.http import open_transport
from relay.sandbox.certificates import ThrowAwayCa

LIMIT = 10.0  # seconds; waiting for the server's closing alert takes 30


@dataclass
class Deaf:
    """A gateway that reads one request over TLS, sends nothing, and notices only the end of the connection itself."""

    ca: ThrowAwayCa
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    asked: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.listener.getsockname()[1]}/eas"

    def serve(self) -> None:
        accepted, _ = self.listener.accept()
        with (
            socket.socket(fileno=os.dup(accepted.fileno())) as beneath,
            self.ca.server_context().wrap_socket(accepted, server_side=True) as above,
        ):
            above.recv(4096)
            self.asked.set()
            beneath.settimeout(2 * LIMIT)
            with suppress(ConnectionResetError):
                while beneath.recv(4096):
                    pass
            self.ended.set()


@pytest.fixture
def deaf() -> Iterator[Deaf]:
    server = Deaf(ThrowAwayCa())
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield server
    thread.join()
    server.listener.close()


async def test_a_cancelled_request_does_not_linger_on_the_wire(deaf: Deaf) -> None:
    async with open_transport(deaf.ca.client_context()) as transport:
        request = HttpRequest("POST", deaf.url, {}, b"ping", 100.0)
        sending = asyncio.get_running_loop().create_task(transport.send(request))
        assert await asyncio.to_thread(deaf.asked.wait, LIMIT)

        sending.cancel()

        assert await asyncio.to_thread(deaf.ended.wait, LIMIT)
