"""Own an outbox in memory, with the wake-ups of one process, for tests of the dispatcher."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from relay.domain.errors import StoreUnavailable
from relay.domain.model import DuePush, Lane, Mark, Platform, RegistrationId
from relay.domain.outcome import Delivered, RetryLater, TokenGone
from relay.domain.ports.outbox import Claims, Settlement
from relay.domain.ports.wakeups import Topic
from relay.domain.subscription import naming

ROUNDS = 10
"""How many times its limit one claim looks at."""

BEGAN = datetime(2026, 11, 23, 8, tzinfo=UTC)

Key = tuple[RegistrationId, Mark]


def loop_clock() -> datetime:
    """Tell a time that goes with the loop's, so that tests with looptime need not wait."""
    return BEGAN + timedelta(seconds=asyncio.get_running_loop().time())


@dataclass
class Row:
    push: DuePush
    due_at: datetime
    parked: str = ""
    paced: bool = False
    owner: str | None = None
    until: datetime | None = None

    def free_at(self) -> datetime:
        return self.due_at if self.until is None else max(self.due_at, self.until)


class MemoryWaiter:
    def __init__(self) -> None:
        self.woken = asyncio.Event()

    async def wait(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self.woken.wait()
        except TimeoutError:
            return
        self.woken.clear()


class MemoryWakeups:
    def __init__(self) -> None:
        self._waiters: list[tuple[Topic, MemoryWaiter]] = []

    def wake(self, topic: Topic) -> None:
        for wanted, waiter in self._waiters:
            if wanted is topic:
                waiter.woken.set()

    def waiter(self, topic: Topic) -> MemoryWaiter:
        waiter = MemoryWaiter()
        self._waiters.append((topic, waiter))
        return waiter


@dataclass
class MemoryOutbox:
    """Keep marks as the port says; `away` makes every call raise StoreUnavailable, `seconds` makes it last."""

    wakeups: MemoryWakeups = field(default_factory=MemoryWakeups)
    rows: dict[Key, Row] = field(default_factory=dict)
    groups: list[list[Settlement]] = field(default_factory=list)
    claims: int = 0
    """How often somebody asked for marks."""
    poisoned: dict[RegistrationId, bool] = field(default_factory=dict)
    """Registrations whose settlements break, and whether they cannot be set aside either."""
    away: bool = False
    seconds: float = 0.0
    pace: float = 0.0
    """Seconds that each mark is put off when it is first looked at."""

    def put(self, push: DuePush, *, tell: bool = True) -> None:
        """Set a mark, or let it grow."""
        key = (push.registration_id, push.mark)
        row = self.rows.get(key)
        if row is None:
            self.rows[key] = Row(push, push.first_at)
        else:
            row.push = replace(row.push, count=row.push.count + push.count, generation=row.push.generation + 1)
        if tell:
            self.wakeups.wake(Topic.outbox(push.platform))

    async def claim(
        self,
        platform: Platform,
        limit: int,
        owner: str,
        until: datetime,
        now: datetime,
        *,
        only: Lane | None = None,
        without: Collection[Lane] = (),
    ) -> Claims:
        await self._answer()
        self.claims += 1
        due = [row for row in self._rows(platform, without, only) if row.free_at() <= now]
        due.sort(key=lambda row: row.due_at)
        looked_at = due[: limit * (ROUNDS if self.pace else 1)]
        delayed = [row for row in looked_at if self.pace and not row.paced]
        for row in delayed:
            row.due_at, row.paced = now + timedelta(seconds=self.pace), True
        taken = [row for row in looked_at if row.due_at <= now][:limit]
        for row in taken:
            row.owner, row.until = owner, until
        return Claims(
            tuple(row.push for row in taken),
            min((row.due_at for row in delayed), default=None),
            bool(delayed) and len(looked_at) < len(due),
        )

    async def settle(self, settlements: Sequence[Settlement], now: datetime) -> None:
        await self._answer()
        if any(settlement.push.registration_id in self.poisoned for settlement in settlements):
            raise ValueError("this cannot be recorded")
        self.groups.append(list(settlements))
        for settlement in settlements:
            self._settle(settlement, now)

    async def release(self, owner: str | None) -> None:
        await self._answer()
        for row in self.rows.values():
            if owner in {None, row.owner}:
                row.owner = row.until = None

    async def park(self, push: DuePush, reason: str, until: datetime) -> None:
        await self._answer()
        if self.poisoned.get(push.registration_id):
            raise ValueError("nor can this")
        row = self.rows[push.registration_id, push.mark]
        row.owner = row.until = None
        row.due_at, row.parked = until, reason

    async def expire(self, platform: Platform, now: datetime) -> int:
        await self._answer()
        before = now - timedelta(days=1)
        old = [key for key, row in self.rows.items() if row.push.platform is platform and row.push.first_at < before]
        for key in old:
            del self.rows[key]
        return len(old)

    async def next_due(self, platform: Platform, without: Collection[Lane] = ()) -> datetime | None:
        await self._answer()
        return min((row.free_at() for row in self._rows(platform, without, None)), default=None)

    def _rows(self, platform: Platform, without: Collection[Lane], only: Lane | None) -> list[Row]:
        rows = [row for row in self.rows.values() if row.push.platform is platform]
        rows = [row for row in rows if only is None or _in_lane(row.push, only)]
        return [row for row in rows if not any(_in_lane(row.push, lane) for lane in without)]

    async def _answer(self) -> None:
        await asyncio.sleep(self.seconds)
        if self.away:
            raise StoreUnavailable("away")

    def _settle(self, settlement: Settlement, now: datetime) -> None:
        sent = settlement.push
        key = (sent.registration_id, sent.mark)
        row = self.rows[key]
        row.owner = row.until = None
        match settlement.outcome:
            case Delivered() if row.push.generation == sent.generation:
                del self.rows[key]
            case Delivered():
                row.due_at = now
            case TokenGone():
                for other in [each for each in self.rows if each[0] == sent.registration_id]:
                    del self.rows[other]
            case RetryLater() | _:
                assert settlement.next_try_at is not None
                row.push = replace(row.push, attempts=row.push.attempts + settlement.counted)
                row.due_at, row.parked = settlement.next_try_at, settlement.parked


def _in_lane(push: DuePush, lane: Lane) -> bool:
    named = lane.service is None or naming(lane.service) in push.device_token
    return push.environment is lane.environment and lane.app in {None, push.app} and named
