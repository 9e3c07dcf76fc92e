"""Own how aioapns is kept from doing harm: one client with one connection, given up whole when it is in doubt.

aioapns 4.0 is used for its client, its requests and its provider tokens; its protocol and pool are subclassed here for
what they lack. Everything else knows only `ApnsClient`.
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, NoReturn

from aioapns import APNs, NotificationRequest
from aioapns.common import NotificationResult
from aioapns.connection import (
    APNsBaseClientProtocol,
    APNsBaseConnectionPool,
    APNsCertConnectionPool,
    APNsKeyConnectionPool,
    APNsTLSClientProtocol,
    AuthorizationHeaderProvider,
    ChannelPool,
    JWTAuthorizationHeaderProvider,
)
from h2.settings import ChangedSetting, SettingCodes

from relay.push.apns_answers import read_body

KEEP_IDLE: Final = 240
"""Seconds an unused connection is kept: Apple asks to keep it, and firewalls forget it silently after five minutes."""

UNANNOUNCED: Final = 100
"""Streams at once on a server that announces no limit."""

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
    ) -> None:
        """Take where to connect and how; needs a running loop. `topic` is only aioapns' default, never used."""
        self._pool = _pool(authentication, topic, tls)
        self._pool.protocol_class = type("ApnsConnection", (_Connection,), _attributes(endpoint, tokens))
        self._apns = _apns(authentication, topic, tls)
        self._apns.pool = self._pool
        self._calls: set[asyncio.Task[NotificationResult]] = set()
        self._waiting = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def send(self, request: NotificationRequest) -> NotificationResult:
        """Return the answer; raises what aioapns, h2 and the network raise."""
        call = asyncio.get_running_loop().create_task(self._apns.send_notification(request), name="APNs call")
        self._calls.add(call)
        call.add_done_callback(self._ended)
        self._waiting += 1
        self._idle.clear()
        try:
            return await asyncio.shield(call)
        except Exception as error:
            if self._pool.connect_error is not None:
                raise self._pool.connect_error from error
            raise
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
        connections = list(self._pool.connections)
        self._pool.close()
        for connection in connections:
            if isinstance(connection, _Connection):
                await connection.lost.wait()
        if self._calls:
            # What is left after that has no connection: it still connects, or waits for one that will never come.
            _, late = await asyncio.wait(self._calls, timeout=LAST_WORDS)
            for call in late:
                call.cancel()
            if late:
                await asyncio.wait(late)

    def _ended(self, call: asyncio.Task[NotificationResult]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # seen; who still waits gets it from `send`


class _Streams(ChannelPool):
    """Count free streams; unlike aioapns' own, right when the limit rises while streams are open, as Apple's does."""

    @property
    def bound(self) -> int:
        return self._bound_value

    @bound.setter
    def bound(self, bound: int) -> None:
        self._value += bound - self._bound_value
        self._bound_value = bound


class _Connection(APNsTLSClientProtocol):
    INACTIVITY_TIME = KEEP_IDLE
    TOKENS: ClassVar[AuthorizationHeaderProvider | None] = None

    def __init__(
        self,
        apns_topic: str,
        loop: asyncio.AbstractEventLoop | None = None,
        on_connection_lost: Callable[[APNsBaseClientProtocol], NoReturn] | None = None,
        auth_provider: AuthorizationHeaderProvider | None = None,
    ) -> None:
        super().__init__(apns_topic, loop, on_connection_lost, self.TOKENS or auth_provider)
        # One stream until the server has spoken: more than its limit would be reset, which aioapns does not notice.
        self.free_channels = _Streams(1)
        self.lost = asyncio.Event()
        self._greeted = False
        self._bodies: dict[int, bytes] = {}

    async def send_notification(self, request: NotificationRequest) -> NotificationResult:
        try:
            return await super().send_notification(request)
        finally:
            self.requests.pop(request.notification_id, None)

    def on_remote_settings_changed(self, changed_settings: dict[SettingCodes, ChangedSetting]) -> None:
        super().on_remote_settings_changed(changed_settings)
        if not self._greeted and SettingCodes.MAX_CONCURRENT_STREAMS not in changed_settings:
            self.free_channels.bound = UNANNOUNCED
        self._greeted = True

    def on_data_received(self, raw_data: bytes, stream_id: int) -> None:
        """Keep a part of a body and give its room in the window back, else 65,535 bytes of refusals stall all."""
        self.conn.acknowledge_received_data(len(raw_data), stream_id)
        self._bodies[stream_id] = self._bodies.get(stream_id, b"") + raw_data

    def on_stream_ended(self, stream_id: int) -> None:
        """Answer the request of a refused stream; a refusal may have no body."""
        reason, timestamp = read_body(self._bodies.pop(stream_id, b""))
        notification_id = self.request_streams.pop(stream_id, "")
        status = self.request_statuses.pop(notification_id, None)
        if status is not None:
            answer = self.requests.pop(notification_id, None)
            if answer is not None and not answer.done():
                answer.set_result(NotificationResult(notification_id, status, reason, timestamp))
        super().on_stream_ended(stream_id)

    def connection_lost(self, exc: Exception | None) -> None:
        self.requests = {id_: answer for id_, answer in self.requests.items() if not answer.done()}
        super().connection_lost(exc)
        self.lost.set()

    def close(self) -> None:
        """Cut the connection without the goodbyes of TLS, for which a silent server would be waited for."""
        if self.inactivity_timer:
            self.inactivity_timer.cancel()
        if self.transport is not None:
            self.transport.abort()


class _Pool(APNsBaseConnectionPool):
    """Remember why the last connect failed, which aioapns only logs."""

    connect_error: OSError | None = None

    async def create_connection(self) -> APNsBaseClientProtocol:
        try:
            connection = await super().create_connection()
        except OSError as error:
            self.connect_error = error
            raise
        self.connect_error = None
        return connection

    def discard_connection(self, connection: APNsBaseClientProtocol) -> None:
        if connection in self.connections:
            super().discard_connection(connection)


class _KeyPool(_Pool, APNsKeyConnectionPool):
    pass


class _CertificatePool(_Pool, APNsCertConnectionPool):
    pass


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
