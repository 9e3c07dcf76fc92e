"""Own how aioapns is kept from doing harm: one client with one connection, given up whole when it is in doubt.

aioapns 4.0 is used for its client, its requests and its provider tokens; its pool is subclassed here, its protocol in
`apns_protocol`, for what they lack. Everything else knows only `ApnsClient`.
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from aioapns import APNs, NotificationRequest
from aioapns.common import NotificationResult
from aioapns.connection import (
    APNsBaseClientProtocol,
    APNsBaseConnectionPool,
    APNsCertConnectionPool,
    APNsKeyConnectionPool,
    AuthorizationHeaderProvider,
    JWTAuthorizationHeaderProvider,
)
from aioapns.exceptions import ConnectionClosed

from relay.network.dialling import Dialler
from relay.push.apns_protocol import ApnsConnection, NotSent

LAST_WORDS: Final = 1.0
"""Seconds that calls of a closed client may take to notice; they need a few turns of the loop."""

RENEWAL_GAP: Final = 1200.0
"""Seconds; Apple refuses provider tokens made more often [Apple: Establishing a token-based connection to APNs]."""


@dataclass(frozen=True, slots=True)
class ApnsToken:
    """Authenticate with a provider token signed by a .p8 key."""

    key: str = field(repr=False)
    """PEM text."""
    key_id: str
    team_id: str


@dataclass(frozen=True, slots=True)
class ApnsCertificate:
    """Authenticate with a client certificate; the file holds the certificate and its key as PEM."""

    file: Path


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Name where one environment listens."""

    host: str
    port: int


class ProviderTokens(AuthorizationHeaderProvider):
    """Share one provider token among all connections; it is made anew every 30 minutes."""

    def __init__(self, token: ApnsToken) -> None:
        """Sign a first token; raises ValueError when the key is none."""
        self._make = partial(JWTAuthorizationHeaderProvider, token.key, token.key_id, token.team_id)
        self._present: AuthorizationHeaderProvider = self._make()
        self._renewed_at: float | None = None
        try:
            self.get_header()
        except (ValueError, TypeError) as error:
            raise ValueError("apns.key_file holds no ECDSA P-256 key") from error

    def get_header(self) -> str:
        """Give the value of the authorization header."""
        return self._present.get_header()

    def renew(self, now: float) -> bool:
        """Drop the present token unless that was done lately; `now` is `loop.time()`."""
        if self._renewed_at is not None and now - self._renewed_at < RENEWAL_GAP:
            return False
        self._renewed_at = now
        self._present = self._make()
        return True


