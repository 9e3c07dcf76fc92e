"""The listener of the simulated EAS server: ALPN decides whether a TLS connection speaks HTTP/2 or HTTP/1.1."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random, SystemRandom
from typing import Final, cast

from eas_watcher.names import ProtocolVersion
from eas_watcher.ports import Now
from relay.process import clock
from relay.sandbox.eas.answers import PATH, EasAnswers
from relay.sandbox.eas.connections import Connections
from relay.sandbox.eas.http1 import Http1Side
from relay.sandbox.eas.http2 import Http2Side
from relay.sandbox.eas.messages import HttpVersion
from relay.sandbox.eas.rules import EasRules
from relay.sandbox.eas.simulator import EasSimulator

SHUTDOWN_TIMEOUT: Final = 5.0  # seconds that requests in flight have when the server closes
ALPN: Final = (HttpVersion.HTTP_2.value, HttpVersion.HTTP_1_1.value)
"""For the TLS context of a server that speaks HTTP/2 too."""


@asynccontextmanager
async def open_eas_simulator(
    *,
    tls: ssl.SSLContext | None,
    host: str = "127.0.0.1",
    port: int = 0,
    versions: tuple[ProtocolVersion, ...] = tuple(ProtocolVersion),
    rules: EasRules | None = None,
    random: Random | None = None,
    now: Now | None = None,
    reached: str | None = None,
) -> AsyncIterator[EasSimulator]:
    """Serve a simulated EAS server until the block ends; port 0 takes a free one, None as `tls` means plain HTTP.

    A context with the protocols of ALPN serves HTTP/2 too. `rules` say more about its behaviour; with them, `versions`
    is ignored. `reached` is the host in its URL, if that is not `host`.
    """
    simulator = EasSimulator(rules or EasRules(versions), random or SystemRandom(), now or clock.now)
    answers = EasAnswers(simulator)
    first, second = Http1Side(answers), Http2Side(answers)
    simulator.connections = Connections(simulator.pings, first, second)

    def accept() -> asyncio.Protocol:
        return ByAlpn(first.accept, second.accept)

    listener = await asyncio.get_running_loop().create_server(accept, host, port, ssl=tls, backlog=4096)
    try:
        simulator.port = listener.sockets[0].getsockname()[1]
        scheme = "http" if tls is None else "https"
        simulator.url = f"{scheme}://{reached or host}:{simulator.port}{PATH}"
        yield simulator
    finally:
        listener.close()
        simulator.pings.close()
        answers.close()
        second.drop()
        await first.close(SHUTDOWN_TIMEOUT)


class ByAlpn(asyncio.Protocol):
    """A new connection, until its TLS handshake says what it speaks."""

    def __init__(self, first: Callable[[], asyncio.Protocol], second: Callable[[], asyncio.Protocol]) -> None:
        """Take what makes the protocols of HTTP/1.1 and of HTTP/2."""
        self._first = first
        self._second = second

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give the connection to its protocol."""
        tls = transport.get_extra_info("ssl_object")
        chosen = None if tls is None else tls.selected_alpn_protocol()
        protocol = self._second() if chosen == HttpVersion.HTTP_2 else self._first()
        cast("asyncio.Transport", transport).set_protocol(protocol)
        protocol.connection_made(transport)
