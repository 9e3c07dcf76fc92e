"""The answers of the simulated EAS server to HTTP requests, and the failures that a script or a broken backend cause.

A request without a scripted failure is answered at once, or its Ping is held, without a task.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from http import HTTPStatus
from time import perf_counter_ns
from typing import Any, Final, NamedTuple, TypeAlias

from eas_watcher.commands.ping import PingStatus
from eas_watcher.names import SyncKey
from eas_watcher.wbxml.element import AIRSYNC, FOLDERHIERARCHY, PING, Element
from eas_watcher.wbxml.encode import encode
from relay.sandbox.eas.autodiscover import PATHS, Autodiscover
from relay.sandbox.eas.commands import answer
from relay.sandbox.eas.devices import PingParameters
from relay.sandbox.eas.failures import (
    AnswerHttp,
    AnswerStatus,
    Crash,
    Cut,
    Delay,
    Failure,
    Garble,
    Reset,
    Stall,
)
from relay.sandbox.eas.holds import HeldPing
from relay.sandbox.eas.messages import NoAnswer, Request, Response
from relay.sandbox.eas.personality import Outage
from relay.sandbox.eas.ping import PingAnswer, encode_ping
from relay.sandbox.eas.refusals import ROOTS, RefusedByHttp, RefusedByStatus, refuse, status_document
from relay.sandbox.eas.requests import EasRequest, read_body, read_request
from relay.sandbox.eas.rules import Session
from relay.sandbox.eas.simulator import EasSimulator

PATH: Final = "/Microsoft-Server-ActiveSync"
CONTENT_TYPE: Final = "application/vnd.ms-sync.wbxml"
COOKIE: Final = "X-BackEndCookie"
GARBLED_PART: Final = 0.5  # the part of a garbled answer that is sent
CRASHED_PART: Final = 0.95  # the part of an answer that is sent before a crash; it includes the key
RETRY_AFTER: Final = 30  # seconds
GAVE_UP: Final = b"<html><head><title>504 Gateway Time-out</title></head></html>"
RETRY_LATER: Final = 111  # [MS-ASCMD 2.2.2]

Answer: TypeAlias = Response | NoAnswer


class Arrived(NamedTuple):
    """A request and what its query says."""

    request: Request
    user: str
    command: str
    authenticated: bool
    abandoned: bool = False
    """Whether its client had gone before it had its turn."""


class Holding(NamedTuple):
    """A Ping that the server is about to hold."""

    arrived: Arrived
    asked: EasRequest
    parameters: PingParameters
    session: Session
    failure: Failure | None


Begun: TypeAlias = Answer | Holding


class Slow(NamedTuple):
    """An answer that takes time."""

    work: Callable[[], Coroutine[Any, Any, Begun]]
    """Called when its task runs: a client that leaves before that would leave a coroutine that nobody awaits."""


class EasAnswers:
    """Answers HTTP requests with the answers of a simulator."""

    def __init__(self, simulator: EasSimulator) -> None:
        """Answer by the mailboxes, the rules and the scripted failures of `simulator`."""
        self.simulator = simulator
        self._autodiscover = Autodiscover(simulator)
        self._closing = asyncio.Event()
        self._left: set[asyncio.Task[Answer]] = set()
        """Requests whose clients have gone, and which are served all the same."""

    def close(self) -> None:
        """End all requests that are stalled or delayed, or whose clients have gone."""
        self._closing.set()
        for serving in self._left:
            serving.cancel()

    async def in_turn(self, request: Request) -> Answer:
        """Answer one request when a worker is free for it, or as a proxy whose patience ends before that."""
        began = asyncio.Event()

        async def serve() -> Answer:
            async with self.simulator.workers.one():
                began.set()
                return await self.answer(request, abandoned=asyncio.current_task() in self._left)

        if self.simulator.workers.number is None:
            return await self.answer(request)
        serving = asyncio.get_running_loop().create_task(serve())
        try:
            async with asyncio.timeout(self.simulator.rules.patience):
                await _wait_first(serving, began)
        except TimeoutError:
            self._leave(serving)
            return Response(HTTPStatus.GATEWAY_TIMEOUT, GAVE_UP, (("Content-Type", "text/html"),))
        except asyncio.CancelledError:
            self._leave(serving)
            raise
        try:
            return await serving
        except asyncio.CancelledError:
            serving.cancel()
            raise

    def _leave(self, serving: "asyncio.Task[Answer]") -> None:
        """Leave a request in the queue whose client has gone, unless the server notices that."""
        if self.simulator.rules.personality.notices_hang_up:
            serving.cancel()
            return
        self._left.add(serving)
        serving.add_done_callback(self._left.discard)

    def take(self, request: Request) -> Begun | Slow:
        """Begin a request, in its turn if workers are few; it counts as being answered until it is.

        Pings do not count: HeldPings counts them.
        """
        crowded = self.simulator.workers.number is not None
        begun = Slow(partial(self.in_turn, request)) if crowded else self.begin(request)
        if request.command == "Ping":
            return begun
        if isinstance(begun, Slow):
            return Slow(partial(self._counted, begun))
        self.simulator.records.answered_at_once()
        return begun

    async def _counted(self, slow: Slow) -> Begun:
        with self.simulator.records.answering():
            return await slow.work()

    def begin(self, request: Request, *, abandoned: bool = False) -> Begun | Slow:
        """Return the answer to a request, or the Ping to hold; what takes time if a failure waits.

        Records the request. `abandoned`: its client has gone.
        """
        if request.target.path in PATHS:
            return self._autodiscover.answer(request)
        if request.target.path != PATH:
            return Response(HTTPStatus.NOT_FOUND)
        command = request.command
        identified = self._identify(request)
        if isinstance(identified, NoAnswer):
            return identified
        user, authenticated = identified
        self.simulator.records.note(user, command, asyncio.get_running_loop().time())
        failure = self.simulator.failures.take(user, command)
        arrived = Arrived(request, user, command, authenticated, abandoned)
        if failure is not None:
            return Slow(partial(self._begin_failing, arrived, failure))
        return self._refuse(arrived) or self._serve(arrived, None)

    def hold(self, holding: Holding, done: Callable[[Answer], None]) -> HeldPing:
        """Hold a Ping; `done` is called once with its answer, unless its client gives it up."""

        def ended(answer: PingAnswer | RefusedByStatus | None) -> None:
            done(self._end(holding, answer))

        return self.simulator.pings.hold(holding.asked.device_id, holding.parameters, holding.session, ended)

    async def answer(self, request: Request, *, abandoned: bool = False) -> Answer:
        """Return the answer to a request when there is one; a cancelled one is given up by its client.

        `abandoned`: its client has gone. Its Ping occupies a worker all the same, and is not one that the client holds.
        """
        begun = self.begin(request, abandoned=abandoned)
        if isinstance(begun, Slow):
            begun = await begun.work()
        if not isinstance(begun, Holding):
            return begun
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def done(answer: Answer) -> None:
            if not answered.done():
                answered.set_result(answer)

        held = self.hold(begun, done)
        if abandoned:
            self.simulator.pings.give_up(held)
            return NoAnswer()
        try:
            return await answered
        except asyncio.CancelledError:
            self.simulator.pings.give_up(held)
            raise

    def sent(self, response: Response) -> None:
        """Record that an answer was written to its connection."""
        if response.pinged:
            self.simulator.records.ping_answered_at[response.pinged] = perf_counter_ns()

    def _identify(self, request: Request) -> tuple[str, bool] | NoAnswer:
        """Return the user of a request, and whether it is authenticated or needs no authentication."""
        if self.simulator.rules.personality.policy_before_password:
            query = request.target.query
            user, device_id = query.get("User", ""), query.get("DeviceId", "")
            if self.simulator.policy_first(user, device_id, request.command):
                return user, True
        return self.simulator.identities.read(request, self.simulator.admit)

    def _refuse(self, arrived: Arrived) -> Response | None:
        """Return the refusal of a broken backend, of a wrong password or of a wrong method; None: it is served."""
        outage = self.simulator.rules.personality.outage if self.simulator.backend_down else None
        if outage is Outage.UNAVAILABLE:
            return self._respond(503, headers=(("Retry-After", str(RETRY_AFTER)),))
        if outage is Outage.UNAUTHORIZED or not arrived.authenticated:
            challenges = self.simulator.identities.challenge
            return self._respond(401, headers=tuple(("WWW-Authenticate", challenge) for challenge in challenges))
        if arrived.request.method not in {"OPTIONS", "POST"}:
            return self._respond(405, headers=(("Allow", "OPTIONS, POST"),))
        return None

    def _serve(self, arrived: Arrived, failure: Failure | None) -> Begun:
        """Answer an authenticated request, or return the Ping to hold."""
        user, command, request = arrived.user, arrived.command, arrived.request
        if command == "OPTIONS":
            return self._options()
        rules = self.simulator.rules
        if failure is None and self.simulator.backend_down and rules.personality.outage is Outage.STATUS:
            refused = self._status(command, AnswerStatus(RETRY_LATER))
            if refused is not None:
                return refused
        try:
            asked = read_request(request.target, request.headers, request.body, user, rules.versions)
        except RefusedByHttp as refusal:
            self.simulator.complain(user, command, str(refusal))
            return self._respond(refusal.status)
        except RefusedByStatus as refusal:
            return self._respond(200, encode(status_document(command, refusal.status)))
        if asked.command == "Ping":
            self.simulator.pings.supersede(user, asked.device_id, counted=not arrived.abandoned)
        found: bytes | PingAnswer | PingParameters | RefusedByStatus
        try:
            session = self.simulator.session(user, asked)
            found = answer(asked.command, read_body(asked, request.body), session)
        except RefusedByStatus as refusal:
            found = refusal
        if isinstance(found, PingParameters):
            return Holding(arrived, asked, found, session, failure)
        return self._finish(arrived, asked, found, failure)

    def _end(self, holding: Holding, ended: PingAnswer | RefusedByStatus | None) -> Answer:
        """Return the answer to a Ping that was held."""
        if ended is None:
            return NoAnswer()
        return self._finish(holding.arrived, holding.asked, ended, holding.failure)

    def _finish(
        self,
        arrived: Arrived,
        asked: EasRequest,
        found: bytes | PingAnswer | RefusedByStatus,
        failure: Failure | None,
    ) -> Answer:
        """Return the HTTP answer of a command."""
        if isinstance(found, RefusedByStatus):
            if found.fault:
                self.simulator.complain(arrived.user, asked.command, str(found))
            by_http = self.simulator.rules.personality.provision_by_http
            refused = refuse(asked.command, found, asked.version, by_http=by_http)
            if isinstance(refused, int):
                return NoAnswer() if isinstance(failure, Cut) else self._respond(refused)
            written = encode(refused)
        else:
            written = encode_ping(found.document) if isinstance(found, PingAnswer) else found
        if isinstance(failure, Cut):
            return NoAnswer()
        if isinstance(failure, Garble):
            written = written[: max(1, int(len(written) * GARBLED_PART))] or b"\x03"
        changed = isinstance(found, PingAnswer) and found.status is PingStatus.CHANGED
        cookie = _set_cookie(arrived.request)
        return self._respond(200, written, cookie, pinged=arrived.user if changed else "")

    async def _begin_failing(self, arrived: Arrived, failure: Failure) -> Begun:
        """Let a scripted failure happen."""
        if isinstance(failure, AnswerHttp):
            await self._wait(failure.seconds)
            return Response(failure.status, failure.body.encode(), tuple(failure.headers.items()))
        if isinstance(failure, Reset):
            await self._wait(failure.seconds)
            return NoAnswer(failure.error)
        refused = self._refuse(arrived)
        if refused is not None:
            return refused
        failed = await self._fail(arrived, failure)
        return self._serve(arrived, failure) if failed is None else failed

    async def _fail(self, arrived: Arrived, failure: Failure) -> Answer | None:
        """Let a failure happen that precedes the command; return the answer that ends the request, if one does."""
        match failure:
            case AnswerStatus(seconds=seconds):
                await self._wait(seconds)
                return self._status(arrived.command, failure)
            case Crash() if arrived.command in ROOTS:
                written = encode(_forge(arrived.command, self.simulator.mint_key()))
                return self._respond(500, written[: int(len(written) * CRASHED_PART)])
            case Delay(seconds=seconds):
                return NoAnswer() if await self._wait(seconds) else None
            case Cut(applied=False, seconds=seconds):
                await self._wait(seconds)
                return NoAnswer()
            case Stall():
                await self._wait(None)
                return NoAnswer()
            case _:
                return None

    def _status(self, command: str, failure: AnswerStatus) -> Response | None:
        """Return the answer with a status in place of the command's own; None if the command has no document."""
        if command not in ROOTS:
            return None
        limit = [] if failure.heartbeat is None else [PING("HeartbeatInterval", str(failure.heartbeat))]
        return self._respond(200, encode(status_document(command, failure.status, *limit)))

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

    def _options(self) -> Response:
        """Return the answer to OPTIONS."""
        versions = ",".join(version.wire for version in self.simulator.rules.versions)
        announced = self.simulator.rules.personality.announces_provision
        return self._respond(
            200,
            headers=(
                ("MS-ASProtocolVersions", versions),
                ("MS-ASProtocolCommands", ",".join(name for name in ROOTS if announced or name != "Provision")),
                ("Public", "OPTIONS,POST"),
            ),
        )

    def _respond(
        self, status: int, body: bytes = b"", headers: tuple[tuple[str, str], ...] = (), *, pinged: str = ""
    ) -> Response:
        """Return an answer; only one with a body has a Content-Type [MS-ASHTTP 2.2.2.1]."""
        content = (("Content-Type", CONTENT_TYPE),) if body else ()
        build = ("MS-Server-ActiveSync", self.simulator.rules.personality.build), ("Cache-Control", "private")
        return Response(status, body, (*build, *content, *headers), pinged)


