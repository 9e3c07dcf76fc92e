"""How dirty marks reach one provider: claim, send, settle, and try again later.

One dispatcher serves one platform, so that one provider's outage never delays the other. `schedule` says when it looks
for due marks, `outcomes` what a provider's answer means, `settlement` what the store changes for it. Marks that a
transaction of this process sets need no claim: the dispatcher offers its free slots to the transaction.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Final, NamedTuple

from relay.domain.clock import Clock
from relay.domain.errors import StoreUnavailable
from relay.domain.handover import Offer
from relay.domain.model import DuePush, Lane, Mark, Platform, RegistrationId
from relay.domain.outcome import Delivered, OutcomeKind, PushEnd
from relay.domain.pacing import AT_ONCE, Pacing
from relay.domain.ports.outbox import Capacities, OutboxStore, PushSender, Settlement
from relay.domain.ports.wakeups import Topic, Wakeups
from relay.domain.timeline import Timeline
from relay.domain.traces import Traces
from relay.push import backoff
from relay.push.breaker import ProviderBreakers, unbounded
from relay.push.outcomes import BROKEN, PARKED, OutcomeHandler
from relay.push.schedule import SLOW_POLL, ClaimSchedule, rest
from relay.push.stats import PushStats

log = logging.getLogger(__name__)

SLOTS: Final = 100
"""Pushes claimed and not settled at once; as many as one HTTP/2 connection carries well."""
LEASE: Final = 60.0
"""Seconds a claim lasts; longer than any sender's time limit."""
SWEEP: Final = 60.0
"""Seconds between two looks for marks that expired."""
DRAIN: Final = 5.0
"""Seconds that pushes under way may take when the dispatcher is stopped."""
STORE_CEILING: Final = 30.0
"""Seconds between two tries while the database is away, at most."""
GATHER: Final = 0.25
"""Seconds that an outcome waits for others, to be recorded with them; many do not wait. What is sent in that time is
sent again if the process is killed: a repeat collapses on the phone."""
MANY: Final = 12
"""Many is one part in so many of the slots: so many pushes at most are sent again, and the provider is never idle."""


class Ended(NamedTuple):
    """A push whose outcome is known."""

    settlement: Settlement
    wakes: int
    """How many wake-ups there had been when its mark was claimed."""


