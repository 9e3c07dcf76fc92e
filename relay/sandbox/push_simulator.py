"""The parts that the simulators of APNs, FCM and push services share: records, scripts, TLS faults, an HTTP server."""

import asyncio
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final, Generic, TypeVar, cast

from aiohttp import web

from relay.sandbox.scripts import (
    Answer,
    Close,
    Delay,
    FcmFailure,
    GoAway,
    Inbox,
    Mixture,
    Received,
    Reset,
    Script,
    Stall,
)

SHUTDOWN_TIMEOUT: Final = 0.1  # seconds; a stalled request must not delay the end of a test

F = TypeVar("F")


class PushSimulator(ABC, Generic[F]):
    """Records the requests of a push service and fails them as scripted; subclasses answer as the real service does."""

    def __init__(self) -> None:
        self.port = 0
        self._inbox = Inbox()
        self._script: Script[F] = Script()

    @property
    def received(self) -> list[Received]:
        """All requests, oldest first."""
        return self._inbox.received

    async def wait(self, count: int, timeout_s: float = 10.0) -> list[Received]:
        """Return all requests as soon as there are `count`; raises TimeoutError."""
        return await self._inbox.wait(count, timeout_s)

    def fail(self, failure: F, times: int = 1) -> None:
        """Let the next `times` requests fail; 0: all until `heal`."""
        self._script.add(failure, times)

    def mix(self, mixture: Mixture[F]) -> None:
        """Let requests fail at random until `heal`."""
        self._script.mix(mixture)

    @property
    def failing(self) -> bool:
        """True while a failure that `fail` was given is left for the next request."""
        return self._script.left > 0

    def heal(self) -> None:
        """End all failures; device tokens that are gone stay gone."""
        self._script.clear()

    @abstractmethod
    def drop(self) -> None:
        """Cut all connections now."""


class HttpSimulator(PushSimulator[F]):
    """A simulator of a push service that speaks HTTP/1.1."""

    def __init__(self, host: str) -> None:
        super().__init__()
        self._host = host
        self._connections: Callable[[], Iterable[web.RequestHandler]] = tuple

    @property
    def url(self) -> str:
        """The URL of the service, without a path."""
        return f"https://{self._host}:{self.port}"

    def drop(self) -> None:
        """Cut all connections now."""
        for connection in self._connections():
            abort(connection.transport)

    def listen(self, port: int, connections: Callable[[], Iterable[web.RequestHandler]]) -> None:
        """Set the port and the function that returns the open connections; called once the server listens."""
        self.port = port
        self._connections = connections

    @abstractmethod
    def app(self) -> web.Application:
        """Return the web application."""

    def _record(self, request: web.Request, body: bytes, device_token: str, status: int) -> None:
        self._inbox.add(Received(time.perf_counter_ns(), headers_of(request), body, device_token, status))


class HandshakeFaults:
    """Makes TLS handshakes of a server fail, and work again."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._ciphers = ":".join(cipher["name"] for cipher in tls.get_ciphers())

    def begin(self) -> None:
        """Let new handshakes fail at once: with PSK ciphers only, no client shares a cipher with the server."""
        self._tls.maximum_version = ssl.TLSVersion.TLSv1_2
        self._tls.set_ciphers("PSK")

    def end(self) -> None:
        """Let new handshakes succeed again."""
        self._tls.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
        self._tls.set_ciphers(self._ciphers)


@asynccontextmanager
async def serve_simulator(
    simulator: HttpSimulator[F], tls: ssl.SSLContext, host: str, port: int
) -> AsyncIterator[None]:
    """Serve until the block ends; port 0 takes a free one."""
    runner = web.AppRunner(
        simulator.app(), access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT, handler_cancellation=True
    )
    await runner.setup()
    try:
        server = runner.server
        if server is None:
            raise AssertionError("AppRunner.setup makes the server")
        site = web.TCPSite(runner, host, port, ssl_context=tls)
        await site.start()
        simulator.listen(int(runner.addresses[0][1]), lambda: server.connections)
        yield
    finally:
        await runner.cleanup()


def abort(transport: asyncio.BaseTransport | None) -> None:
    """Cut a connection."""
    if transport is not None:
        cast("asyncio.Transport", transport).abort()  # the transports of uvloop do not inherit from asyncio.Transport


async def fail_connection(request: web.Request, failure: FcmFailure | None) -> None:
    """Delay, stall or cut the connection of a request, if its failure says so."""
    match failure:
        case Delay(seconds):
            await asyncio.sleep(seconds)
        case Stall():
            await asyncio.Event().wait()
        case Close() | Reset() | GoAway():
            abort(request.transport)
            raise asyncio.CancelledError
        case _:
            pass


def headers_of(request: web.Request) -> Mapping[str, str]:
    """Return the headers of a request, their names in lower case."""
    return {name.lower(): value for name, value in request.headers.items()}


def retry_after(answer: Answer) -> dict[str, str]:
    """Return the Retry-After header of a scripted answer, if it has one."""
    return {"Retry-After": answer.retry_after} if answer.retry_after else {}