class ApnsClient:
    """Be one aioapns client to one endpoint.

    A call that was begun is never cancelled while the connection lives: aioapns would tear down the connection of all
    others. Whoever stops waiting retires the client, and the connection ends when nobody waits on it any more.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        authentication: ApnsToken | ApnsCertificate,
        tokens: ProviderTokens | None,
        topic: str,
        tls: ssl.SSLContext,
        dialler: Dialler,
    ) -> None:
        """Take where to connect and how; needs a running loop. `topic` is only aioapns' default, never used."""
        self._pool = _pool(authentication, topic, tls)
        self._pool.dialler = dialler
        self._pool.protocol_class = type("Connection", (ApnsConnection,), _attributes(endpoint, tokens))
        self._apns = _apns(authentication, topic, tls)
        self._apns.pool = self._pool
        self._calls: set[asyncio.Task[NotificationResult]] = set()
        self._waiting = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def send(self, request: NotificationRequest) -> NotificationResult:
        """Return the answer; raises NotSent, ConnectionClosed, H2Error and OSError."""
        call = asyncio.get_running_loop().create_task(self._apns.send_notification(request), name="APNs call")
        self._calls.add(call)
        call.add_done_callback(self._ended)
        self._waiting += 1
        self._idle.clear()
        try:
            return await asyncio.shield(call)
        finally:
            self._waiting -= 1
            if self._waiting == 0:
                self._idle.set()

    async def drain(self) -> None:
        """Close when nobody waits for an answer any more; give no further request to this client."""
        await self._idle.wait()
        await self.close()

    async def close(self) -> None:
        """Cut the connection; whoever waits for an answer is told so at once."""
        await self._pool.cut()
        if self._calls:
            _, late = await asyncio.wait(self._calls, timeout=LAST_WORDS)
            for call in late:
                call.cancel()
            if late:
                await asyncio.wait(late)

    def _ended(self, call: asyncio.Task[NotificationResult]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # seen; who still waits gets it from `send`


class _Pool(APNsBaseConnectionPool):
    """Open one connection when it is wanted, and another when the server has said goodbye to that one.

    All who wait while it is opened share its fate; aioapns would let each of them try in turn.
    """

    dialler: Dialler
    _opening: "asyncio.Task[ApnsConnection] | None" = None
    _current: ApnsConnection | None = None

    async def send_notification(self, request: NotificationRequest) -> NotificationResult:
        try:
            return await (await self.acquire()).send_notification(request)
        except NotSent:
            # Nothing was done with it, so it cannot reach the phone twice [RFC 9113 8.7].
            return await (await self.acquire()).send_notification(request)

    async def acquire(self) -> ApnsConnection:
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open(), name="APNs connect")
            self._opening.add_done_callback(_see)
        opening = self._opening
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError as error:
            if opening.cancelled():
                raise ConnectionClosed("closed while connecting") from error
            raise

    async def cut(self) -> None:
        """Close all connections, those that are only being opened included."""
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
            await asyncio.wait({self._opening})
        for connection in list(self.connections):
            connection.close()
            if isinstance(connection, ApnsConnection):
                await connection.lost.wait()

    def discard_connection(self, connection: APNsBaseClientProtocol) -> None:
        self._leave(connection)
        if connection in self.connections:
            self.connections.remove(connection)

    async def _create_connection(
        self, apns_protocol_factory: Callable[[], APNsBaseClientProtocol]
    ) -> APNsBaseClientProtocol:
        """Connect as we do, where aioapns would know neither the proxy nor the source address."""
        place = self.protocol_class
        return await self.dialler.connect(apns_protocol_factory, place.APNS_SERVER, place.APNS_PORT, self.ssl_context)

    async def _open(self) -> ApnsConnection:
        connection = await self.create_connection()
        if not isinstance(connection, ApnsConnection) or connection.lost.is_set():
            raise ConnectionClosed("lost while connecting")
        connection.on_leaving = self._leave
        self.connections.append(connection)
        self._current = connection
        return connection

    def _leave(self, connection: APNsBaseClientProtocol) -> None:
        if self._current is connection:
            self._current = self._opening = None


class _KeyPool(_Pool, APNsKeyConnectionPool):
    pass


class _CertificatePool(_Pool, APNsCertConnectionPool):
    pass


def _see(opening: "asyncio.Task[ApnsConnection]") -> None:
    """Mark a failure as seen; those who wait get it, and there may be none left."""
    if not opening.cancelled():
        opening.exception()


def _pool(authentication: ApnsToken | ApnsCertificate, topic: str, tls: ssl.SSLContext) -> _Pool:
    """Make a pool of one connection that tries once: whoever sends decides about repeating."""
    if isinstance(authentication, ApnsCertificate):
        return _CertificatePool(str(authentication.file), topic, 1, 1, ssl_context=tls)
    return _KeyPool(authentication.key, authentication.key_id, authentication.team_id, topic, 1, 1, ssl_context=tls)


def _apns(authentication: ApnsToken | ApnsCertificate, topic: str, tls: ssl.SSLContext) -> APNs:
    options: dict[str, Any] = {"topic": topic, "ssl_context": tls, "err_func": _silent}
    if isinstance(authentication, ApnsCertificate):
        return APNs(client_cert=str(authentication.file), **options)
    return APNs(key=authentication.key, key_id=authentication.key_id, team_id=authentication.team_id, **options)


def _attributes(endpoint: Endpoint, tokens: ProviderTokens | None) -> dict[str, Any]:
    return {"APNS_SERVER": endpoint.host, "APNS_PORT": endpoint.port, "TOKENS": tokens}


async def _silent(request: NotificationRequest, result: NotificationResult) -> None:
    """Hear of a refusal, which aioapns would log otherwise; the caller gets it as the answer."""
