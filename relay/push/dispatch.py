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

from relay.errors import StoreUnavailable
from relay.model import DuePush, Platform
from relay.ports import Clock, OutboxStore, PushSender, Settlement, Topic, Wakeups
from relay.push import backoff
from relay.push.channels import Channels
from relay.push.outcome import Delivered, Outcome, Refused, RetryLater, TokenGone
from relay.push.stats import ChannelFault, PushStats, outcome_name

log = logging.getLogger(__name__)

PLACES: Final = 100
"""Pushes claimed and not settled at once; what one HTTP/2 connection carries well."""
LEASE: Final = 60.0
"""Seconds a claim lasts; longer than any sender's time limit."""
SLOW_POLL: Final = 30.0
"""Seconds; the safety net under lost wake-ups and other processes' claims that ran out."""
SHORTEST: Final = 0.05
"""Seconds between two looks while a mark is due but not to be had, e.g. locked by another process."""
STORE_CEILING: Final = 30.0
"""Seconds between two tries while the database is away."""
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
        places: int = PLACES,
        lease: float = LEASE,
    ) -> None:
        """Take whose marks to send and through what; `owner` names this process among all that share the store."""
        self.stats = PushStats()
        self._store = store
        self._platform = platform
        self._sender = sender
        self._waiter = wakeups.waiter(Topic.OUTBOX)
        self._clock = clock
        self._random = random
        self._owner = f"{owner}/{platform.value}"
        self._places = places
        self._lease = timedelta(seconds=lease)
        self._channels = Channels()
        self._sends: set[asyncio.Task[Outcome]] = set()
        self._held = 0
        self._ended: list[tuple[Settlement, int]] = []
        self._something_ended = asyncio.Event()
        self._look = asyncio.Event()
        self._wakes = 0
        self._backlog = False
        self._due: datetime | None = None
        self._due_asked_at: float | None = None

    async def run(self) -> None:
        """Send until cancelled; pushes under way then get a few seconds to end, and no claim is left behind."""
        try:
            await self._release()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(), name=f"{self._platform} outbox listener")
                tasks.create_task(self._claim_forever(), name=f"{self._platform} claims")
                tasks.create_task(self._settle_forever(), name=f"{self._platform} settlements")
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
        free = self._places - self._held
        if free == 0:
            self._backlog = True
            return SLOW_POLL
        now, wakes = self._clock(), self._wakes
        pushes = await self._store.claim(self._platform, free, self._owner, now + self._lease, now)
        # After a long absence of the database claims have run out whose pushes ended, but could not be settled.
        unsettled = {settlement.push for settlement, _ in self._ended}
        for push in pushes:
            if push not in unsettled:
                self._start(push, wakes)
        self._backlog = len(pushes) == free
        if self._backlog:
            return SLOW_POLL
        await self._ask_due(now)
        if self._due is None:
            return SLOW_POLL
        return max(SHORTEST, min(SLOW_POLL, (self._due - self._clock()).total_seconds()))

    async def _ask_due(self, now: datetime) -> None:
        """Learn when the next mark falls due, if what we know is past or old; our own retries we know."""
        asked_at = asyncio.get_running_loop().time()
        old = self._due_asked_at is None or asked_at - self._due_asked_at >= SLOW_POLL
        if old or (self._due is not None and self._due <= now):
            self._due = await self._store.next_due(self._platform)
            self._due_asked_at = asked_at

    # --- sending

    def _start(self, push: DuePush, wakes: int) -> None:
        self._held += 1
        loop = asyncio.get_running_loop()
        seconds = self._channels.wait((push.app, push.environment), loop.time())
        if seconds > 0:
            fault = self.stats.faults[push.app, push.environment]
            spread = seconds * (1.0 + self._random.uniform(0.0, 0.5))
            self._end(push, RetryLater(f"channel rests: {fault.reason}"), spread, wakes)
            return
        self.stats.in_flight += 1
        task = loop.create_task(self._sender.send(push), name=f"{self._platform} push")
        self._sends.add(task)
        task.add_done_callback(partial(self._sent, push, wakes))

    def _sent(self, push: DuePush, wakes: int, task: asyncio.Task[Outcome]) -> None:
        self._sends.discard(task)
        self.stats.in_flight -= 1
        if task.cancelled():
            return  # only when we stop: its claim is released
        error = task.exception()
        if error is None:
            outcome = task.result()
        else:
            # A sender that raises is a bug of one adapter, met with one push, and must not stop all the others.
            fields = {"platform": self._platform, "registration": push.registration_id, "mark": push.mark}
            log.error("push sender broke", extra=fields, exc_info=error)
            outcome = RetryLater("internal-error")
        self._end(push, outcome, self._judge(push, outcome), wakes)
        if isinstance(outcome, Delivered):
            self.stats.on_accepted(push)

    def _judge(self, push: DuePush, outcome: Outcome) -> float | None:
        """Note what an outcome says about its channel; return in how many seconds to try again, if at all."""
        self.stats.outcomes[outcome_name(outcome)] += 1
        channel = (push.app, push.environment)
        match outcome:
            case Delivered():
                self._heal(push)
                return None
            case TokenGone(reason):
                self._heal(push)
                log.info("device token gone", extra={"registration": push.registration_id, "reason": reason})
                return None
            case RetryLater(after=after):
                self._channels.undecided(channel)
                if after is not None:
                    return backoff.told(after, self._random)
                return backoff.retry(push.attempts + 1, self._random)
            case Refused(channel=True):
                return self._rest(push, outcome)
            case Refused(reason, remedy):
                self._channels.undecided(channel)
                fields = {"registration": push.registration_id, "reason": reason, "remedy": remedy}
                log.warning("push refused", extra=fields)
                return backoff.recheck(1, self._random)

    def _rest(self, push: DuePush, refused: Refused) -> float:
        channel = (push.app, push.environment)
        seconds = self._channels.faulted(channel, asyncio.get_running_loop().time())
        known = self.stats.faults.get(channel)
        since = self._clock() if known is None else known.since
        self.stats.faults[channel] = ChannelFault(*channel, refused.reason, refused.remedy, since)
        if known is None or known.reason != refused.reason:
            fields = {"platform": self._platform, "app": push.app, "environment": push.environment}
            log.error("push channel faulty", extra=fields | {"reason": refused.reason, "remedy": refused.remedy})
        return seconds * (1.0 + self._random.uniform(0.0, 0.5))

    def _heal(self, push: DuePush) -> None:
        channel = (push.app, push.environment)
        if self._channels.passed(channel):
            del self.stats.faults[channel]
            fields = {"platform": self._platform, "app": push.app, "environment": push.environment}
            log.info("push channel works again", extra=fields)

    # --- settling

    def _end(self, push: DuePush, outcome: Outcome, seconds: float | None, wakes: int) -> None:
        next_try_at = None if seconds is None else self._clock() + timedelta(seconds=seconds)
        self._ended.append((Settlement(push, outcome, next_try_at), wakes))
        self._something_ended.set()

    async def _settle_forever(self) -> None:
        """Settle in groups: whatever ended while the last transaction ran goes with the next one."""
        failures = 0
        while True:
            if not self._ended:
                self._something_ended.clear()
                await self._something_ended.wait()
            try:
                await self._settle()
            except StoreUnavailable:
                failures += 1
                if failures == 1:
                    log.warning("outcomes wait: the database is away", extra={"platform": self._platform})
                await asyncio.sleep(min(STORE_CEILING, backoff.retry(failures, self._random)))
            else:
                failures = 0

    async def _settle(self) -> None:
        group = list(self._ended)
        await self._store.settle([settlement for settlement, _ in group], self._clock())
        del self._ended[: len(group)]
        self._held -= len(group)
        retries = [settlement.next_try_at for settlement, _ in group if settlement.next_try_at is not None]
        if retries:
            self._due = min(retries if self._due is None else [self._due, *retries])
        # A mark that grew while its push was under way is due again now, and its wake-up is long past.
        grown = any(wakes != self._wakes for _, wakes in group)
        if self._backlog or retries or grown:
            self._look.set()

    # --- stopping

    async def _drain(self) -> None:
        if self._sends:
            _, late = await asyncio.wait(self._sends, timeout=DRAIN)
            await _cancel(list(late))
        try:
            if self._ended:
                await self._settle()
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
