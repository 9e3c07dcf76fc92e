"""The outbox under test, in memory or in a database, with the stores of the roles that fill it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from eas_watcher.machine.memory import Change, Progress, WatchState
from eas_watcher.names import MailboxId
from relay.domain.model import (
    Candidate,
    CommitEntry,
    DuePush,
    Lane,
    Mark,
    Platform,
    Registration,
    RegistrationChange,
    RegistrationId,
    RegistrationState,
)
from relay.domain.outcome import PushEnd
from relay.domain.pacing import Pacing
from relay.domain.ports.outbox import OutboxStore, Settlement
from relay.domain.ports.registration import RegistrationStore
from relay.domain.ports.wakeups import Topic
from relay.domain.ports.watch import WatchStore
from relay.store.engine import Database
from relay.store.outbox import SqlOutboxStore
from relay.store.registrations import SqlRegistrationStore
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import NEW_MAIL, NOW, activate, entry, marks, own_all
from tests.fakes.outbox import MemoryOutbox, StoredMark
from tests.fakes.registrations import MemoryRegistrationStore
from tests.fakes.watches import NoWatches

MINUTE = timedelta(minutes=1)


class OutboxSite(ABC):
    """One outbox, and short ways to fill and to empty it."""

    outbox: OutboxStore
    registrations: RegistrationStore
    watches: WatchStore
    wakeups: LocalWakeups

    @abstractmethod
    def paced(self, pacing: Pacing) -> "OutboxSite":
        """Return the same site for a push process with another pace."""

    @abstractmethod
    async def marks(self) -> Mapping[tuple[str, str], StoredMark]:
        """Return the whole outbox by (registration, mark)."""

    async def activate(self, name: str = "ann", device: str = "phone", **changes: Any) -> Registration:
        """Register an install and accept its credential."""
        return await activate(self.registrations, self.watches, name, device, **changes)

    async def registered(self, registration: Registration) -> Registration:
        """Return a registration as it is now."""
        view = await self.registrations.view(registration.id)
        assert view is not None
        return view.registration

    async def commit(self, progress: Progress, *names: str, now: datetime = NOW) -> None:
        """Commit the same progress of some mailboxes."""
        epoch = await own_all(self.watches)
        await self.watches.commit([entry(epoch, progress, name) for name in names or ("ann",)], now)

    async def change(self, *names: str, now: datetime = NOW, changed: Change = NEW_MAIL) -> None:
        """Commit a change of some mailboxes."""
        await self.commit(Progress(changes=(changed,)), *names, now=now)

    async def claim(
        self,
        now: datetime = NOW,
        *,
        limit: int = 100,
        owner: str = "push-1",
        platform: Platform = Platform.APNS,
        only: Lane | None = None,
        without: Sequence[Lane] = (),
    ) -> list[DuePush]:
        """Claim due marks for a minute."""
        claims = await self.outbox.claim(platform, limit, owner, now + MINUTE, now, only=only, without=without)
        return [*claims.pushes]

    async def settle(
        self, pushes: Sequence[DuePush], outcome: PushEnd, now: datetime = NOW, next_try_at: datetime | None = None
    ) -> None:
        """Settle some pushes with the same outcome."""
        await self.outbox.settle([Settlement(push, outcome, next_try_at) for push in pushes], now)


class SqlSite(OutboxSite):
    """An outbox in a database."""

    def __init__(self, engine: Database, wakeups: LocalWakeups, pacing: Pacing | None = None) -> None:
        self.engine = engine
        self.wakeups = wakeups
        self.registrations = SqlRegistrationStore(engine, wakeups)
        self.watches = SqlWatchStore(engine, wakeups)
        self.outbox = SqlOutboxStore(engine, wakeups, pacing or Pacing())

    def paced(self, pacing: Pacing) -> "SqlSite":
        return SqlSite(self.engine, self.wakeups, pacing)

    async def marks(self) -> Mapping[tuple[str, str], StoredMark]:
        return {key: _stored(row) for key, row in (await marks(self.engine)).items()}


def _stored(row: Any) -> StoredMark:
    return StoredMark(
        Platform(row.platform),
        row.changes,
        row.certain,
        row.first_at,
        row.last_at,
        row.due_at,
        row.generation,
        row.attempts,
        row.paced,
        row.aside,
        row.claimed_by,
        row.claimed_until,
    )


class MemorySite(OutboxSite):
    """An outbox in memory."""

    def __init__(self, memory: MemoryOutbox) -> None:
        self.memory = memory
        self.outbox = memory
        self.wakeups = memory.wakeups
        registrations = _Registrations(memory)
        self.registrations = registrations
        self.watches = _Watches(memory, registrations)

    def paced(self, pacing: Pacing) -> "MemorySite":
        return MemorySite(replace(self.memory, pacing=pacing))  # with the same rows and registrations

    async def marks(self) -> Mapping[tuple[str, str], StoredMark]:
        return {(id_, mark.value): row for (id_, mark), row in self.memory.rows.items()}


class _Registrations(MemoryRegistrationStore):
    """Changes marks with their registrations, as the database does."""

    def __init__(self, outbox: MemoryOutbox) -> None:
        super().__init__(outbox.wakeups)
        self.registrations = outbox.registrations
        self._outbox = outbox

    async def change(self, registration_id: RegistrationId, change: RegistrationChange, now: datetime) -> None:
        await super().change(registration_id, change, now)
        if change.device_token is not None or change.environment is not None:
            registration = self.registrations[registration_id]
            self.registrations[registration_id] = replace(registration, quarantine=None)
            for key, row in self._outbox.rows.items():
                if key[0] == registration_id:
                    row.due_at, row.parked = now, ""
            self.wakeups.wake(Topic.outbox(registration.platform))

    def _told(self, registration_id: RegistrationId) -> bool:
        return (registration_id, Mark.ATTENTION) not in self._outbox.rows

    def _delete(self, registration_id: RegistrationId) -> None:
        super()._delete(registration_id)
        for key in [key for key in self._outbox.rows if key[0] == registration_id]:
            del self._outbox.rows[key]

    async def mark(self, registration_id: RegistrationId, mark: Mark, now: datetime, test: str = "") -> None:
        self.wakeups.wake(Topic.outbox(self._outbox.set_mark((registration_id, mark), 1, now)))


class _Watches(NoWatches):
    """Turns changes into marks, as the database does, and owns every shard."""

    def __init__(self, outbox: MemoryOutbox, registrations: _Registrations) -> None:
        self._outbox = outbox
        self._registrations = registrations

    async def accept(
        self,
        candidate: Candidate,
        now: datetime,
        url: str | None = None,
        *,
        replaces: bool = False,
        succeeded: bool = False,
    ) -> None:
        self._registrations.accept(candidate.registration_id, now)

    async def forget(self, mailbox_id: MailboxId) -> bool:
        return all(each.mailbox_id != mailbox_id for each in self._outbox.registrations.values())

    async def commit(self, batch: Sequence[CommitEntry], now: datetime) -> frozenset[MailboxId]:
        platforms: set[Platform] = set()
        for one in batch:
            condition = one.progress.condition
            wiped = condition is not None and condition.state is WatchState.WIPED
            for registration in [*self._outbox.registrations.values()]:
                if registration.mailbox_id == one.mailbox_id:
                    found = _marks(registration, one.progress, wiped=wiped)
                    platforms |= {self._outbox.set_mark((registration.id, mark), n, now) for mark, n in found}
            if wiped:
                await self._wipe(one.mailbox_id)
        for platform in platforms:
            self._outbox.wakeups.wake(Topic.outbox(platform))
        return frozenset()

    async def _wipe(self, mailbox_id: MailboxId) -> None:
        for id_, registration in [*self._outbox.registrations.items()]:
            if registration.mailbox_id != mailbox_id:
                continue
            self._outbox.registrations[id_] = replace(registration, state=RegistrationState.WIPED)
            for key in [key for key in self._outbox.rows if key[0] == id_ and key[1] is not Mark.ATTENTION]:
                del self._outbox.rows[key]


def _marks(registration: Registration, progress: Progress, *, wiped: bool) -> list[tuple[Mark, int]]:
    """Return the marks that progress gives one registration."""
    if registration.state is not RegistrationState.ACTIVE:
        return []
    if wiped:
        return [(Mark.ATTENTION, 1)]
    changes = [(Mark.of(each.cls), each.count) for each in progress.changes if each.cls in registration.classes]
    return [*changes, *([(Mark.ATTENTION, 1)] if progress.attention else [])]
