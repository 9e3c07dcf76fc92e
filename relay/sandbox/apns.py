"""Own the APNs simulator: HTTP/2 over TLS as Apple speaks it, with a memory of what came and scripts of failures."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

from relay.domain.clock import Clock
from relay.process.clock import now
from relay.sandbox.apns_connection import Connection
from relay.sandbox.apns_rules import OK, Authority, Request, Verdict, check_address, check_headers, check_payload
from relay.sandbox.scripts import Answer, ApnsFailure, Inbox, Mixture, Received, Script

GOODBYE: Final = 1.0  # seconds that connections may take to end


class ApnsSimulator:
    """Judge each request as Apple would, or as scripted."""

    def __init__(self, authority: Authority, tls: ssl.SSLContext, clock: Clock) -> None:
        self.port = 0
        self.connections: set[Connection] = set()
        """Those that are open."""
        self.accepted = 0
        """How many connections there ever were."""
        self.pings = 0
        """How many times a client asked whether its connection lives."""
        self.deaf = False
        """Whether new connections get no word after TLS."""
        self._tls = tls
        self._ciphers = ":".join(cipher["name"] for cipher in tls.get_ciphers())
        self._authority = authority
        self._clock = clock
        self._inbox = Inbox()
        self._script: Script[ApnsFailure] = Script()
        self._gone: dict[str, datetime] = {}
        self._known: dict[str, str] = {}

    @property
    def received(self) -> list[Received]:
        """Give all requests so far, oldest first."""
        return self._inbox.received

    async def wait(self, count: int, timeout_s: float = 10.0) -> list[Received]:
        """Wait until so many requests came, and return all; raises TimeoutError."""
        return await self._inbox.wait(count, timeout_s)

    def gone(self, token: str, since: datetime) -> None:
        """Answer 410 Unregistered for a device token from now on."""
        self._gone[token.lower()] = since

    def know(self, token: str, topic: str) -> None:
        """Tie a device token to one topic; from the first such call on, other tokens are BadDeviceToken."""
        self._known[token.lower()] = topic

    def fail(self, failure: ApnsFailure, times: int = 1) -> None:
        """Let a failure happen to so many of the next requests; 0: to all until `heal`."""
        self._script.add(failure, times)

    def mix(self, mixture: Mixture[ApnsFailure]) -> None:
        """Let requests fail at random until `heal`."""
        self._script.mix(mixture)

    def heal(self) -> None:
        """Forget all scripts; tokens stay gone."""
        self._script.clear()
        self.deaf = False
        self._tls.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
        self._tls.set_ciphers(self._ciphers)

    def deafen(self) -> None:
        """Take new connections until `heal`, and answer nothing on them."""
        self.deaf = True

    def fail_handshakes(self) -> None:
        """Let TLS fail on all new connections until `heal`: no cipher is shared with anybody, so they end at once."""
        self._tls.maximum_version = ssl.TLSVersion.TLSv1_2
        self._tls.set_ciphers("PSK")

    def leave_idle(self) -> None:
        """Say goodbye on all connections, as Apple does to those that are not used."""
        for connection in list(self.connections):
            connection.leave()

    def drop(self) -> None:
        """Cut all connections now."""
        for connection in list(self.connections):
            connection.cut()

    def scripted(self) -> ApnsFailure | None:
        """Take the failure of the next request."""
        return self._script.next()

    def judge(self, request: Request, failure: ApnsFailure | None) -> tuple[Verdict, bool]:
        """Return the answer, and whether the sender has proved who it is."""
        if isinstance(failure, Answer):
            return Verdict(failure.status, failure.reason, failure.timestamp), False
        refusal = self._authority.authenticate(request, self._clock())
        if refusal is not None:
            return refusal, False
        return self._check(request), True

    def note(self, request: Request, status: int) -> None:
        """Remember a request; status 0: it gets no answer."""
        headers = {":method": request.method, ":path": request.path, **request.headers}
        self._inbox.add(Received(time.perf_counter_ns(), headers, request.body, request.device_token, status))

    def _check(self, request: Request) -> Verdict:
        topic = self._authority.topic(request)
        if isinstance(topic, Verdict):
            return topic
        checks = check_address(request) or check_headers(request.headers) or check_payload(request.body)
        return checks or self._device(request.device_token.lower(), topic) or OK

    def _device(self, token: str, topic: str) -> Verdict | None:
        since = self._gone.get(token)
        if since is not None:
            return Verdict(410, "Unregistered", int(since.timestamp() * 1000))
        if self._known and token not in self._known:
            return Verdict(400, "BadDeviceToken")
        if self._known.get(token, topic) != topic:
            return Verdict(400, "DeviceTokenNotForTopic")
        return None


@asynccontextmanager
async def open_apns_simulator(
    *,
    tls: ssl.SSLContext,
    keys: Mapping[str, tuple[str, str]],
    topics: Iterable[str],
    host: str = "127.0.0.1",
    port: int = 0,
    clock: Clock = now,
) -> AsyncIterator[ApnsSimulator]:
    """Serve until the block ends; `keys` is key id -> (public key as PEM text, team id), port 0 takes a free one."""
    simulator = ApnsSimulator(Authority(dict(keys), frozenset(topics)), tls, clock)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(simulator), host, port, ssl=tls)
    simulator.port = int(server.sockets[0].getsockname()[1])
    try:
        yield simulator
    finally:
        server.close()
        ended = [connection.lost for connection in simulator.connections]
        simulator.drop()
        if ended:
            await asyncio.wait(ended, timeout=GOODBYE)
