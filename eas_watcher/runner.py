"""Own the life of one watch: take the step function's actions, do them, and feed back what came of them."""

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final, TypeVar

from eas_watcher import backoff, cookies
from eas_watcher.commands.folder_sync import FolderSync
from eas_watcher.commands.http_status import raise_for_cut, raise_for_http
from eas_watcher.commands.ping import Ping
from eas_watcher.commands.provision import Acknowledgement, acknowledge_wipe, negotiate
from eas_watcher.commands.request import Command, HttpReply
from eas_watcher.errors import EasError, RequestRefused, ServerRenewed, VersionRefused
from eas_watcher.flow import Flow
from eas_watcher.names import NO_SYNC_KEY, CollectionClass, MailboxId
from eas_watcher.ports import Journal, Now, Transport
from eas_watcher.progress import Memory, Progress
from eas_watcher.states import (
    AcknowledgeWipe,
    Action,
    Answered,
    Ended,
    Event,
    Failed,
    Granted,
    Pause,
    Policy,
    Provide,
    Record,
    Send,
    State,
    WipeAcknowledged,
    Woken,
)
from eas_watcher.watch import begin, step
from eas_watcher.wire import Account, compose

REFUSED_KEPT: Final = 512  # bytes of a refused request that are logged; a whole Ping of five folders has 200

log = logging.getLogger(__name__)
R = TypeVar("R")


@dataclass(slots=True)
class FleetStats:
    """Count what all watches of a process do, for metrics; plain numbers, read whenever wanted."""

    held: dict[MailboxId, float] = field(default_factory=dict)
    """Heartbeat in seconds of every Ping held now."""
    changes: Counter[CollectionClass] = field(default_factory=Counter)
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By command and what came of it: "answered" or the kind of failure."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Hold what all runners of a process share."""

    journal: Journal
    random: Random
    now: Now
    short_requests: int
    """How many requests other than held Pings may be under way at one server, so that no start or return is a storm."""
    stats: FleetStats = field(default_factory=FleetStats)
    gates: dict[str, asyncio.Semaphore] = field(default_factory=dict)

    def gate(self, url: str) -> asyncio.Semaphore:
        """Give the gate of one server; each has its own, so that a server that hangs delays no other's mailboxes."""
        gate = self.gates.get(url)
        if gate is None:
            gate = self.gates[url] = asyncio.Semaphore(self.short_requests)
        return gate


