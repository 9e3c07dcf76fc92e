"""The HTTP side of the simulated EAS server: answers requests, and lets them fail as scripted."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random, SystemRandom
from time import perf_counter_ns
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from eas_watcher.commands.ping import PingStatus
from eas_watcher.names import ProtocolVersion, SyncKey
from eas_watcher.ports import Now
from eas_watcher.wbxml.element import AIRSYNC, FOLDERHIERARCHY, PING, Element
from eas_watcher.wbxml.encode import encode
from relay.process import clock
from relay.sandbox.eas.autodiscover import Autodiscover
from relay.sandbox.eas.commands import Document, answer
from relay.sandbox.eas.devices import PingParameters
from relay.sandbox.eas.failures import AnswerHttp, AnswerStatus, Crash, Cut, Delay, Failure, Garble, Stall
from relay.sandbox.eas.personality import Outage
from relay.sandbox.eas.ping import PingAnswer
from relay.sandbox.eas.records import EasRecords
from relay.sandbox.eas.refusals import ROOTS, RefusedByHttp, RefusedByStatus, refuse, status_document
from relay.sandbox.eas.requests import EasRequest, read_body, read_command, read_request
from relay.sandbox.eas.rules import EasRules
from relay.sandbox.eas.simulator import EasSimulator

PATH: Final = "/Microsoft-Server-ActiveSync"
CONTENT_TYPE: Final = "application/vnd.ms-sync.wbxml"
COOKIE: Final = "X-BackEndCookie"
KEEP_IDLE: Final = 120.0  # seconds, the default of IIS; longer than clients keep a connection
SHUTDOWN_TIMEOUT: Final = 5.0  # seconds that requests in flight have when the server closes
GARBLED_PART: Final = 0.5  # the part of a garbled answer that is sent
CRASHED_PART: Final = 0.95  # the part of an answer that is sent before a crash; it includes the key
RETRY_AFTER: Final = 30  # seconds
GAVE_UP: Final = "<html><head><title>504 Gateway Time-out</title></head></html>"
RETRY_LATER: Final = 111  # [MS-ASCMD 2.2.2]


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
) -> AsyncIterator[EasSimulator]:
    """Serve a simulated EAS server until the block ends; port 0 takes a free one, None as `tls` means plain HTTP.

    `rules` say more about its behaviour; with them, `versions` is ignored.
    """
    simulator = EasSimulator(rules or EasRules(versions), random or SystemRandom(), now or clock.now)
    app = web.Application(middlewares=[_counting(simulator.records)])
    server = EasServer(simulator)
    app.router.add_route("*", PATH, server.handle)
    Autodiscover(simulator).add_to(app.router)
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        handler_cancellation=True,  # the end of a connection ends its Ping
        keepalive_timeout=KEEP_IDLE,
        shutdown_timeout=SHUTDOWN_TIMEOUT,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=tls, backlog=4096)
        await site.start()
        simulator.port = runner.addresses[0][1]
        scheme = "http" if tls is None else "https"
        simulator.url = f"{scheme}://{host}:{simulator.port}{PATH}"
        yield simulator
    finally:
        simulator.pings.close()
        server.close()
        await runner.cleanup()


def _counting(records: EasRecords) -> Middleware:
    """Return a middleware that counts concurrent requests, except Pings, which HeldPings counts."""

    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        if read_command(request.query_string) == "Ping":
            return await handler(request)
        with records.answering():
            return await handler(request)

    return count


class EasServer:
    """Answers HTTP requests with the answers of a simulator."""

    def __init__(self, simulator: EasSimulator) -> None:
        """Answer by the mailboxes, the rules and the scripted failures of `simulator`."""
        self._simulator = simulator
        self._closing = asyncio.Event()
        self._left: set[asyncio.Task[web.StreamResponse]] = set()
        """Requests whose clients have gone, and which are served all the same."""

    def close(self) -> None:
        """End all requests that are stalled or delayed, or whose clients have gone."""
        self._closing.set()
        for serving in self._left:
            serving.cancel()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request, then close its connection if the personality `closes` connections."""
        response = await self._in_turn(request)
        transport = request.transport
        if self._simulator.rules.personality.closes and transport is not None and not transport.is_closing():
            await response.prepare(request)
            await response.write_eof()
            transport.close()
        return response

    async def _in_turn(self, request: web.Request) -> web.StreamResponse:
        """Answer one request when a worker is free for it, or as a proxy whose patience ends before that."""
        await request.read()  # a server that hands requests to workers has read them
        began = asyncio.Event()

        async def serve() -> web.StreamResponse:
            async with self._simulator.workers.one():
                began.set()
                return await self._handle(request)

        if self._simulator.workers.number is None:
            return await self._handle(request)
        serving = asyncio.get_running_loop().create_task(serve())
        try:
            async with asyncio.timeout(self._simulator.rules.patience):
                await wait_first(serving, began)
        except TimeoutError:
            self._leave(serving)
            return web.Response(status=504, text=GAVE_UP, content_type="text/html")
        except asyncio.CancelledError:
            self._leave(serving)
            raise
        try:
            return await serving
        except asyncio.CancelledError:
            serving.cancel()
            raise

    def _leave(self, serving: "asyncio.Task[web.StreamResponse]") -> None:
        """Leave a request in the queue whose client has gone, unless the server notices that."""
        if self._simulator.rules.personality.notices_hang_up:
            serving.cancel()
            return
        self._left.add(serving)
        serving.add_done_callback(self._left.discard)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request, or let it fail as the script or the outage of the backend says."""
        body = await request.read()
        command = "OPTIONS" if request.method == "OPTIONS" else read_command(request.query_string)
        user, authenticated = self._identify(request, command)
        self._simulator.records.note(user, command, asyncio.get_running_loop().time())
        failure = self._simulator.failures.take(user, command)
        if isinstance(failure, AnswerHttp):
            await self._wait(failure.seconds)
            return web.Response(status=failure.status, headers=failure.headers, body=failure.body.encode() or None)
        outage = self._simulator.rules.personality.outage if self._simulator.backend_down else None
        if outage is Outage.UNAVAILABLE:
            return self._respond(503, headers={"Retry-After": str(RETRY_AFTER)})
        if outage is Outage.UNAUTHORIZED or not authenticated:
            refusal = self._respond(401)
            refusal.headers.extend(
                ("WWW-Authenticate", challenge) for challenge in self._simulator.identities.challenge
            )
            return refusal
        if request.method == "OPTIONS":
            return await self._fail(request, command, failure) or self._options()
        if request.method != "POST":
            return self._respond(405, headers={"Allow": "OPTIONS, POST"})
        if outage is Outage.STATUS and failure is None:
            failure = AnswerStatus(RETRY_LATER)
        return await self._serve(request, user, command, body, failure)

    def _identify(self, request: web.Request, command: str) -> tuple[str, bool]:
        """Return the user of a request, and whether it is authenticated or needs no authentication."""
        user, device_id = request.query.get("User", ""), request.query.get("DeviceId", "")
        if self._simulator.policy_first(user, device_id, command):
            return user, True
        return self._simulator.identities.read(request, self._simulator.admit)

    async def _serve(
        self, request: web.Request, user: str, command: str, body: bytes, failure: Failure | None
    ) -> web.StreamResponse:
        """Answer an authenticated POST."""
        failed = await self._fail(request, command, failure)
        if failed is not None:
            return failed
        try:
            parsed = read_request(request.query_string, request.headers, body, user, self._simulator.rules.versions)
        except RefusedByHttp as refusal:
            self._simulator.complain(user, command, str(refusal))
            return self._respond(refusal.status)
        except RefusedByStatus as refusal:
            return self._respond(200, encode(status_document(command, refusal.status)))
        reply = await self._answer(user, parsed, body)
        if isinstance(failure, Cut) or reply is None:
            return _cut(request)
        return await self._send(request, user, reply, failure)

    async def _send(
        self, request: web.Request, user: str, reply: Document | PingAnswer | int, failure: Failure | None
    ) -> web.StreamResponse:
        """Send an answer; record when the status 2 of a Ping was sent."""
        if isinstance(reply, int):
            return self._respond(reply)
        document = reply.document if isinstance(reply, PingAnswer) else reply.root
        written = b"" if document is None else encode(document)
        if isinstance(failure, Garble):
            written = written[: max(1, int(len(written) * GARBLED_PART))] or b"\x03"
        response = self._with_cookie(request, self._respond(200, written))
        if isinstance(reply, PingAnswer) and reply.status is PingStatus.CHANGED:
            await response.prepare(request)
            await response.write_eof()
            self._simulator.records.ping_answered_at[user] = perf_counter_ns()
        return response

    async def _answer(self, user: str, request: EasRequest, body: bytes) -> Document | PingAnswer | int | None:
        """Return the answer of a command, or the HTTP status of a refusal; None if the server closes."""
        pings = self._simulator.pings
        if request.command == "Ping":
            pings.supersede(user, request.device_id)
        try:
            session = self._simulator.session(user, request)
            found = answer(request.command, read_body(request, body), session)
            if isinstance(found, PingParameters):
                return await pings.hold(request.device_id, found, session)
        except RefusedByStatus as refusal:
            if refusal.fault:
                self._simulator.complain(user, request.command, str(refusal))
            by_http = self._simulator.rules.personality.provision_by_http
            refused = refuse(request.command, refusal, request.version, by_http=by_http)
            return Document(refused) if isinstance(refused, Element) else refused
        return found

    async def _fail(self, request: web.Request, command: str, failure: Failure | None) -> web.StreamResponse | None:
        """Let a failure happen that precedes the command; return the answer that ends the request, if one does."""
        match failure:
            case AnswerStatus(status=status, seconds=seconds, heartbeat=heartbeat) if command in ROOTS:
                await self._wait(seconds)
                limit = [] if heartbeat is None else [PING("HeartbeatInterval", str(heartbeat))]
                return self._respond(200, encode(status_document(command, status, *limit)))
            case Crash() if command in ROOTS:
                written = encode(_forge(command, self._simulator.mint_key()))
                return self._respond(500, written[: int(len(written) * CRASHED_PART)])
            case Delay(seconds=seconds):
                return _cut(request) if await self._wait(seconds) else None
            case Cut(applied=False, seconds=seconds):
                await self._wait(seconds)
                return _cut(request)
            case Stall():
                await self._wait(None)
                return _cut(request)
            case _:
                return None

    async def _wait(self, seconds: float | None) -> bool:
        """Wait, at most until the server closes, and return whether it closes; None: without a time limit."""
        if seconds == 0.0:
            return False
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return False
        return True

    def _options(self) -> web.Response:
        """Return the answer to OPTIONS."""
        versions = ",".join(version.wire for version in self._simulator.rules.versions)
        announced = self._simulator.rules.personality.announces_provision
        return self._respond(
            200,
            headers={
                "MS-ASProtocolVersions": versions,
                "MS-ASProtocolCommands": ",".join(name for name in ROOTS if announced or name != "Provision"),
                "Public": "OPTIONS,POST",
            },
        )

    def _respond(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> web.Response:
        """Return an answer; only one with a body has a Content-Type [MS-ASHTTP 2.2.2.1]."""
        content = {"Content-Type": CONTENT_TYPE} if body else {}
        build = {"MS-Server-ActiveSync": self._simulator.rules.personality.build, "Cache-Control": "private"}
        return web.Response(status=status, body=body or None, headers={**build, **content, **(headers or {})})

    def _with_cookie(self, request: web.Request, response: web.Response) -> web.Response:
        """Set the cookie that ties a client to a back end, unless the client sent it [MS-ASHTTP 2.2.1.1.2.4]."""
        if COOKIE not in request.cookies:
            response.set_cookie(COOKIE, "mailbox-server-1", path=PATH, secure=request.secure, httponly=True)
        return response


async def wait_first(serving: "asyncio.Task[web.StreamResponse]", began: asyncio.Event) -> None:
    """Return when a worker serves a request, or the request is over."""
    begins = asyncio.get_running_loop().create_task(began.wait())
    try:
        await asyncio.wait({serving, begins}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        begins.cancel()


def _cut(request: web.Request) -> web.Response:
    """Cut the connection; return an answer that is never sent."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _forge(command: str, key: SyncKey) -> Element:
    """Return an answer with a sync key that no device has."""
    if command == "FolderSync":
        return status_document(command, 1, FOLDERHIERARCHY("SyncKey", key))
    if command != "Sync":
        return status_document(command, 1)
    return AIRSYNC(
        "Sync", AIRSYNC("Collections", AIRSYNC("Collection", AIRSYNC("SyncKey", key), AIRSYNC("Status", "1")))
    )
