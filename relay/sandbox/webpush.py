"""Own the simulator of a push service with its phones: subscriptions, WebPush over TLS, and scripts of failures."""

import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from relay.domain.clock import Clock
from relay.process.clock import now
from relay.sandbox.answering import abort, headers_of, suffer
from relay.sandbox.scripts import Answer, Close, Failure, GoAway, Inbox, Mixture, Received, Reset, Script, Stall
from relay.sandbox.serving import serve_simulator
from relay.sandbox.webpush_rules import Refusal, Subscriber, Unreadable, check_push, encode, open_push

PUSH: Final = "/push/{id:[A-Za-z0-9_-]{1,64}}"


class WebPushSimulator:
    """Judge each request as a strict push service would, or as scripted, and read it as the phone would."""

    def __init__(self, host: str, clock: Clock) -> None:
        self.port = 0
        self.complaints: list[str] = []
        """What was wrong with requests that were not scripted to fail."""
        self._host = host
        self._clock = clock
        self._inbox = Inbox()
        self._script = Script[Failure]()
        self._subscribers: dict[str, Subscriber] = {}
        self._connections: Callable[[], Iterable[RequestHandler]] = tuple

    @property
    def service(self) -> str:
        """Give what stands for the service in webpush.hosts."""
        return f"{self._host}:{self.port}"

    @property
    def url(self) -> str:
        """Give the origin of the service."""
        return f"https://{self.service}"

    @property
    def received(self) -> list[Received]:
        """Give all pushes so far, oldest first, encrypted as they came; the device token is the endpoint."""
        return self._inbox.received

    @property
    def messages(self) -> list[bytes]:
        """Give what the phones read in the pushes that were taken, oldest first."""
        return [self.open(push) for push in self.received if push.status == web.HTTPCreated.status_code]

    async def wait(self, count: int, timeout_s: float = 10.0) -> list[Received]:
        """Wait until so many pushes came, and return all; raises TimeoutError."""
        return await self._inbox.wait(count, timeout_s)

    def open(self, push: Received) -> bytes:
        """Decrypt a push as its phone does; raises Unreadable, and KeyError when there is no such phone."""
        return open_push(push.body, self._subscribers[push.device_token])

    def subscribe(self, vapid_public_key: str = "") -> dict[str, object]:
        """Be a phone that subscribes, and return its subscription as the Push API writes it.

        Only the given key may push then; without one, any.
        """
        subscriber = Subscriber(vapid_public_key, auth=secrets.token_bytes(16))
        endpoint = f"{self.url}/push/{secrets.token_urlsafe(24)}"
        self._subscribers[endpoint] = subscriber
        return {"endpoint": endpoint, "keys": {"p256dh": encode(subscriber.public), "auth": encode(subscriber.auth)}}

    def gone(self, endpoint: str) -> None:
        """Answer 410 for a subscription from now on; raises KeyError."""
        self._subscribers[endpoint].gone = True

    def fail(self, failure: Failure, times: int = 1) -> None:
        """Let a failure happen to so many of the next pushes; 0: to all until `heal`."""
        self._script.add(failure, times)

    def mix(self, mixture: Mixture[Failure]) -> None:
        """Let pushes fail at random until `heal`."""
        self._script.mix(mixture)

    def drop(self) -> None:
        """Cut all connections now."""
        for connection in self._connections():
            abort(connection.transport)

    def heal(self) -> None:
        """Forget all scripts; subscriptions stay gone."""
        self._script.clear()

    def listen(self, port: int, connections: Callable[[], Iterable[RequestHandler]]) -> None:
        """Take the port and what tells the open connections."""
        self.port = port
        self._connections = connections

    def app(self) -> web.Application:
        """Make the web application."""
        app = web.Application()
        app.router.add_post(PUSH, self._push)
        return app

    async def _push(self, request: web.Request) -> web.Response:
        body = await request.read()
        endpoint = f"{self.url}{request.path}"
        failure = self._script.next()
        if isinstance(failure, Stall | Close | Reset | GoAway):
            self._note(request, endpoint, body, 0)
        await suffer(request, failure)
        if isinstance(failure, Answer):
            self._note(request, endpoint, body, failure.status)
            return web.Response(status=failure.status, text=failure.reason, headers=headers_of(failure))
        refusal = self._judge(request, endpoint, body)
        if refusal is not None:
            self._note(request, endpoint, body, refusal.status)
            return web.Response(status=refusal.status, text=refusal.reason)
        self._note(request, endpoint, body, web.HTTPCreated.status_code)
        location = f"{self.url}/message/{secrets.token_urlsafe(12)}"
        return web.Response(status=201, headers={"Location": location, "TTL": request.headers["TTL"]})

    def _judge(self, request: web.Request, endpoint: str, body: bytes) -> Refusal | None:
        subscriber = self._subscribers.get(endpoint)
        if subscriber is None:
            return Refusal(404, "no such subscription")
        headers = {name.lower(): value for name, value in request.headers.items()}
        refusal = check_push(headers, body, subscriber, self.url, self._clock())
        if refusal is not None:
            self.complaints.append(refusal.reason)
            return refusal
        if subscriber.gone:
            return Refusal(410, "the phone has unsubscribed")
        try:
            open_push(body, subscriber)
        except Unreadable as unreadable:
            # No push service could know; the phone would show nothing.
            self.complaints.append(str(unreadable))
        return None

    def _note(self, request: web.Request, endpoint: str, body: bytes, status: int) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self._inbox.add(Received(time.perf_counter_ns(), headers, body, endpoint, status))


@asynccontextmanager
async def open_webpush_simulator(
    *, tls: ssl.SSLContext, host: str = "127.0.0.1", port: int = 0, clock: Clock = now
) -> AsyncIterator[WebPushSimulator]:
    """Serve until the block ends; port 0 takes a free one."""
    simulator = WebPushSimulator(host, clock)
    async with serve_simulator(simulator, tls, host, port):
        yield simulator