class Dispatcher:
    """Sends the due marks of one platform until cancelled."""

    def __init__(
        self,
        store: OutboxStore,
        platform: Platform,
        sender: PushSender,
        wakeups: Wakeups,
        clock: Clock,
        random: Random,
        owner: str,
        *,
        slots: int = SLOTS,
        lease: float = LEASE,
        capacities: Capacities = unbounded,
        pacing: Pacing = AT_ONCE,
        timeline: Timeline | None = None,
        traces: Traces | None = None,
    ) -> None:
        """Send the marks of `store` through `sender`; `owner` names this process among all that share the store.

        `capacities` lists the lanes where the sender takes few pushes or none, so that nothing is claimed in vain.
        `pacing` is the store's: what it would delay is not taken over either. The answers go into the `timeline`,
        and into `traces` if there are any.
        """
        self.stats = PushStats()
        self.platform = platform
        self._store = store
        self._sender = sender
        self._waiter = wakeups.waiter(Topic.outbox(platform))
        self._clock = clock
        self._random = random
        self._owner = f"{owner}/{platform.value}"
        self._name = f"{platform} push"
        """The name of each task that sends."""
        self.slots = slots
        """Pushes claimed and not settled at once, at most."""
        self._lease = timedelta(seconds=lease)
        self.pacing = pacing
        """What the store delays, which is not taken over either."""
        self._timeline = timeline or Timeline.off()
        self._traces = traces
        self._breakers = ProviderBreakers(slots, random, capacities)
        self._outcomes = OutcomeHandler(
            platform, self._breakers, self.stats, clock, random, lambda: asyncio.get_running_loop().time()
        )
        self._settlements = SettlementWriter(store, platform, clock, random, self._settled, max(1, slots // MANY))
        self._schedule = ClaimSchedule()
        self._look = asyncio.Event()
        """Set when the dispatcher must look for due marks at once."""
        self._sends: set[asyncio.Task[PushEnd]] = set()
        self._held = 0
        """Marks claimed and not settled."""
        self._reserved = 0
        """Slots that a claim under way, or a transaction that sets marks, may fill."""
        self._serving = False
        """Whether marks may be taken over."""

    def hurry(self) -> None:
        """Try again now what waits: something changed that may mend it, e.g. a key file."""
        self._breakers.hurry(asyncio.get_running_loop().time())
        self._look.set()

    async def run(self) -> None:
        """Send until cancelled; pushes under way then get a few seconds to end, and no claim is left behind."""
        try:
            await self._release()
            self._serving = True
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(), name=f"{self.platform} outbox listener")
                tasks.create_task(self._claim_forever(), name=f"{self.platform} claims")
                tasks.create_task(self._settlements.run(), name=f"{self.platform} settlements")
                tasks.create_task(self._expire_forever(), name=f"{self.platform} expiry")
        finally:
            self._serving = False
            await self._drain()

    # --- taking over from transactions of this process

    def offer(self) -> Offer | None:
        """Reserve the free slots for a transaction that sets marks, until `take`; None: there are none.

        While marks may wait that were set before, those come first.
        """
        free = self._free
        if not self._serving or self._schedule.full or free <= 0:
            return None
        self._reserved += free
        shut = self._breakers.plan(asyncio.get_running_loop().time()).restricted
        return Offer(self._owner, self._clock() + self._lease, free, shut, self.pacing)

    def take(self, offer: Offer, pushes: Sequence[DuePush]) -> None:
        """Start to send the pushes whose marks are born claimed under an offer; free its other slots.

        A dispatcher that was stopped meanwhile sends nothing more: it ends all its claims, or they run out.
        """
        self._reserved -= offer.slots
        if not self._serving:
            return
        for push in pushes:
            self._start(push, self._schedule.wakes)
        if self._schedule.full:
            self._look.set()

    @property
    def _free(self) -> int:
        return self.slots - self._held - self._reserved

    # --- claiming

    async def _listen(self) -> None:
        while True:
            await self._waiter.wait(SLOW_POLL)
            self._schedule.wake()
            self._look.set()

    async def _claim_forever(self) -> None:
        failures = 0
        while True:
            self._look.clear()
            try:
                seconds = await self._claim()
            except StoreUnavailable:
                failures += 1
                if failures == 1:
                    log.warning("pushes wait: the database is away", extra={"platform": self.platform})
                await asyncio.sleep(min(STORE_CEILING, backoff.retry(failures, self._random)))
                continue
            failures = 0
            try:
                async with asyncio.timeout(seconds):
                    await self._look.wait()
            except TimeoutError:
                continue

    async def _claim(self) -> float:
        """Claim marks for the free slots and start to send them; return after how many seconds to look again."""
        loop, now = asyncio.get_running_loop(), self._clock()
        began_at = loop.time()
        free, claimed = self._free, 0
        plan = self._breakers.plan(began_at)
        self._schedule.begin_look()
        for lane, capacity in plan.limited:
            claimed += await self._take(min(capacity, free - claimed), plan.without(lane), lane)
        # A transaction may have reserved some of the slots meanwhile.
        left = min(free - claimed, self._free)
        found = await self._take(left, plan.restricted)
        claimed += found
        self._schedule.full = found >= left
        if self._schedule.full:
            return SLOW_POLL
        plan = self._breakers.plan(loop.time())
        asked_at = loop.time()
        if self._schedule.must_ask(now, asked_at, plan.blocked):
            self._schedule.answer(await self._store.next_due(self.platform, plan.blocked), asked_at, plan.blocked)
        if plan.blocked:
            await asyncio.sleep(rest(loop.time() - began_at))
        return self._schedule.next_look(self._clock(), loop.time(), claimed, plan.next_at)

    async def _take(self, limit: int, without: frozenset[Lane], only: Lane | None = None) -> int:
        """Claim up to `limit` marks and start to send them; return how many."""
        if limit <= 0:
            return 0
        now, wakes = self._clock(), self._schedule.wakes
        until = now + self._lease
        self._reserved += limit
        try:
            claims = await self._store.claim(self.platform, limit, self._owner, until, now, only=only, without=without)
        finally:
            self._reserved -= limit
        self._schedule.learn(claims)
        for push in claims.pushes:
            # After a long absence of the database claims have run out whose pushes ended, but could not be settled.
            if not self._settlements.knows(push):
                self._start(push, wakes)
        return len(claims.pushes)

    async def _expire_forever(self) -> None:
        """Drop what is too old for a push, now and then."""
        while True:
            try:
                dropped = await self._store.expire(self.platform, self._clock())
            except StoreUnavailable:
                dropped = 0  # the claims have logged it
            if dropped:
                self.stats.outcomes[OutcomeKind.EXPIRED] += dropped
                log.warning("pushes expired", extra={"platform": self.platform, "pushes": dropped})
            await asyncio.sleep(SWEEP)

    # --- sending

    def _start(self, push: DuePush, wakes: int) -> None:
        loop = asyncio.get_running_loop()
        self._held += 1
        self._breakers.began(push, loop.time())
        self.stats.in_flight += 1
        task = loop.create_task(self._sender.send(push), name=self._name)
        self._sends.add(task)
        claimed = None if self._traces is None else self._traces.now()
        task.add_done_callback(partial(self._sent, push, wakes, claimed))

    def _sent(self, push: DuePush, wakes: int, claimed: datetime | None, task: asyncio.Task[PushEnd]) -> None:
        self._sends.discard(task)
        self.stats.in_flight -= 1
        self._breakers.ended(push)
        if task.cancelled():
            return  # only when the dispatcher is stopped: it releases the claim
        error = task.exception()
        if error is None:
            outcome = task.result()
        else:
            # A sender that raises is a bug of one adapter, met with one push, and must not stop all the others.
            fields = {"platform": self.platform, "registration": push.registration_id, "mark": push.mark}
            log.error("push sender broke", extra=fields, exc_info=error)
            outcome = BROKEN
        self._settlements.add(Ended(self._outcomes.handle(push, outcome), wakes))
        self._timeline.pushed(push, outcome)
        if self._traces is not None and claimed is not None:
            self._traces.pushed(push, claimed, outcome)
        if isinstance(outcome, Delivered):
            waited = (self._clock() - push.first_at).total_seconds()
            self.stats.on_accepted(self.platform, max(0.0, waited))

    def _settled(self, group: Sequence[Ended]) -> None:
        """Free the slots of pushes whose outcomes are recorded."""
        self._held -= len(group)
        retries = [each.settlement.next_try_at for each in group if each.settlement.next_try_at is not None]
        plan = self._breakers.plan(asyncio.get_running_loop().time())
        wakes = [each.wakes for each in group]
        if self._schedule.settle(retries, wakes, plan.blocked, limited=bool(plan.limited)):
            self._look.set()

    # --- stopping

    async def _drain(self) -> None:
        if self._sends:
            _, late = await asyncio.wait(self._sends, timeout=DRAIN)
            await _cancel(list(late))
        try:
            await self._settlements.flush()
        except StoreUnavailable:
            log.warning("outcomes lost, their pushes repeat: the database is away", extra={"platform": self.platform})
        await self._release()

    async def _release(self) -> None:
        try:
            await self._store.release(self._owner)
        except StoreUnavailable:
            log.warning("claims left to run out: the database is away", extra={"platform": self.platform})


class Handovers:
    """The offers of all dispatchers of a process; a process that does not push offers nothing."""

    def __init__(self) -> None:
        self._dispatchers: dict[Platform, Dispatcher] = {}

    def add(self, dispatcher: Dispatcher) -> None:
        """Offer what this dispatcher offers, too."""
        self._dispatchers[dispatcher.platform] = dispatcher

    def offer(self) -> Mapping[Platform, Offer]:
        """Reserve free slots for one transaction that sets marks."""
        offers = {platform: dispatcher.offer() for platform, dispatcher in self._dispatchers.items()}
        return {platform: offer for platform, offer in offers.items() if offer is not None}

    def take(self, offers: Mapping[Platform, Offer], pushes: Sequence[DuePush]) -> None:
        """Send the pushes of marks that were born claimed, now that they are durable, and free the other slots."""
        for platform, offer in offers.items():
            self._dispatchers[platform].take(offer, [push for push in pushes if push.platform is platform])


class SettlementWriter:
    """Writes the outcomes of one platform to the store: in groups, kept while the database is away.

    Outcomes wait a moment for others that share their transaction. One outcome that cannot be recorded does not stop
    the others of its group.
    """

    def __init__(
        self,
        store: OutboxStore,
        platform: Platform,
        clock: Clock,
        random: Random,
        settled: Callable[[Sequence[Ended]], None],
        many: int = 1,
    ) -> None:
        """Write to `store`; `settled` is called with each group that is written. So many outcomes do not wait."""
        self._store = store
        self._platform = platform
        self._clock = clock
        self._random = random
        self._settled = settled
        self._many = many
        self._ended: list[Ended] = []
        self._known: dict[tuple[RegistrationId, Mark], DuePush] = {}
        """The pushes of these outcomes; of two with one mark the later one."""
        self._due = asyncio.Event()
        """Set when outcomes must be written."""
        self._timer: asyncio.TimerHandle | None = None
        self._spoilt: set[tuple[RegistrationId, Mark]] = set()
        """Marks that can neither be settled nor parked."""

    def add(self, ended: Ended) -> None:
        """Write an outcome with the next group."""
        push = ended.settlement.push
        self._ended.append(ended)
        self._known[push.registration_id, push.mark] = push
        self._plan()

    def knows(self, push: DuePush) -> bool:
        """Return True if a claimed push must not be sent: it has ended already, or its end cannot be recorded."""
        key = push.registration_id, push.mark
        return key in self._spoilt or self._known.get(key) == push

    async def run(self) -> None:
        """Write in groups: outcomes that come during one transaction, or soon after one another, share the next."""
        failures = 0
        while True:
            await self._due.wait()
            try:
                await self.flush()
            except StoreUnavailable:
                failures += 1
                if failures == 1:
                    log.warning("outcomes wait: the database is away", extra={"platform": self._platform})
                await asyncio.sleep(min(STORE_CEILING, backoff.retry(failures, self._random)))
            else:
                failures = 0

    async def flush(self) -> None:
        """Write all outcomes; raise StoreUnavailable and keep them while the database is away."""
        group = list(self._ended)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if group:
            await self._record([ended.settlement for ended in group])
            del self._ended[: len(group)]
            self._known = {
                (e.settlement.push.registration_id, e.settlement.push.mark): e.settlement.push for e in self._ended
            }
        self._due.clear()
        self._plan()
        self._settled(group)

    def _plan(self) -> None:
        """Write now if many outcomes wait; else when the time of the first one comes."""
        if not self._ended or self._due.is_set():
            return
        if len(self._ended) >= self._many:
            self._due.set()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._due.set()

    async def _record(self, settlements: Sequence[Settlement]) -> None:
        error = await self._failure(self._store.settle(settlements, self._clock()))
        if error is None:
            return
        if len(settlements) > 1:
            for settlement in settlements:
                await self._record([settlement])
            return
        push = settlements[0].push
        fields = {"platform": self._platform, "registration": push.registration_id, "mark": push.mark}
        log.error("push set aside", extra=fields | {"reason": "its outcome cannot be recorded"}, exc_info=error)
        reason = f"its outcome cannot be recorded: {type(error).__name__}"
        until = self._clock() + timedelta(seconds=PARKED)
        if await self._failure(self._store.park(push, reason, until)) is not None:
            # Its claim runs out and the mark is claimed again, but this process never sends it twice.
            self._spoilt.add((push.registration_id, push.mark))

    async def _failure(self, doing: Awaitable[None]) -> Exception | None:
        """Await a call of the store and return what it raised; raise StoreUnavailable, which concerns every push."""
        try:
            await doing
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, it sets one push aside and no others
            return error
        return None


async def _cancel(tasks: Sequence[asyncio.Task[PushEnd]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
