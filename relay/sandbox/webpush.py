"""The simulator of a WebPush service with its phones, over TLS."""

import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from relay.domain.clock import Clock
from relay.process.clock import now
from relay.sandbox.push_simulator import HttpSimulator, fail_connection, headers_of, retry_after, serve_simulator
from relay.sandbox.scripts import Answer, Close, Failure, GoAway, Received, Reset, Stall
from relay.sandbox.webpush_rules import Refusal, Subscriber, Unreadable, check_push, encode, open_push

PUSH: Final = "/push/{id:[A-Za-z0-9_-]{1,64}}"


class WebPushSimulator(HttpSimulator[Failure]):
    """Answers each push as a strict push service does, or as scripted, and decrypts it as the phone does.

    In `received`, the body is encrypted and the device token is the endpoint.
    """

    def __init__(self, host: str, clock: Clock) -> None:
        super().__init__(host)
        self.complaints: list[str] = []
        """Faults of requests, except those that were scripted to fail."""
        self._clock = clock
        self._subscribers: dict[str, Subscriber] = {}

    @property
    def service(self) -> str:
        """The name of the service in webpush.hosts."""
        return f"{self._host}:{self.port}"

    @property
    def messages(self) -> list[bytes]:
        """The texts that the phones read in the accepted pushes, oldest first."""
        return [self.open(push) for push in self.received if push.status == web.HTTPCreated.status_code]

    def open(self, push: Received) -> bytes:
        """Return the text of a push, decrypted as its phone does; raises Unreadable, and KeyError without a phone."""
        return open_push(push.body, self._subscribers[push.device_token])

    def subscribe(self, vapid_public_key: str = "") -> dict[str, object]:
        """Add a phone, and return its subscription in the JSON of the Push API.

        Only the given VAPID key may push to it; without one, any.
        """
        subscriber = Subscriber(vapid_public_key, auth=secrets.token_bytes(16))
        endpoint = f"{self.url}/push/{secrets.token_urlsafe(24)}"
        self._subscribers[endpoint] = subscriber
        return {"endpoint": endpoint, "keys": {"p256dh": encode(subscriber.public), "auth": encode(subscriber.auth)}}

    def forget(self) -> None:
        """Forget all phones, as a push service that lost its data."""
        self._subscribers.clear()

    def gone(self, endpoint: str, status: int = web.HTTPGone.status_code) -> None:
        """Answer this status for a subscription from now on, 0: take its pushes again; raises KeyError."""
        self._subscribers[endpoint].gone = status

    def app(self) -> web.Application:
        """Return the web application."""
        app = web.Application()
        app.router.add_post(PUSH, self._push)
        return app

    async def _push(self, request: web.Request) -> web.Response:
        body = await request.read()
        endpoint = f"{self.url}{request.path}"
        failure = self._script.next()
        if isinstance(failure, Stall | Close | Reset | GoAway):
            self._record(request, body, endpoint, 0)
        await fail_connection(request, failure)
        if isinstance(failure, Answer):
            self._record(request, body, endpoint, failure.status)
            return web.Response(status=failure.status, text=failure.reason, headers=retry_after(failure))
        refusal = self._check(request, endpoint, body)
        if refusal is not None:
            self._record(request, body, endpoint, refusal.status)
            return web.Response(status=refusal.status, text=refusal.reason)
        self._record(request, body, endpoint, web.HTTPCreated.status_code)
        location = f"{self.url}/message/{secrets.token_urlsafe(12)}"
        return web.Response(status=201, headers={"Location": location, "TTL": request.headers["TTL"]})

    def _check(self, request: web.Request, endpoint: str, body: bytes) -> Refusal | None:
        subscriber = self._subscribers.get(endpoint)
        if subscriber is None:
            return Refusal(404, "no such subscription")
        refusal = check_push(headers_of(request), body, subscriber, self.url, self._clock())
        if refusal is not None:
            self.complaints.append(refusal.reason)
            return refusal
        if subscriber.gone:
            return Refusal(subscriber.gone, "the phone has unsubscribed, or listens no more")
        try:
            open_push(body, subscriber)
        except Unreadable as unreadable:
            # A push service cannot notice this; the phone would show nothing.
            self.complaints.append(str(unreadable))
        return None


@asynccontextmanager
async def open_webpush_simulator(
    *, tls: ssl.SSLContext, host: str = "127.0.0.1", port: int = 0, clock: Clock = now, reached: str | None = None
) -> AsyncIterator[WebPushSimulator]:
    """Serve until the block ends; port 0 takes a free one. `reached` is the host in its URLs, if that is not `host`."""
    simulator = WebPushSimulator(reached or host, clock)
    async with serve_simulator(simulator, tls, host, port):
        yield simulator
