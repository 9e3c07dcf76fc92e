"""The runner of one watch: it takes the actions of the step function and gives back the events they lead to."""

import logging
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from eas_watcher import backoff
from eas_watcher.commands.flow import converse
from eas_watcher.commands.ping import Ping, PingReply, PingStatus
from eas_watcher.commands.provision import Acknowledgement, acknowledge_wipe, negotiate
from eas_watcher.commands.request import Command
from eas_watcher.errors import EasError, Unauthorized, Unreachable, VersionRefused, Withheld, in_doubt
from eas_watcher.heartbeat import JITTER
from eas_watcher.machine.memory import Condition, Memory, Progress
from eas_watcher.machine.state import (
    AcknowledgeWipe,
    Action,
    Answered,
    Ended,
    Event,
    Failed,
    Full,
    Granted,
    NegotiatePolicy,
    Pause,
    Pinging,
    Policy,
    Record,
    Send,
    State,
    WipeAcknowledged,
    Woken,
)
from eas_watcher.machine.step import begin, refused_ago, step
from eas_watcher.names import MailboxId
from eas_watcher.ports import Transport
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.client import Answer, EasClient
from eas_watcher.runtime.context import WatchContext
from eas_watcher.runtime.relocation import Seeker, astray, look_for
from eas_watcher.server.breaker import concerns_server
from eas_watcher.server.capacity import Poll

log = logging.getLogger(__name__)
R = TypeVar("R")


