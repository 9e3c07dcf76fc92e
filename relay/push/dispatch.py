"""Own the way of dirty marks to one provider: claim, send, settle, and try again later.

One dispatcher serves one platform, so that one provider's outage never delays the other.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Final

from relay.domain.clock import Clock
from relay.domain.errors import StoreUnavailable
from relay.domain.model import DuePush, Lane, Platform
from relay.domain.outcome import Delivered, Outcome
from relay.domain.ports.outbox import Capacities, OutboxStore, PushSender
from relay.domain.ports.wakeups import Topic, Wakeups
from relay.push import backoff
from relay.push.gates import Gates, Plan, unbounded
from relay.push.outcomes import BROKEN, OutcomeHandler
from relay.push.settlements import STORE_CEILING, Ended, SettlementWriter
from relay.push.stats import PushStats

log = logging.getLogger(__name__)

SLOTS: Final = 100
"""Pushes claimed and not settled at once; what one HTTP/2 connection carries well."""
LEASE: Final = 60.0
"""Seconds a claim lasts; longer than any sender's time limit."""
SLOW_POLL: Final = 30.0
"""Seconds; the safety net under lost wake-ups and other processes' claims that ran out."""
SHORTEST: Final = 0.05
"""Seconds between two looks while a mark is due but not to be had, e.g. locked by another process; then longer."""
CALM: Final = 4.0
"""While a lane is shut a look goes over all that waits there: it is followed by so many times its length of rest."""
LONGEST_SHORT: Final = 1.6
"""Seconds between such looks in the end."""
SWEEP: Final = 60.0
"""Seconds between two looks for marks that expired."""
DRAIN: Final = 5.0
"""Seconds that pushes under way may take when the dispatcher is stopped."""


