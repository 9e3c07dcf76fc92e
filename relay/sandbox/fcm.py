"""Own the FCM simulator: token endpoint and v1 API over TLS, with a memory of what came and scripts of failures."""

import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from relay.domain.clock import Clock
from relay.process.clock import now
from relay.sandbox.answering import abort, answer, headers_of, html, suffer
from relay.sandbox.certificates import make_rsa_key, make_service_account
from relay.sandbox.fcm_rules import (
    LIFE,
    Verdict,
    check_assertion,
    check_message,
    fcm_error,
    unauthenticated,
    unknown_project,
)
from relay.sandbox.scripts import (
    Answer,
    Close,
    FcmFailure,
    GoAway,
    Inbox,
    Mixture,
    Page,
    Received,
    Reset,
    Script,
    Stall,
)
from relay.sandbox.serving import serve_simulator

PROJECT: Final = "relay-sandbox"


@dataclass(slots=True)
class Tokens:
    """Count access tokens, and keep those that are good."""

    made: int = 0
    good: dict[str, float] = field(default_factory=dict)
    """Token -> when it ends, seconds since 1970."""
    script: Script[FcmFailure] = field(default_factory=Script)


class FcmSimulator:
    """Judge each request as Google would, or as scripted."""

    def __init__(
        self, tls: ssl.SSLContext, host: str, clock: Clock, project: str, make_key: Callable[[], RSAPrivateKey]
    ) -> None:
        self.port = 0
        self.tokens = Tokens()
        self._host = host
        self._clock = clock
        self._project = project
        self._make_key = make_key
        self._inbox = Inbox()
        self._script: Script[FcmFailure] = Script()
        self._tls = tls
        self._ciphers = ":".join(cipher["name"] for cipher in tls.get_ciphers())
        self._connections: Callable[[], Iterable[RequestHandler]] = tuple
        self._peers: set[object] = set()
        self._refused: dict[str, str] = {}
        self._account: dict[str, str] = {}
        self._public = ""

    @property
    def url(self) -> str:
        """Give what takes the place of https://fcm.googleapis.com."""
        return f"https://{self._host}:{self.port}"

    @property
    def token_uri(self) -> str:
        """Give where access tokens are made."""
        return f"{self.url}/token"

    @property
    def accepted(self) -> int:
        """Count the connections on which something was sent or asked for."""
        return len(self._peers)

    @property
    def received(self) -> list[Received]:
        """Give all sends so far, oldest first."""
        return self._inbox.received

    async def wait(self, count: int, timeout_s: float = 10.0) -> list[Received]:
        """Wait until so many sends came, and return all; raises TimeoutError."""
        return await self._inbox.wait(count, timeout_s)

    def service_account(self) -> dict[str, str]:
        """Give the JSON document of the one service account that is known here."""
        return dict(self._account)

    def gone(self, token: str) -> None:
        """Answer UNREGISTERED for a device token from now on."""
        self._refused[token] = "UNREGISTERED"

    def mismatch(self, token: str) -> None:
        """Answer SENDER_ID_MISMATCH for a device token from now on."""
        self._refused[token] = "SENDER_ID_MISMATCH"

    def fail(self, failure: FcmFailure, times: int = 1) -> None:
        """Let a failure happen to so many of the next sends; 0: to all until `heal`. A reason is FCM's own code."""
        self._script.add(failure, times)

    def mix(self, mixture: Mixture[FcmFailure]) -> None:
        """Let sends fail at random until `heal`."""
        self._script.mix(mixture)

    def fail_handshakes(self) -> None:
        """Let TLS fail on all new connections until `heal`: no cipher is shared with anybody, so they end at once."""
        self._tls.maximum_version = ssl.TLSVersion.TLSv1_2
        self._tls.set_ciphers("PSK")

    def leave_idle(self) -> None:
        """End all connections in good order, as Google does after minutes without traffic."""
        for connection in self._connections():
            connection.force_close()

    def drop(self) -> None:
        """Cut all connections now."""
        for connection in self._connections():
            abort(connection.transport)

    def rotate(self) -> dict[str, str]:
        """Give the service account another key, delete the old one with all its access tokens; return its document."""
        self._account, self._public = make_service_account(self._project, self.token_uri, self._make_key())
        self.tokens.good.clear()
        return self.service_account()

    def fail_tokens(self, failure: FcmFailure, times: int = 1) -> None:
        """Let a failure happen to so many of the next requests for access tokens; a reason is an OAuth error code."""
        self.tokens.script.add(failure, times)

    def forget_tokens(self) -> None:
        """Take no access token any more that was made until now."""
        self.tokens.good.clear()

    def heal(self) -> None:
        """Forget all scripts; tokens stay gone."""
        self._script.clear()
        self.tokens.script.clear()
        self._tls.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
        self._tls.set_ciphers(self._ciphers)

    def listen(self, port: int, connections: Callable[[], Iterable[RequestHandler]]) -> None:
        """Take the port and what tells the open connections; make the service account that names the port."""
        self.port = port
        self._connections = connections
        self.rotate()

    def app(self) -> web.Application:
        """Make the web application."""
        app = web.Application()
        app.router.add_post("/token", self._token)
        app.router.add_post("/v1/projects/{project}/messages:send", self._send)
        return app

    async def _token(self, request: web.Request) -> web.StreamResponse:
        self._peers.add(request.transport and request.transport.get_extra_info("peername"))
        failure = self.tokens.script.next()
        await suffer(request, failure)
        if isinstance(failure, Answer):
            return web.json_response({"error": failure.reason}, status=failure.status, headers=headers_of(failure))
        if isinstance(failure, Page):
            return html(failure)
        form = {name: str(value) for name, value in (await request.post()).items()}
        moment = self._clock()
        wrong = check_assertion(form, self._public, self._account["client_email"], self.token_uri, moment)
        if wrong is not None:
            return web.json_response({"error": wrong, "error_description": "refused"}, status=400)
        self.tokens.made += 1
        token = secrets.token_urlsafe(32)
        self.tokens.good[token] = moment.timestamp() + LIFE
        document = {"access_token": token, "expires_in": LIFE - 1, "token_type": "Bearer"}
        return await answer(request, Verdict(200, document), failure, {})

    async def _send(self, request: web.Request) -> web.StreamResponse:
        self._peers.add(request.transport and request.transport.get_extra_info("peername"))
        body = await request.read()
        device_token, refusal = check_message(body)
        failure = self._script.next()
        if isinstance(failure, Stall | Close | Reset | GoAway):
            self._note(request, body, device_token, 0)
        await suffer(request, failure)
        if isinstance(failure, Page):
            self._note(request, body, device_token, failure.status)
            return html(failure)
        if isinstance(failure, Answer):
            verdict = fcm_error(failure.reason, failure.status, failure.field)
        else:
            verdict = self._judge(request, device_token, refusal)
        self._note(request, body, device_token, verdict.status)
        return await answer(request, verdict, failure, headers_of(failure) if isinstance(failure, Answer) else {})

    def _judge(self, request: web.Request, device_token: str, refusal: Verdict | None) -> Verdict:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or self.tokens.good.get(token, 0.0) <= self._clock().timestamp():
            return unauthenticated()
        if request.match_info["project"] != self._project:
            return unknown_project()
        if refusal is not None:
            return refusal
        if device_token in self._refused:
            return fcm_error(self._refused[device_token])
        return Verdict(200, {"name": f"projects/{self._project}/messages/0:{secrets.token_hex(16)}"})

    def _note(self, request: web.Request, body: bytes, device_token: str, status: int) -> None:
        headers: Mapping[str, str] = {name.lower(): value for name, value in request.headers.items()}
        self._inbox.add(Received(time.perf_counter_ns(), headers, body, device_token, status))


@asynccontextmanager
async def open_fcm_simulator(
    *,
    tls: ssl.SSLContext,
    host: str = "127.0.0.1",
    port: int = 0,
    clock: Clock = now,
    project: str = PROJECT,
    make_key: Callable[[], RSAPrivateKey] = make_rsa_key,
) -> AsyncIterator[FcmSimulator]:
    """Serve until the block ends; port 0 takes a free one. `make_key` returns another key at each call."""
    simulator = FcmSimulator(tls, host, clock, project, make_key)
    async with serve_simulator(simulator, tls, host, port):
        yield simulator