async def _wait_first(serving: "asyncio.Task[Answer]", began: asyncio.Event) -> None:
    """Return when a worker serves a request, or the request is over."""
    begins = asyncio.get_running_loop().create_task(began.wait())
    try:
        await asyncio.wait({serving, begins}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        begins.cancel()


def _set_cookie(request: Request) -> tuple[tuple[str, str], ...]:
    """Set the cookie that ties a client to a back end, unless the client sent it [MS-ASHTTP 2.2.1.1.2.4]."""
    sent = request.headers.get("cookie")
    if sent is not None and COOKIE in [pair.partition("=")[0].strip() for pair in sent.split(";")]:
        return ()
    secure = "" if request.tls is None else "; Secure"
    return (("Set-Cookie", f"{COOKIE}=mailbox-server-1; HttpOnly; Path={PATH}{secure}"),)


def _forge(command: str, key: SyncKey) -> Element:
    """Return an answer with a sync key that no device has."""
    if command == "FolderSync":
        return status_document(command, 1, FOLDERHIERARCHY("SyncKey", key))
    if command != "Sync":
        return status_document(command, 1)
    return AIRSYNC(
        "Sync", AIRSYNC("Collections", AIRSYNC("Collection", AIRSYNC("SyncKey", key), AIRSYNC("Status", "1")))
    )
