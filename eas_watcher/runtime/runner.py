"""The runner of one watch: it takes the actions of the step function and gives back the events they lead to.

It is a task only while there is something to do. A held Ping and a pause are state: the transport or the timers call
the runner back, and that starts the next task.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

from eas_watcher import backoff
from eas_watcher.auth.credential import Credential
from eas_watcher.commands.flow import converse
from eas_watcher.commands.ping import Ping, PingReply, PingStatus
from eas_watcher.commands.provision import Acknowledgement, acknowledge_wipe, negotiate
from eas_watcher.commands.request import Command, HttpReply
from eas_watcher.errors import EasError, Unauthorized, Unreachable, VersionRefused, Withheld, in_doubt
from eas_watcher.heartbeat import JITTER
from eas_watcher.machine.memory import Condition, Memory, Progress
from eas_watcher.machine.ping import ping_of
from eas_watcher.machine.state import (
    AcknowledgeWipe,
    Action,
    Answered,
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
    Watch,
    WipeAcknowledged,
    Woken,
)
from eas_watcher.machine.step import begin, refused_ago, step
from eas_watcher.names import MailboxId
from eas_watcher.ports import HeldRequest, Transport
from eas_watcher.runtime.account import Account, host_of
from eas_watcher.runtime.client import Admitted, Answer, EasClient
from eas_watcher.runtime.context import WatchContext
from eas_watcher.runtime.relocation import Seeker, astray, look_for
from eas_watcher.runtime.timers import Wait
from eas_watcher.server.breaker import concerns_server
from eas_watcher.server.capacity import Poll
from eas_watcher.server.starts import Start
from eas_watcher.values import replace

log = logging.getLogger(__name__)
R = TypeVar("R")

OnEnd: TypeAlias = "Callable[[MailboxId, BaseException | None], None]"
"""Called when a watch has ended: with its mailbox, and what broke it; None: nothing did, or it was stopped."""


class Runner:
    """The watch of one mailbox.

    It waits for its start, the task that acts for it, the answer to a held Ping, or the end of a pause. It is itself
    what the transport calls with the answer.
    """

    __slots__ = (
        "_actions",
        "_asked",
        "_bare",
        "_client",
        "_closes",
        "_context",
        "_has_try",
        "_on_end",
        "_refused_ago",
        "_seeker",
        "_state",
        "_waits_for",
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
        self._bare = bare or transport
        self._context = context
        self._seeker = seeker
        self._refused_ago = refused_ago(memory, policy)
        self._client = EasClient(
            account, transport, context.admissions, policy.return_rate, url=memory.partnership.url, pings=context
        )
        self._has_try = False
        self._asked: int | None = None
        """Seconds that the held Ping asked for, if that is less than the watch wanted."""
        self._waits_for: asyncio.Task[None] | HeldRequest | Wait | Start | None = None
        """None: the watch has not begun, or has ended."""
        self._closes = False
        """True if that is the task that gives a held Ping up."""
        self._on_end: OnEnd | None = None
        heartbeat = self._client.admission.path.start(policy.heartbeat)
        self._actions: Sequence[Action]
        sharing = context.sharing
        jitter = sharing.jitter(context.random.uniform(0.0, JITTER))
        self._state, self._actions = begin(memory, sharing.policy(policy, heartbeat), jitter)

    @property
    def credential(self) -> Credential:
        """What the watch shows."""
        return self._client.account.credential

    @property
    def url(self) -> str:
        """Where the mailbox is."""
        return self._client.url

    def follow(self, policy: Policy) -> None:
        """Speak to the server as another policy says from the next step on; the heartbeat in use stays.

        A Ping that is held stays held.
        """
        watch = self._state.watch
        taken = self._context.sharing.policy(policy, watch.policy.heartbeat)
        if taken != watch.policy:
            self._state = replace(self._state, watch=replace(watch, policy=taken))

    def start(self, on_end: OnEnd) -> None:
        """Begin to watch, until the watch ends for good or is stopped.

        What breaks it is Fenced when another process owns the mailbox, else a fault of the relay.
        """
        self._on_end = on_end
        self._client.watch_begins(self._refused_ago)
        start = self._client.admission.starts.begin(self._begin)
        if start is not None:
            self._waits_for = start

    def _begin(self) -> None:
        """Take the first actions."""
        first, self._actions = self._actions, ()
        self._become(self._act(first, None))

    async def stop(self) -> None:
        """Stop the watch; return when no request of the mailbox is held."""
        while (closing := self.cancel()) is not None:
            await asyncio.wait({closing})

    def cancel(self) -> "asyncio.Task[None] | None":
        """Begin to stop the watch; return a task after whose end to look again, None when the watch has ended."""
        match self._waits_for:
            case None:
                return None
            case asyncio.Task() as task:
                if not self._closes:
                    task.cancel()
                return task
            case Wait() | Start() as pause:
                pause.cancel()
                self._end(None)
                return None
            case held:
                self._closes = True
                return self._become(held.give_up())

    def _become(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Wait for a task that does some work."""
        task = asyncio.get_running_loop().create_task(work, name=f"watch {self._client.mailbox}")
        self._waits_for = task
        task.add_done_callback(self._worked)
        return task

    def _worked(self, task: "asyncio.Task[None]") -> None:
        """End the watch, unless the task left it waiting for something else."""
        if self._waits_for is task:
            self._end(None if task.cancelled() else task.exception())

    def _end(self, error: BaseException | None) -> None:
        self._waits_for = None
        self._client.watch_ends()
        if self._on_end is not None:
            self._on_end(self._client.mailbox, error)

    def __call__(self, came: HttpReply | Exception) -> None:
        """Go on after a held Ping, with what came of it; one that is given up at this moment is left alone."""
        if not isinstance(self._waits_for, asyncio.Task):
            self._become(self._go_on(came))

    def _woken(self) -> None:
        """Go on after a pause."""
        self._client.polls_no_more()
        self._become(self._go_on())

    async def _go_on(self, came: HttpReply | Exception | None = None) -> None:
        """Go on with what came of a held Ping; None: a pause is over."""
        event = Woken() if came is None else await self._read_ping(came)
        del came  # it need not be kept while the next request is made
        await self._act(self._step(event), event)

    async def _read_ping(self, came: HttpReply | Exception) -> Event:
        try:
            answer = await self._client.answered(self._sent, self._state.watch.partnership, came)
        except EasError as error:
            del came  # no cycle of references with the error's traceback
            self._note_try(error)
            return await self._failed(error, self._client.held)
        return self._answered(answer, self._asked)

    def _sent(self) -> Ping:
        """Return the Ping of this state as it was sent."""
        watch = self._state.watch
        ping = ping_of(watch, watch.watched)
        return ping if self._asked is None else replace(ping, heartbeat=self._asked)

    async def _act(self, actions: Sequence[Action], cause: Event | None) -> None:
        """Take actions, and those that follow, until a Ping is held, a pause lasts, or the watch has ended."""
        while actions:
            event: Event | None = None
            for action in actions:
                event = await self._do(action, cause) or event
            if event is None:
                return
            actions, cause = self._step(event), event

    def _step(self, event: Event) -> Sequence[Action]:
        before, (self._state, actions) = self._state, step(self._state, event)
        if isinstance(before, Pinging):
            self._learn(before.watch, event)
        trace(self._client.mailbox, before, event, self._state)
        return actions

    def _do(self, action: Action, cause: Event | None) -> Coroutine[Any, Any, Event | None]:
        """Take one action that `cause` led to; return the event that it leads to, None if that comes later, if any."""
        match action:
            case Record(progress):
                return self._commit(explained(progress, cause))
            case Send(Ping() as ping):
                return self._hold(ping)
            case Send(command):
                return self._send(command)
            case NegotiatePolicy(acknowledgement, fallbacks):
                return self._provide(acknowledgement, fallbacks)
            case AcknowledgeWipe(account_only):
                return self._acknowledge_wipe(account_only=account_only)
            case Pause():  # pragma: no branch -- mypy proves that there is no other
                return self._pause(action, cause)

    async def _commit(self, progress: Progress) -> None:
        await self._context.journal.commit(self._client.mailbox, progress)
        condition = progress.condition
        if condition is not None and condition.state.ended:
            fields = {"mailbox": self._client.mailbox, "state": condition.state.value, "reason": condition.reason}
            log.warning("watch ended", extra=fields)
        for change in progress.changes:
            self._context.stats.changes[change.cls] += change.count

    async def _send(self, command: Command[Any]) -> Event:
        try:
            answer = await self._exchange(command)
        except EasError as error:
            return await self._failed(error)
        return self._answered(answer)

    async def _hold(self, ping: Ping) -> Event | None:
        """Send a Ping and leave it to the transport; return an event only if it is not held."""
        turn = self._client.ask()
        if isinstance(turn, Poll):
            return Full(turn.seconds, self._capacity())
        watch = self._state.watch
        longest = max(turn.longest or 0, watch.heartbeat.minimum)
        self._asked = longest if turn.longest is not None and longest < ping.heartbeat else None
        if self._asked is not None:
            ping = replace(ping, heartbeat=self._asked)
        refusals = watch.counters.refusals
        try:
            held = await self._client.hold(ping, watch.partnership, refusals, self, self._try_spender())
        except EasError as error:
            self._note_try(error)
            return await self._failed(error)
        # From here to the end of the task nothing may wait: the answer may come at any time.
        self._waits_for = held
        self._state = Pinging(self._context.sharing.rest(self._state.watch))
        return None

    def _answered(self, answer: Answer[Any], asked: int | None = None) -> Answered:
        return Answered(answer.reply, self._context.now(), answer.held, asked, self._capacity())

    def _capacity(self) -> str:
        """Return what the server's capacity means for its mailboxes, in words; empty: all are held."""
        capacity = self._client.admission.capacity
        return capacity.describe(host_of(self._client.url)) if capacity.crowded else ""

    async def _provide(self, acknowledgement: Acknowledgement, fallbacks: tuple[Acknowledgement, ...] = ()) -> Event:
        version = self._state.watch.partnership.version
        if version is None:
            return Failed(VersionRefused("Provision needs a protocol version"))
        try:
            grant = await converse(negotiate(version, acknowledgement, fallbacks), self._ask)
        except EasError as error:
            return await self._failed(error)
        return Granted(grant.policy_key, grant.acknowledged)

    async def _acknowledge_wipe(self, *, account_only: bool) -> Event:
        try:
            await converse(acknowledge_wipe(account_only), self._ask)
        except EasError as error:
            return Failed(error)
        return WipeAcknowledged()

    async def _ask(self, command: Command[R]) -> R:
        return (await self._exchange(command)).reply

    async def _exchange(self, command: Command[R]) -> Answer[R]:
        watch = self._state.watch
        try:
            return await self._client.send(command, watch.partnership, watch.counters.refusals, self._try_spender())
        except EasError as error:
            self._note_try(error)
            raise

    def _note_try(self, error: EasError) -> None:
        """Note that a failure used the try up: a refusal, or a lost answer, which may have been one."""
        if isinstance(error, Unauthorized) or in_doubt(error):
            self._has_try = False

    def _try_spender(self) -> Admitted | None:
        """Return what counts a try before a credential is shown again after it was refused; None: no try is needed."""
        needed = self._context.tries is not None and not self._has_try and self._state.watch.counters.refusals
        return self._spend_try if needed else None

    async def _spend_try(self) -> None:
        """Count a try; raises Withheld if none is left.

        A try is used up by a refusal, and by a request whose answer was lost; any other answer leaves it to the next
        request.
        """
        seconds = None if self._context.tries is None else await self._context.tries.spend(self._client.mailbox)
        if seconds is not None:
            raise Withheld(seconds)
        self._has_try = True

    async def _failed(self, error: EasError, held: float = 0.0) -> Failed:
        """Return the event of a failure, after a search for the mailbox elsewhere if it seems to have moved.

        `held`: how many seconds a Ping was held before its answer.
        """
        url, note = self._client.url, ""
        if self._seeker is not None and astray(self._state, error):
            refused = bool(self._state.watch.counters.refusals)
            error, note = await look_for(self._client.account, self._seeker, error, refused=refused)
        return Failed(error, url, concerns_server(error), note, held)

    def _learn(self, before: Watch, event: Event) -> None:
        """Report to the admission what the end of a Ping that a watch held says about the path to the server."""
        match event:
            case Answered(PingReply(status=PingStatus.EXPIRED), _, held):
                self._client.admission.held(before.heartbeat, held)
            case Failed(Unreachable(survived=survived, connection=shared)):
                self._client.admission.cut(self._state.watch.heartbeat, 0.0 if shared else survived)
            case _:
                pass

    async def _pause(self, pause: Pause, cause: Event | None) -> Woken | None:
        """Record why and until when the watch waits, then wait: for a time, or, if the server is away, for admission.

        In the second case this returns at once: the next request waits with those of the server's other mailboxes.
        None: the timers wake the watch. A doubtful server may cut the wait short.
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
            known = "" if failure is None else admission.describe(host_of(failure.url))
            condition = replace(progress.condition, retry_in=seconds, detail=known or progress.condition.detail)
            await self._commit(replace(progress, condition=condition))
            log.info(
                "watch waits",
                extra={"mailbox": self._client.mailbox, "reason": condition.reason, "detail": condition.detail},
            )
        if pause.polls:
            context.journal.pinged(self._client.mailbox, seconds)
        if pause.doubt is not None:
            look = partial(self._client.look, self._bare)
            return Woken(await admission.doubtful.wait(self._client.mailbox, seconds, pause.doubt, look))
        if queues and not pause.in_turn:
            return Woken()
        wait = context.timers.begin(seconds, self._woken)
        self._waits_for = wait
        if pause.in_turn:
            self._client.polls(wait.hasten)
        return None


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
