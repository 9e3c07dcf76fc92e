"""Own the life of one watch: take the step function's actions, do them, and feed back what came of them."""

import asyncio
import logging
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from eas_watcher import backoff
from eas_watcher.commands.flow import converse
from eas_watcher.commands.ping import PingReply, PingStatus
from eas_watcher.commands.provision import Acknowledgement, acknowledge_wipe, negotiate
from eas_watcher.commands.request import Command
from eas_watcher.errors import EasError, Unreachable, VersionRefused
from eas_watcher.heartbeat import JITTER
from eas_watcher.machine.memory import Memory, Progress
from eas_watcher.machine.state import (
    AcknowledgeWipe,
    Action,
    Answered,
    Ended,
    Event,
    Failed,
    Granted,
    Pause,
    Pinging,
    Policy,
    Provide,
    Record,
    Send,
    State,
    WipeAcknowledged,
    Woken,
)
from eas_watcher.machine.step import begin, step
from eas_watcher.names import MailboxId
from eas_watcher.ports import Transport
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.client import EasClient
from eas_watcher.runtime.context import WatchContext
from eas_watcher.runtime.relocation import Seeker, astray, look_for

log = logging.getLogger(__name__)
R = TypeVar("R")


class Runner:
    """Run the watch of one mailbox until it ends or is cancelled."""

    __slots__ = ("_account", "_around", "_exchange", "_seeker", "_state", "_transport")

    def __init__(
        self, account: Account, transport: Transport, around: WatchContext, seeker: Seeker | None = None
    ) -> None:
        """Take the account, the transport to its server, what all runners share, and who finds mailboxes that moved."""
        self._account = account
        self._transport = transport
        self._around = around
        self._seeker = seeker
        self._exchange: EasClient
        self._state: State

    async def run(self, memory: Memory, policy: Policy) -> None:
        """Watch until the watch ends for good; raises Fenced when another process owns the mailbox."""
        self._exchange = EasClient(self._account, self._transport, self._around, policy.return_rate)
        self._exchange.address(memory.partnership.url)
        door = self._exchange.door
        if memory.refusals:
            door.refusals.known(self._account.mailbox, asyncio.get_running_loop().time())
        door.watched += 1
        try:
            await self._watch(memory, replace(policy, heartbeat=door.path.start(policy.heartbeat)))
        finally:
            door.watched -= 1

    async def _watch(self, memory: Memory, policy: Policy) -> None:
        self._state, actions = begin(memory, policy, self._around.random.uniform(0.0, JITTER))
        while not (isinstance(self._state, Ended) and not actions):
            event: Event | None = None
            for action in actions:
                event = await self._do(action) or event
            if event is None:
                return
            before, (self._state, actions) = self._state, step(self._state, event)
            self._learn(before, event)
            trace(self._account.mailbox, before, event, self._state)

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
                    await converse(acknowledge_wipe(account_only), self._ask)
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
        try:
            reply = await self._ask(command)
        except EasError as error:
            self._around.stats.requests[command.name or "OPTIONS", type(error).__name__] += 1
            return await self._failed(error)
        self._around.stats.requests[command.name or "OPTIONS", "answered"] += 1
        held = asyncio.get_running_loop().time() - self._exchange.began
        return Answered(reply, self._around.now(), held)

    async def _provide(self, acknowledgement: Acknowledgement, fallbacks: tuple[Acknowledgement, ...] = ()) -> Event:
        version = self._state.watch.partnership.version
        if version is None:
            return Failed(VersionRefused("Provision needs a protocol version"))
        try:
            grant = await converse(negotiate(version, acknowledgement, fallbacks), self._ask)
        except EasError as error:
            return await self._failed(error)
        return Granted(grant.policy_key, grant.acknowledged)

    async def _ask(self, command: Command[R]) -> R:
        return await self._exchange.send(command, self._state.watch)

    async def _failed(self, error: EasError) -> Failed:
        """Tell of a failure, after a look for the mailbox elsewhere if it seems to have moved."""
        if self._seeker is None or not astray(self._state, error):
            return Failed(error)
        account = replace(self._account, url=self._exchange.url)
        understood = await look_for(account, self._seeker, error)
        if understood is not error:
            # A refused credential or a mailbox that moved is this mailbox's own matter, whose wait the door knows not.
            self._exchange.shared = False
        return Failed(understood)

    def _learn(self, before: State, event: Event) -> None:
        """Tell the door what the end of a held Ping says about the path to the server."""
        match before, event:
            case Pinging(watch), Answered(PingReply(status=PingStatus.EXPIRED), _, held):
                self._exchange.door.held(watch.heartbeat, held)
            case Pinging(), Failed(Unreachable(survived=survived)):
                self._exchange.door.cut(self._state.watch.heartbeat, survived)
            case _:
                pass

    async def _pause(self, pause: Pause) -> None:
        """Record why and until when, then wait: for a time, or, if the server is away for all, before its door."""
        random, exchange = self._around.random, self._exchange
        seconds = backoff.at_least(pause.seconds, random) if pause.seconds else backoff.delay(pause.failures, random)
        progress, door = pause.progress, exchange.door
        queues = progress.condition is not None and exchange.shared and door.state == "away"
        if queues:
            seconds = door.expected_wait() or 0.0
        if progress.condition is not None:
            known = door.path.describe(urlsplit(exchange.url).hostname or "") if exchange.shared else ""
            condition = replace(progress.condition, retry_in=seconds, detail=known or progress.condition.detail)
            await self._commit(replace(progress, condition=condition))
            log.info(
                "watch waits",
                extra={"mailbox": self._account.mailbox, "reason": condition.reason, "detail": condition.detail},
            )
        if pause.polls:
            self._around.journal.pinged(self._account.mailbox, seconds)
        if not queues:
            await self._around.waits.sleep(seconds)


def trace(mailbox: MailboxId, before: State, event: Event, after: State) -> None:
    """Log one step at DEBUG."""
    if log.isEnabledFor(logging.DEBUG):
        log.debug(
            "watch stepped",
            extra={
                "mailbox": mailbox,
                "state": type(before).__name__,
                "came": _name(event),
                "next_state": type(after).__name__,
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
