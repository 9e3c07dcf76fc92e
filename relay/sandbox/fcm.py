"""The FCM simulator: the token endpoint of Google and the v1 API of FCM over TLS."""

import asyncio
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from relay.domain.clock import Clock
from relay.process.clock import now
from relay.sandbox.certificates import make_rsa_key, make_service_account
from relay.sandbox.fcm_rules import (
    LIFE,
    FcmResponse,
    check_assertion,
    check_message,
    fcm_error,
    only_validates,
    unauthenticated,
    unknown_project,
)
from relay.sandbox.push_simulator import (
    HandshakeFaults,
    HttpSimulator,
    abort,
    fail_connection,
    retry_after,
    serve_simulator,
)
from relay.sandbox.scripts import Answer, Close, Cut, FcmFailure, GoAway, Page, Reset, Script, Stall

PROJECT: Final = "relay-sandbox"
SENT: Final = 0.05  # seconds until half an answer has left for certain


@dataclass(slots=True)
class AccessTokens:
    """The access tokens of the token endpoint."""

    made: int = 0
    valid: dict[str, float] = field(default_factory=dict)
    """Token -> when it expires, seconds since 1970."""
    script: Script[FcmFailure] = field(default_factory=Script)
    """The failures of the token endpoint."""


class FcmSimulator(HttpSimulator[FcmFailure]):
    """Answers each request as Google does, or as scripted; the reason of a scripted answer is a code of FCM."""

    def __init__(
        self, tls: ssl.SSLContext, host: str, clock: Clock, project: str, make_key: Callable[[], RSAPrivateKey]
    ) -> None:
        super().__init__(host)
        self.tokens = AccessTokens()
        self._clock = clock
        self._project = project
        self._make_key = make_key
        self._handshakes = HandshakeFaults(tls)
        self._peers: set[object] = set()
        self._refused: dict[str, str] = {}
        """Device token -> the code that answers a send to it."""
        self._account: dict[str, str] = {}
        self._public_key = ""

    @property
    def token_uri(self) -> str:
        """The URL of the token endpoint."""
        return f"{self.url}/token"

    @property
    def accepted(self) -> int:
        """The number of connections that carried at least one request."""
        return len(self._peers)

    def service_account(self) -> dict[str, str]:
        """Return the JSON document of the one service account."""
        return dict(self._account)

    def gone(self, token: str) -> None:
        """Answer UNREGISTERED for a device token from now on."""
        self._refused[token] = "UNREGISTERED"

    def mismatch(self, token: str) -> None:
        """Answer SENDER_ID_MISMATCH for a device token from now on."""
        self._refused[token] = "SENDER_ID_MISMATCH"

    def fail_handshakes(self) -> None:
        """Let TLS fail on all new connections until `heal`."""
        self._handshakes.begin()

    def leave_idle(self) -> None:
        """Close all connections in order, as Google does after minutes without traffic."""
        for connection in self._connections():
            connection.force_close()

    def rotate(self) -> dict[str, str]:
        """Replace the key of the service account, which ends its access tokens; return the new JSON document."""
        self._account, self._public_key = make_service_account(self._project, self.token_uri, self._make_key())
        self.tokens.valid.clear()
        return self.service_account()

    def fail_tokens(self, failure: FcmFailure, times: int = 1) -> None:
        """Let the next requests for access tokens fail; the reason of a scripted answer is an OAuth error code."""
        self.tokens.script.add(failure, times)

    def forget_tokens(self) -> None:
        """Refuse all access tokens that exist now."""
        self.tokens.valid.clear()

    def heal(self) -> None:
        """End all failures; device tokens that are gone stay gone."""
        super().heal()
        self.tokens.script.clear()
        self._handshakes.end()

    def listen(self, port: int, connections: Callable[[], Iterable[web.RequestHandler]]) -> None:
        """Make the service account too, because it names the port."""
        super().listen(port, connections)
        self.rotate()

    def app(self) -> web.Application:
        """Return the web application."""
        app = web.Application()
        app.router.add_post("/token", self._token)
        app.router.add_post("/v1/projects/{project}/messages:send", self._send)
        return app

    async def _token(self, request: web.Request) -> web.StreamResponse:
        self._peers.add(request.transport and request.transport.get_extra_info("peername"))
        failure = self.tokens.script.next()
        await fail_connection(request, failure)
        if isinstance(failure, Answer):
            return web.json_response({"error": failure.reason}, status=failure.status, headers=retry_after(failure))
        if isinstance(failure, Page):
            return _page(failure)
        form = {name: str(value) for name, value in (await request.post()).items()}
        moment = self._clock()
        wrong = check_assertion(form, self._public_key, self._account["client_email"], self.token_uri, moment)
        if wrong is not None:
            return web.json_response({"error": wrong, "error_description": "refused"}, status=400)
        self.tokens.made += 1
        token = secrets.token_urlsafe(32)
        self.tokens.valid[token] = moment.timestamp() + LIFE
        document = {"access_token": token, "expires_in": LIFE - 1, "token_type": "Bearer"}
        return await _respond(request, FcmResponse(200, document), failure)

    async def _send(self, request: web.Request) -> web.StreamResponse:
        self._peers.add(request.transport and request.transport.get_extra_info("peername"))
        body = await request.read()
        device_token, refusal = check_message(body)
        failure = self._script.next()
        if isinstance(failure, Stall | Close | Reset | GoAway):
            self._record(request, body, device_token, 0)
        await fail_connection(request, failure)
        if isinstance(failure, Page):
            self._record(request, body, device_token, failure.status)
            return _page(failure)
        if isinstance(failure, Answer):
            response = fcm_error(failure.reason, failure.status, failure.field)
        else:
            response = self._check(request, device_token, refusal)
        if not only_validates(body):
            self._record(request, body, device_token, response.status)
        return await _respond(request, response, failure)

    def _check(self, request: web.Request, device_token: str, refusal: FcmResponse | None) -> FcmResponse:
        """Return the answer to a send; `refusal` is that of its body."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or self.tokens.valid.get(token, 0.0) <= self._clock().timestamp():
            return unauthenticated()
        if request.match_info["project"] != self._project:
            return unknown_project()
        if refusal is not None:
            return refusal
        if device_token in self._refused:
            return fcm_error(self._refused[device_token])
        return FcmResponse(200, {"name": f"projects/{self._project}/messages/0:{secrets.token_hex(16)}"})


async def _respond(request: web.Request, response: FcmResponse, failure: FcmFailure | None) -> web.StreamResponse:
    """Send an answer, or half of it if the failure is a Cut."""
    body = json.dumps(response.document).encode()
    headers: Mapping[str, str] = retry_after(failure) if isinstance(failure, Answer) else {}
    kind = {"Content-Type": "application/json; charset=UTF-8", "Content-Length": str(len(body))}
    stream = web.StreamResponse(status=response.status, headers={**headers, **kind})
    await stream.prepare(request)
    await stream.write(body[: len(body) // 2] if isinstance(failure, Cut) else body)
    if isinstance(failure, Cut):
        await asyncio.sleep(SENT)
        abort(request.transport)
        raise asyncio.CancelledError
    await stream.write_eof()
    return stream


def _page(page: Page) -> web.Response:
    """Return the answer of a proxy or a captive portal."""
    text = "<!DOCTYPE html><html><title>Access denied</title><body>Please sign in to the network.</body></html>"
    return web.Response(text=text, status=page.status, content_type="text/html")


@asynccontextmanager
async def open_fcm_simulator(
    *,
    tls: ssl.SSLContext,
    host: str = "127.0.0.1",
    port: int = 0,
    clock: Clock = now,
    project: str = PROJECT,
    make_key: Callable[[], RSAPrivateKey] = make_rsa_key,
    reached: str | None = None,
) -> AsyncIterator[FcmSimulator]:
    """Serve until the block ends; port 0 takes a free one. `make_key` must return another key at each call.

    `reached` is the host in its URLs, if that is not `host`.
    """
    simulator = FcmSimulator(tls, reached or host, clock, project, make_key)
    async with serve_simulator(simulator, tls, host, port):
        yield simulator
