"""An outbox in memory that decides with the relay's own settlement and pacing, and passes the contract of the store."""

import asyncio
import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random

from eas_watcher.names import CollectionClass, MailboxId
from relay.domain.errors import StoreUnavailable
from relay.domain.model import DuePush, Lane, Mark, Platform, Registration, RegistrationId, RegistrationState
from relay.domain.outcome import LastOutcome
from relay.domain.pacing import LASTING, Pacing
from relay.domain.ports.outbox import Claims, Settlement
from relay.domain.ports.wakeups import Topic
from relay.domain.subscription import naming
from relay.push.settlement import (
    MarkUpdate,
    PendingMark,
    Recipient,
    RegistrationUpdate,
    may_end_registrations,
    settle,
)
from relay.store.claims import FAR, ROUNDS
from relay.store.marks import SOON
from relay.store.wakeups import LocalWakeups

BEGAN = datetime(2026, 11, 23, 8, tzinfo=UTC)

Key = tuple[RegistrationId, Mark]


def loop_clock() -> datetime:
    """Return a time that goes with the loop's, so that tests with looptime need not wait."""
    return BEGAN + timedelta(seconds=asyncio.get_running_loop().time())


@dataclass
class StoredMark:
    """A row of the outbox."""

    platform: Platform
    count: int
    certain: bool
    first_at: datetime
    last_at: datetime
    due_at: datetime
    generation: int = 1
    attempts: int = 0
    paced: bool = False
    parked: str = ""
    owner: str | None = None
    until: datetime | None = None

    def claimed(self, now: datetime) -> bool:
        """Return True if a process holds the mark; a claim from far ahead was made while the clock was wrong."""
        return self.until is not None and now < self.until <= now + FAR

    def free(self) -> None:
        self.owner = self.until = None