class Dispatcher:
    """Send the due marks of one platform until cancelled."""

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
    ) -> None:
        """Take whose marks to send and through what; `owner` names this process among all that share the store.

        `capacities` tells where the sender takes few pushes or none, so that nothing is claimed in vain.
        """
        self.stats = PushStats()
        self._store = store
        self._platform = platform
        self._sender = sender
        self._waiter = wakeups.waiter(Topic.outbox(platform))
        self._clock = clock
        self._random = random
        self._owner = f"{owner}/{platform.value}"
        self._slots = slots
        self._lease = timedelta(seconds=lease)
        self._gates = Gates(slots, random, capacities)
        self._judge = OutcomeHandler(
            platform, self._gates, self.stats, clock, random, lambda: asyncio.get_running_loop().time()
        )
        self._settler = SettlementWriter(store, platform, clock, random, self._settled)
        self._sends: set[asyncio.Task[Outcome]] = set()
        self._held = 0
        self._look = asyncio.Event()
        self._wakes = 0
        self._backlog = False
        self._fruitless = 0
        self._unfinished = False
        self._due: datetime | None = None
        self._due_asked_at: float | None = None
        self._due_without: frozenset[Lane] = frozenset()

    def hurry(self) -> None:
        """Try what rests again now: something changed that may mend it, e.g. a key file."""
        self._gates.hurry(asyncio.get_running_loop().time())
        self._look.set()

    async def run(self) -> None:
        """Send until cancelled; pushes under way then get a few seconds to end, and no claim is left behind."""
        try:
            await self._release()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(), name=f"{self._platform} outbox listener")
                tasks.create_task(self._claim_forever(), name=f"{self._platform} claims")
                tasks.create_task(self._settler.run(), name=f"{self._platform} settlements")
                tasks.create_task(self._expire_forever(), name=f"{self._platform} expiry")
        finally:
            await self._drain()

    # --- claiming

    async def _listen(self) -> None:
        while True:
            await self._waiter.wait(SLOW_POLL)
            self._wakes += 1
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
                    log.warning("pushes wait: the database is away", extra={"platform": self._platform})
                await asyncio.sleep(min(STORE_CEILING, backoff.retry(failures, self._random)))
                continue
            failures = 0
            try:
                async with asyncio.timeout(seconds):
                    await self._look.wait()
            except TimeoutError:
                continue

    async def _claim(self) -> float:
        """Claim what there is room for and start to send it; return after how many seconds to look again."""
        free = self._slots - self._held
        if free == 0:
            self._backlog = True
            return SLOW_POLL
        loop, now = asyncio.get_running_loop(), self._clock()
        began_at = loop.time()
        plan = self._gates.plan(loop.time())
        self._unfinished = False
        claimed = 0
        for lane, capacity in plan.trials:
            if claimed < free:
                claimed += await self._take(min(capacity, free - claimed), plan.without(lane), lane)
        claimed += await self._take(free - claimed, plan.special)
        self._backlog = claimed == free
        if self._backlog:
            return SLOW_POLL
        plan = self._gates.plan(loop.time())
        if not self._unfinished:
            await self._ask_due(now, plan)
        if plan.shut:
            await asyncio.sleep(min(LONGEST_SHORT, CALM * (loop.time() - began_at)))
        if self._unfinished:
            self._fruitless = 0
            return 0.0  # A mark is put off once, so this ends; looked at late, it would leave late.
        waits = [SLOW_POLL]
        if plan.opens_at is not None:
            waits.append(max(0.0, plan.opens_at - loop.time()))
        if self._due is not None:
            left = (self._due - self._clock()).total_seconds()
            # What is due and was not to be had is looked for less and less often.
            self._fruitless = 0 if left > 0 or claimed else self._fruitless + 1
            waits.append(left if left > 0 else min(LONGEST_SHORT, SHORTEST * 2.0 ** min(self._fruitless, 10)))
        return min(waits)

    async def _take(self, limit: int, without: frozenset[Lane], only: Lane | None = None) -> int:
        """Claim up to `limit` marks and start to send them; return how many."""
        if limit <= 0:
            return 0
        now, wakes = self._clock(), self._wakes
        until = now + self._lease
        claims = await self._store.claim(self._platform, limit, self._owner, until, now, only=only, without=without)
        if claims.delayed_until is not None:
            self._expect([claims.delayed_until])
        self._unfinished = self._unfinished or claims.unfinished
        for push in claims.pushes:
            # After a long absence of the database claims have run out whose pushes ended, but could not be settled.
            if not self._settler.knows(push):
                self._start(push, wakes)
        return len(claims.pushes)

    def _expect(self, moments: Sequence[datetime]) -> None:
        """Know of marks that fall due, without asking."""
        self._due = min(moments if self._due is None else [self._due, *moments])

    async def _ask_due(self, now: datetime, plan: Plan) -> None:
        """Learn when the next mark falls due, if what we know is past or old; our own retries we know."""
        asked_at = asyncio.get_running_loop().time()
        old = self._due_asked_at is None or asked_at - self._due_asked_at >= SLOW_POLL
        if old or plan.shut != self._due_without or (self._due is not None and self._due <= now):
            self._due = await self._store.next_due(self._platform, plan.shut)
            self._due_asked_at, self._due_without = asked_at, plan.shut

    async def _expire_forever(self) -> None:
        """Drop what is too old for a push, now and then."""
        while True:
            try:
                dropped = await self._store.expire(self._platform, self._clock())
            except StoreUnavailable:
                dropped = 0  # claims have said so
            if dropped:
                self.stats.outcomes["expired"] += dropped
                log.warning("pushes expired", extra={"platform": self._platform, "pushes": dropped})
            await asyncio.sleep(SWEEP)

    # --- sending

    def _start(self, push: DuePush, wakes: int) -> None:
        self._held += 1
        self._gates.began(push)
        self.stats.in_flight += 1
        task = asyncio.get_running_loop().create_task(self._sender.send(push), name=f"{self._platform} push")
        self._sends.add(task)
        task.add_done_callback(partial(self._sent, push, wakes))

    def _sent(self, push: DuePush, wakes: int, task: asyncio.Task[Outcome]) -> None:
        self._sends.discard(task)
        self.stats.in_flight -= 1
        self._gates.ended(push)
        if task.cancelled():
            return  # only when we stop: its claim is released
        error = task.exception()
        if error is None:
            outcome = task.result()
        else:
            # A sender that raises is a bug of one adapter, met with one push, and must not stop all the others.
            fields = {"platform": self._platform, "registration": push.registration_id, "mark": push.mark}
            log.error("push sender broke", extra=fields, exc_info=error)
            outcome = BROKEN
        self._settler.add(self._judge.judge(push, outcome), wakes)
        if isinstance(outcome, Delivered):
            self.stats.on_accepted(push)

    def _settled(self, group: Sequence[Ended]) -> None:
        """Hear that outcomes are recorded: their places are free, and some of their marks are due again."""
        self._held -= len(group)
        retries = [settlement.next_try_at for settlement, _ in group if settlement.next_try_at is not None]
        if retries:
            self._expect(retries)
        # A mark that grew while its push was under way is due again soon, and its wake-up is long past.
        grown = any(wakes != self._wakes for _, wakes in group)
        if grown:
            self._due_asked_at = None
        plan = self._gates.plan(asyncio.get_running_loop().time())
        if self._backlog or retries or grown or plan.trials or plan.shut != self._due_without:
            self._look.set()

    # --- stopping

    async def _drain(self) -> None:
        if self._sends:
            _, late = await asyncio.wait(self._sends, timeout=DRAIN)
            await _cancel(list(late))
        try:
            await self._settler.flush()
        except StoreUnavailable:
            log.warning("outcomes lost, their pushes repeat: the database is away", extra={"platform": self._platform})
        await self._release()

    async def _release(self) -> None:
        try:
            await self._store.release(self._owner)
        except StoreUnavailable:
            log.warning("claims left to run out: the database is away", extra={"platform": self._platform})


async def _cancel(tasks: Sequence[asyncio.Task[Outcome]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