class Runner:
    """Runs the watch of one mailbox until it ends or is cancelled."""

    __slots__ = (
        "_account",
        "_actions",
        "_bare",
        "_client",
        "_context",
        "_has_try",
        "_refused_ago",
        "_seeker",
        "_state",
    )

    def __init__(
        self,
        account: Account,
        transport: Transport,
        context: WatchContext,
        memory: Memory,
        policy: Policy,
        seeker: Seeker | None = None,
        bare: Transport | None = None,
    ) -> None:
        """Take the mailbox's account, the transport to its server, and what the watch starts from.

        `seeker` looks for the mailbox if it may have moved; None: it is where the operator says. `bare` is a transport
        to the server that shows no credential; None: `transport` shows none that the request does not have.
        """
        self._account = account
        self._bare = bare or transport
        self._context = context
        self._seeker = seeker
        self._refused_ago = refused_ago(memory, policy)
        self._client = EasClient(
            account,
            transport,
            context.admissions,
            policy.return_rate,
            url=memory.partnership.url,
            pings=context,
            admitted=self._spend_try,
        )
        self._has_try = False
        heartbeat = self._client.admission.path.start(policy.heartbeat)
        self._state, self._actions = begin(
            memory, replace(policy, heartbeat=heartbeat), context.random.uniform(0.0, JITTER)
        )

    async def run(self) -> None:
        """Watch until the watch ends for good; raises Fenced when another process owns the mailbox."""
        self._client.watch_begins(self._refused_ago)
        try:
            await self._watch()
        finally:
            self._client.watch_ends()

    async def _watch(self) -> None:
        cause: Event | None = None
        while not (isinstance(self._state, Ended) and not self._actions):
            event: Event | None = None
            for action in self._actions:
                event = await self._do(action, cause) or event
            if event is None:
                return
            before, (self._state, self._actions) = self._state, step(self._state, event)
            self._learn(before, event)
            trace(self._account.mailbox, before, event, self._state)
            cause = event

    async def _do(self, action: Action, cause: Event | None) -> Event | None:
        """Take one action that `cause` led to; return the event that the action leads to, if any."""
        match action:
            case Record(progress):
                await self._commit(explained(progress, cause))
                return None
            case Send(command):
                return await self._send(command)
            case NegotiatePolicy(acknowledgement, fallbacks):
                return await self._provide(acknowledgement, fallbacks)
            case AcknowledgeWipe(account_only):
                try:
                    await converse(acknowledge_wipe(account_only), self._ask)
                except EasError as error:
                    return Failed(error)
                return WipeAcknowledged()
            case Pause():  # pragma: no branch -- mypy proves that there is no other
                return Woken(await self._pause(action, cause))

    async def _commit(self, progress: Progress) -> None:
        await self._context.journal.commit(self._account.mailbox, progress)
        for change in progress.changes:
            self._context.stats.changes[change.cls] += change.count

    async def _send(self, command: Command[Any]) -> Event:
        asked = None
        if isinstance(command, Ping):
            turn = self._client.ask()
            if isinstance(turn, Poll):
                return Full(turn.seconds, self._capacity())
            longest = max(turn.longest or 0, self._state.watch.heartbeat.minimum)
            if turn.longest is not None and longest < command.heartbeat:
                asked, command = longest, replace(command, heartbeat=longest)
        try:
            answer = await self._exchange(command)
        except EasError as error:
            return await self._failed(error)
        return Answered(answer.reply, self._context.now(), answer.held, asked, self._capacity())

    def _capacity(self) -> str:
        """Return what the server's capacity means for its mailboxes, in words; empty: all are held."""
        return self._client.admission.capacity.describe(urlsplit(self._client.url).hostname or "")

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
        return (await self._exchange(command)).reply

    async def _exchange(self, command: Command[R]) -> Answer[R]:
        watch = self._state.watch
        try:
            return await self._client.send(command, watch.partnership, watch.counters.refusals)
        except EasError as error:
            if isinstance(error, Unauthorized) or in_doubt(error):
                self._has_try = False
            raise

    async def _spend_try(self) -> None:
        """Count a try before a credential is shown again after it was refused; raises Withheld if none is left.

        A try is used up by a refusal, and by a request whose answer was lost; any other answer leaves it to the next
        request.
        """
        tries = self._context.tries
        if tries is None or self._has_try or not self._state.watch.counters.refusals:
            return
        seconds = await tries.spend(self._account.mailbox)
        if seconds is not None:
            raise Withheld(seconds)
        self._has_try = True

    async def _failed(self, error: EasError) -> Failed:
        """Return the event of a failure, after a search for the mailbox elsewhere if it seems to have moved."""
        url, note = self._client.url, ""
        if self._seeker is not None and astray(self._state, error):
            refused = bool(self._state.watch.counters.refusals)
            error, note = await look_for(replace(self._account, url=url), self._seeker, error, refused=refused)
        return Failed(error, url, concerns_server(error), note)

    def _learn(self, before: State, event: Event) -> None:
        """Report to the admission what the end of a held Ping says about the path to the server."""
        match before, event:
            case Pinging(watch), Answered(PingReply(status=PingStatus.EXPIRED), _, held):
                self._client.admission.held(watch.heartbeat, held)
            case Pinging(), Failed(Unreachable(survived=survived)):
                self._client.admission.cut(self._state.watch.heartbeat, survived)
            case _:
                pass

    async def _pause(self, pause: Pause, cause: Event | None) -> float:
        """Record why and until when the watch waits, then wait: for a time, or, if the server is away, for admission.

        In the second case this returns at once: the next request waits with those of the server's other mailboxes.
        Returns how many seconds a sign of a doubtful server cut the wait short.
        """
        context, admission = self._context, self._client.admission
        seconds = (
            backoff.at_least(pause.seconds, context.random)
            if pause.seconds
            else backoff.delay(pause.failures, context.random)
        )
        progress = explained(pause.progress, cause)
        failure = cause if isinstance(cause, Failed) and cause.shared else None
        queues = progress.condition is not None and failure is not None and admission.state == "away"
        if queues:
            seconds = admission.expected_wait() or 0.0
        if progress.condition is not None:
            known = "" if failure is None else admission.describe(urlsplit(failure.url).hostname or "")
            condition = replace(progress.condition, retry_in=seconds, detail=known or progress.condition.detail)
            await self._commit(replace(progress, condition=condition))
            log.info(
                "watch waits",
                extra={"mailbox": self._account.mailbox, "reason": condition.reason, "detail": condition.detail},
            )
        if pause.polls:
            context.journal.pinged(self._account.mailbox, seconds)
        if pause.doubt is not None:
            look = partial(self._client.look, self._bare)
            return await admission.doubtful.wait(self._account.mailbox, seconds, pause.doubt, look)
        if pause.in_turn:
            await self._client.rest(seconds, context.timers)
        elif not queues:
            await context.timers.sleep(seconds)
        return 0.0


def explained(progress: Progress, cause: Event | None) -> Progress:
    """Return what a failure led to; its condition also says what a search for the mailbox elsewhere found."""
    match cause, progress.condition:
        case Failed(error, note=note), Condition(detail=detail) as condition if note and detail.startswith(str(error)):
            return replace(progress, condition=replace(condition, detail=f"{detail}; {note}"))
        case _:
            return progress


def trace(mailbox: MailboxId, before: State, event: Event, after: State) -> None:
    """Log one step at level DEBUG."""
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
        case Failed(error, note=note):
            return f"{type(error).__name__}: {error}{note and f'; {note}'}"
        case _:
            return type(event).__name__