class Runner:
    """Run the watch of one mailbox until it ends or is cancelled."""

    __slots__ = ("_account", "_around", "_cookies", "_cookies_of", "_renewal", "_state", "_transport")

    def __init__(self, account: Account, transport: Transport, around: Surroundings) -> None:
        """Take the account, the transport to its server, and what all runners share."""
        self._account = account
        self._transport = transport
        self._around = around
        self._cookies: dict[str, str] = {}
        self._cookies_of = account.url
        self._renewal = ""
        self._state: State

    async def run(self, memory: Memory, policy: Policy) -> None:
        """Watch until the watch ends for good; raises Fenced when another process owns the mailbox."""
        self._state, actions = begin(memory, policy)
        while not (isinstance(self._state, Ended) and not actions):
            event: Event | None = None
            for action in actions:
                event = await self._do(action) or event
            if event is None:
                return
            before, (self._state, actions) = self._state, step(self._state, event)
            if log.isEnabledFor(logging.DEBUG):
                self._trace(before, event)

    async def _do(self, action: Action) -> Event | None:
        """Take one action; return the event it leads to, if it leads to one."""
        match action:
            case Record(progress):
                await self._commit(progress)
                return None
            case Send(command):
                return await self._send(command)
            case Provide(acknowledgement, fallbacks):
                return await self._provide(acknowledgement, fallbacks)
            case AcknowledgeWipe(account_only):
                try:
                    await self._converse(acknowledge_wipe(account_only))
                except EasError as error:
                    return Failed(error)
                return WipeAcknowledged()
            case Pause():  # pragma: no branch -- mypy proves that there is no other
                await self._pause(action)
                return Woken()

    async def _commit(self, progress: Progress) -> None:
        await self._around.journal.commit(self._account.mailbox, progress)
        for change in progress.changes:
            self._around.stats.changes[change.cls] += change.count

    async def _send(self, command: Command[Any]) -> Event:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            reply = await self._exchange(command)
        except EasError as error:
            self._around.stats.requests[command.name or "OPTIONS", type(error).__name__] += 1
            return Failed(error)
        self._around.stats.requests[command.name or "OPTIONS", "answered"] += 1
        return Answered(reply, self._around.now(), clock() - began)

    async def _provide(self, acknowledgement: Acknowledgement, fallbacks: tuple[Acknowledgement, ...] = ()) -> Event:
        version = self._state.watch.partnership.version
        if version is None:
            return Failed(VersionRefused("Provision needs a protocol version"))
        try:
            grant = await self._converse(negotiate(version, acknowledgement, fallbacks))
        except EasError as error:
            return Failed(error)
        return Granted(grant.policy_key, grant.acknowledged)

    async def _converse(self, flow: Flow[R]) -> R:
        """Drive a flow: send what it yields, send in the reply or throw in the failure."""
        try:
            command = next(flow)
            while True:
                try:
                    reply = await self._exchange(command)
                except EasError as error:
                    command = flow.throw(error)
                else:
                    command = flow.send(reply)
        except StopIteration as end:
            result: R = end.value
            return result

    async def _exchange(self, command: Command[R]) -> R:
        """Send one command over HTTP and read its answer."""
        partnership = self._state.watch.partnership
        account = self._account
        if partnership.url is not None:
            account = replace(account, url=partnership.url)
        if account.url != self._cookies_of:
            self._cookies, self._cookies_of = {}, account.url  # cookies are for the host that set them
        cookie = cookies.header(self._cookies) if self._cookies else ""
        request = compose(account, command, partnership.version, partnership.policy_key, cookie)
        if isinstance(command, Ping):
            mailbox, held = self._account.mailbox, self._around.stats.held
            clock = asyncio.get_running_loop().time
            began = clock()
            held[mailbox] = command.heartbeat
            self._around.journal.pinged(mailbox, command.heartbeat)
            try:
                reply = await self._transport.send(request)
            finally:
                held.pop(mailbox, None)
            raise_for_cut(reply, clock() - began)
        else:
            async with self._around.gate(account.url):
                reply = await self._transport.send(request)
        if reply.set_cookies:
            self._cookies = cookies.merge(self._cookies, reply.set_cookies)
        try:
            raise_for_http(reply, self._around.now())
            self._raise_for_renewal(command, reply)
            return command.read(reply)
        except RequestRefused:
            if command.policy_key is None:
                # For whoever repairs it: our own bytes, which hold keys and ids, nothing of the mailbox.
                refused = {"command": command.name, "body": request.body[:REFUSED_KEPT].hex()}
                log.warning("request refused", extra={"mailbox": self._account.mailbox, **refused})
            raise

    def _raise_for_renewal(self, command: Command[Any], reply: HttpReply) -> None:
        """Raise ServerRenewed, once, when the server wants all clients to start over [MS-ASHTTP 2.2.2.1.2].

        Servers go on saying so; an answer to a start says it too and means nothing.
        """
        said = reply.headers.get("x-ms-rp", "")
        if said in {"", self._renewal}:
            return
        self._renewal = said
        if command.name and command != FolderSync(NO_SYNC_KEY):
            raise ServerRenewed("the server says that what it offers has changed (X-MS-RP)")

    async def _pause(self, pause: Pause) -> None:
        """Record why and until when, then wait."""
        random = self._around.random
        seconds = backoff.told(pause.seconds, random) if pause.seconds else backoff.delay(pause.failures, random)
        progress = pause.progress
        if progress.condition is not None:
            condition = replace(progress.condition, retry_in=seconds)
            await self._commit(replace(progress, condition=condition))
            log.info(
                "watch waits",
                extra={"mailbox": self._account.mailbox, "reason": condition.reason, "detail": condition.detail},
            )
        await asyncio.sleep(seconds)

    def _trace(self, before: State, event: Event) -> None:
        """Log one step; names only, for values may hold what must not be logged."""
        log.debug(
            "watch stepped",
            extra={
                "mailbox": self._account.mailbox,
                "state": type(before).__name__,
                "came": _name(event),
                "next_state": type(self._state).__name__,
            },
        )


def _name(event: Event) -> str:
    match event:
        case Answered(reply, _, held):
            return f"{type(reply).__name__} after {held:.1f} s"
        case Failed(error):
            return f"{type(error).__name__}: {error}"
        case _:
            return type(event).__name__
