"""The APNs simulator: HTTP/2 over TLS."""

import asyncio
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from relay.domain.clock import Clock
from relay.domain.devices import NO_IPHONE
from relay.domain.model import Environment
from relay.process.clock import now
from relay.sandbox.apns_connection import Connection
from relay.sandbox.apns_rules import OK, ApnsResponse, Authority, Request, check_address, check_headers, check_payload
from relay.sandbox.push_simulator import HandshakeFaults, PushSimulator
from relay.sandbox.scripts import Answer, ApnsFailure, Received

CLOSE_TIMEOUT: Final = 1.0  # seconds that connections may take to close


@dataclass(slots=True)
class ApnsDevices:
    """What APNs knows of device tokens; its two environments share it. Tokens are in lower case."""

    environments: dict[str, Environment] = field(default_factory=dict)
    """Device token -> the environment that issued it; a token that nobody issued is good in both."""
    gone: dict[str, datetime] = field(default_factory=dict)
    """Device token -> since when it is Unregistered."""


class ApnsSimulator(PushSimulator[ApnsFailure]):
    """Answers each request as Apple does, or as scripted."""

    def __init__(
        self, authority: Authority, tls: ssl.SSLContext, clock: Clock, environment: Environment, devices: ApnsDevices
    ) -> None:
        super().__init__()
        self.environment = environment
        self.connections: set[Connection] = set()
        """The open connections."""
        self.accepted = 0
        """The number of connections, closed ones included."""
        self.pings = 0
        """The number of HTTP/2 PINGs received."""
        self.deaf = False
        """Whether the server sends nothing on new connections after the TLS handshake."""
        self._handshakes = HandshakeFaults(tls)
        self._authority = authority
        self._clock = clock
        self._devices = devices
        self._known: dict[str, str] = {}
        """Device token -> its only topic; empty: every token is valid for every topic."""

    def gone(self, token: str, since: datetime) -> None:
        """Answer 410 Unregistered for a device token from now on, in every environment."""
        self._devices.gone[token.lower()] = since

    def know(self, token: str, topic: str) -> None:
        """Tie a device token to one topic; after the first call, all other tokens are BadDeviceToken."""
        self._known[token.lower()] = topic

    def issue(self, token: str = "") -> str:
        """Return a device token of this environment, a new one or the given one; the other environment refuses it."""
        token = (token or secrets.token_hex(32)).lower()
        self._devices.environments[token] = self.environment
        return token

    def heal(self) -> None:
        """End all failures; device tokens that are gone stay gone."""
        super().heal()
        self.deaf = False
        self._handshakes.end()

    def deafen(self) -> None:
        """Accept new connections until `heal`, and send nothing on them."""
        self.deaf = True

    def fail_handshakes(self) -> None:
        """Let TLS fail on all new connections until `heal`."""
        self._handshakes.begin()

    def leave_idle(self) -> None:
        """Send a graceful GOAWAY on all connections, as Apple does on idle ones."""
        for connection in list(self.connections):
            connection.go_away()

    def drop(self) -> None:
        """Cut all connections now."""
        for connection in list(self.connections):
            connection.cut()

    def next_failure(self) -> ApnsFailure | None:
        """Return the scripted failure of the next request."""
        return self._script.next()

    def answer(self, request: Request, failure: ApnsFailure | None) -> tuple[ApnsResponse, bool]:
        """Return the answer, and whether the request is authenticated."""
        if isinstance(failure, Answer):
            return ApnsResponse(failure.status, failure.reason, failure.timestamp), False
        refusal = self._authority.authenticate(request, self._clock())
        if refusal is not None:
            return refusal, False
        return self._check(request), True

    def record(self, request: Request, status: int) -> None:
        """Record a request and the status of its answer; 0: no answer."""
        self._inbox.add(Received(time.perf_counter_ns(), request.headers, request.body, request.device_token, status))

    def _check(self, request: Request) -> ApnsResponse:
        topic = self._authority.topic(request)
        if isinstance(topic, ApnsResponse):
            return topic
        refusal = check_address(request) or check_headers(request.headers) or check_payload(request.body)
        return refusal or self.check_device(request.device_token.lower(), topic) or OK

    def check_device(self, token: str, topic: str) -> ApnsResponse | None:
        """Return the refusal of a device token, in lower case, for a topic; None: it is good.

        No device has NO_IPHONE: `relay doctor` asks for it.
        """
        if token == NO_IPHONE:
            return ApnsResponse(400, "BadDeviceToken")
        if self._devices.environments.get(token, self.environment) is not self.environment:
            return ApnsResponse(400, "BadDeviceToken")
        since = self._devices.gone.get(token)
        if since is not None:
            return ApnsResponse(410, "Unregistered", int(since.timestamp() * 1000))
        if self._known and token not in self._known:
            return ApnsResponse(400, "BadDeviceToken")
        if self._known.get(token, topic) != topic:
            return ApnsResponse(400, "DeviceTokenNotForTopic")
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
    environment: Environment = Environment.PRODUCTION,
    devices: ApnsDevices | None = None,
) -> AsyncIterator[ApnsSimulator]:
    """Serve until the block ends; `keys` is key id -> (public key as PEM text, team id), port 0 takes a free one.

    `devices` is shared with the simulator of the other environment.
    """
    authority = Authority(dict(keys), frozenset(topics))
    simulator = ApnsSimulator(authority, tls, clock, environment, devices or ApnsDevices())
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
            await asyncio.wait(ended, timeout=CLOSE_TIMEOUT)