@dataclass
class MemoryOutbox:
    """An OutboxStore; `away` makes every call raise StoreUnavailable, `seconds` makes it last."""

    wakeups: LocalWakeups = field(default_factory=LocalWakeups)
    pacing: Pacing = field(default_factory=lambda: Pacing(random=Random(1)))
    registrations: dict[RegistrationId, Registration] = field(default_factory=dict)
    pushed: dict[RegistrationId, dict[str, float]] = field(default_factory=dict)
    """When each class was last pushed to a registration, in seconds since 1970."""
    rows: dict[Key, StoredMark] = field(default_factory=dict)
    groups: list[list[Settlement]] = field(default_factory=list)
    claims: int = 0
    """How many times marks were claimed."""
    poisoned: dict[RegistrationId, bool] = field(default_factory=dict)
    """Registrations whose settlements break, and whether they cannot be parked either."""
    away: bool = False
    seconds: float = 0.0

    def put(self, push: DuePush, *, wake: bool = True) -> None:
        """Set the mark of a push, or add to it; the registration is made of the push unless it is there."""
        self.registrations.setdefault(push.registration_id, _registration(push))
        self.set_mark((push.registration_id, push.mark), push.count, push.first_at, certain=push.certain)
        if wake:
            self.wakeups.wake(Topic.outbox(push.platform))

    def set_mark(self, key: Key, count: int, now: datetime, *, certain: bool = True) -> Platform:
        """Set a mark, or add to it, as every transaction that sets marks does; return whose dispatcher to wake."""
        platform = self.registrations[key[0]].platform
        row = self.rows.get(key)
        if row is None:
            self.rows[key] = StoredMark(platform, count, certain, first_at=now, last_at=now, due_at=now)
            return platform
        row.count += count
        row.generation += 1
        row.certain = row.certain or certain
        row.last_at = now
        if row.attempts == 0 and row.due_at > now + SOON:
            row.due_at = now
        return platform

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
        pushes: list[DuePush] = []
        delayed: list[datetime] = []
        for _ in range(ROUNDS):
            missing = limit - len(pushes)
            due = self._due(platform, missing, now, only, without)
            for key, row in due:
                held = self.registrations[key[0]].quarantine is not None and key[1] is not Mark.TEST
                if held and self._tried(key[0], now):
                    continue
                seconds = 0.0 if row.paced else self.pacing.wait(key[1], self._pushed_at(key), now)
                if seconds > 0.0:
                    row.due_at, row.paced = now + timedelta(seconds=seconds), True
                    delayed.append(row.due_at)
                else:
                    row.owner, row.until = owner, until
                    pushes.append(self._push(key, row))
            if len(due) < missing or len(pushes) == limit:
                return Claims(tuple(pushes), min(delayed, default=None))
        return Claims(tuple(pushes), min(delayed, default=None), unfinished=bool(delayed))

    async def settle(self, settlements: Sequence[Settlement], now: datetime) -> None:
        await self._answer()
        if any(settlement.push.registration_id in self.poisoned for settlement in settlements):
            raise ValueError("this cannot be recorded")
        self.groups.append(list(settlements))
        left = any(id_ in self.registrations for id_ in may_end_registrations(settlements))
        keys = {(settlement.push.registration_id, settlement.push.mark) for settlement in settlements}
        recipients = {id_: self._recipient(id_) for id_, _ in keys if id_ in self.registrations}
        marks = {key: self._pending(key) for key in keys if key in self.rows}
        settled = settle(settlements, recipients, marks, now, self.pacing)
        for update in settled.updated:
            self._update_registration(update)
        for id_ in settled.gone:
            self.registrations[id_] = replace(self.registrations[id_], state=RegistrationState.TOKEN_GONE)
        ended = {*settled.gone, *settled.forgotten}
        for key in [*settled.done, *(key for key in self.rows if key[0] in ended)]:
            del self.rows[key]
        for kept in settled.kept:
            self._update_mark(kept)
        for platform in settled.wake:
            self.wakeups.wake(Topic.outbox(platform))
        if left:
            self.wakeups.wake(Topic.MAILBOXES)

    async def release(self, owner: str | None) -> None:
        await self._answer()
        held = [row for row in self.rows.values() if row.owner is not None and owner in {None, row.owner}]
        for row in held:
            row.free()
        for platform in {row.platform for row in held}:
            self.wakeups.wake(Topic.outbox(platform))

    async def park(self, push: DuePush, reason: str, until: datetime) -> None:
        await self._answer()
        if self.poisoned.get(push.registration_id):
            raise ValueError("nor can this")
        row = self.rows[push.registration_id, push.mark]
        row.free()
        row.due_at, row.attempts, row.parked = until, push.attempts + 1, reason

    async def expire(self, platform: Platform, now: datetime) -> int:
        await self._answer()
        before = self.pacing.expires_before(now)
        old = [
            key
            for key, row in self.rows.items()
            if row.platform is platform and row.last_at < before and key[1] not in LASTING and not row.claimed(now)
        ]
        for key in old:
            del self.rows[key]
        for id_ in {id_ for id_, _ in old}:
            registration = self.registrations[id_]
            outcome = LastOutcome.expired(registration.last_outcome, self.pacing.expire)
            self.registrations[id_] = replace(registration, last_outcome=outcome)
        return len(old)

    async def next_due(self, platform: Platform, without: Collection[Lane] = ()) -> datetime | None:
        await self._answer()
        moments = []
        for key, row in self._sendable(self.rows, platform, None, without):
            quarantine = self.registrations[key[0]].quarantine
            later = [row.until, None if quarantine is None or key[1] is Mark.TEST else quarantine.recheck_at]
            moments.append(max([row.due_at, *(moment for moment in later if moment is not None)]))
        return min(moments, default=None)

    # --- which marks may be claimed now

    def _due(
        self, platform: Platform, limit: int, now: datetime, only: Lane | None, without: Collection[Lane]
    ) -> list[tuple[Key, StoredMark]]:
        fresh, far = self.pacing.expires_before(now), now + FAR
        due = {
            key: row
            for key, row in self.rows.items()
            if (row.due_at <= now or row.due_at > far)
            and (row.until is None or not row.claimed(now))
            and (row.last_at >= fresh or key[1] in LASTING)
        }
        found = [item for item in self._sendable(due, platform, only, without) if self._trusted(item[0], now)]
        probes = only is not None and only.retried is False

        def order(item: tuple[Key, StoredMark]) -> tuple[bool, datetime, Key]:
            return probes and self.registrations[item[0][0]].last_push_at is None, item[1].due_at, item[0]

        return heapq.nsmallest(limit, found, key=order)

    def _sendable(
        self, rows: Mapping[Key, StoredMark], platform: Platform, only: Lane | None, without: Collection[Lane]
    ) -> Iterator[tuple[Key, StoredMark]]:
        for key, row in rows.items():
            registration = self.registrations[key[0]]
            wiped = registration.state is RegistrationState.WIPED and key[1] is Mark.ATTENTION
            if row.platform is not platform or not (registration.state is RegistrationState.ACTIVE or wiped):
                continue
            if any(_in_lane(registration, row, lane) for lane in without):
                continue
            if only is None or _in_lane(registration, row, only):
                yield key, row

    def _trusted(self, key: Key, now: datetime) -> bool:
        """Return False for a registration in quarantine, but for a test, and one trial once its re-check is due."""
        id_, mark = key
        quarantine = self.registrations[id_].quarantine
        if quarantine is None or mark is Mark.TEST:
            return True
        return quarantine.due_at(now) <= now and not self._tried(id_, now)

    def _tried(self, id_: RegistrationId, now: datetime) -> bool:
        return any(row.claimed(now) for key, row in self.rows.items() if key[0] == id_)

    # --- values

    def _pushed_at(self, key: Key) -> datetime | None:
        seconds = self.pushed.get(key[0], {}).get(key[1].value)
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

    def _push(self, key: Key, row: StoredMark) -> DuePush:
        registration = self.registrations[key[0]]
        return DuePush(
            *key,
            count=row.count,
            certain=row.certain,
            generation=row.generation,
            attempts=row.attempts,
            first_at=row.first_at,
            last_at=row.last_at,
            platform=row.platform,
            app=registration.app,
            environment=registration.environment,
            device_token=registration.device_token,
            token_since=registration.token_since,
            mode=registration.mode,
            locale=registration.locale,
            mailbox_id=registration.mailbox_id,
        )

    def _pending(self, key: Key) -> PendingMark:
        row = self.rows[key]
        return PendingMark(row.count, row.generation, row.first_at, row.last_at, row.attempts, row.paced)

    def _recipient(self, id_: RegistrationId) -> Recipient:
        registration = self.registrations[id_]
        return Recipient(
            id_,
            registration.environment,
            registration.device_token,
            registration.token_since,
            registration.state,
            self.pushed.get(id_, {}),
            registration.quarantine,
        )

    def _update_registration(self, update: RegistrationUpdate) -> None:
        id_ = update.id
        self.pushed[id_] = dict(update.pushed)
        self.registrations[id_] = replace(
            self.registrations[id_],
            quarantine=update.quarantine,
            last_outcome=update.last_outcome,
            last_push_at=update.last_push_at or self.registrations[id_].last_push_at,
        )

    def _update_mark(self, update: MarkUpdate) -> None:
        row = self.rows[update.registration_id, update.mark]
        row.free()
        row.count, row.first_at, row.due_at = update.count, update.first_at, update.due_at
        row.attempts, row.paced, row.parked = update.attempts, update.paced, update.parked

    async def _answer(self) -> None:
        await asyncio.sleep(self.seconds)
        if self.away:
            raise StoreUnavailable("away")


def _registration(push: DuePush) -> Registration:
    return Registration(
        push.registration_id,
        MailboxId(f"mailbox-of-{push.registration_id}"),
        b"",
        push.app,
        push.platform,
        push.environment,
        push.device_token,
        push.token_since,
        frozenset(CollectionClass),
        push.mode,
        push.locale,
        RegistrationState.ACTIVE,
        push.token_since,
    )


def _in_lane(registration: Registration, row: StoredMark, lane: Lane) -> bool:
    named = lane.service is None or naming(lane.service) in registration.device_token
    tried = lane.retried in {None, row.attempts > 0}
    return registration.environment is lane.environment and lane.app in {None, registration.app} and named and tried
