"""How the progress of all watches reaches the database: in groups, each entry under its lease, until it is durable.

A watch commits through `StoreJournal`, which finds the mailbox's lease and waits out an outage of the database.
`GroupCommitter` is the one writer: what is queued while one transaction runs goes with the next one, which begins at
once when it is full. Two transactions that run at a time have no mailbox in common.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Final

from eas_watcher import backoff
from eas_watcher.machine.memory import Progress
from eas_watcher.names import MailboxId
from eas_watcher.ports import Fenced
from relay.domain.clock import Clock
from relay.domain.errors import StoreUnavailable
from relay.domain.model import CommitEntry
from relay.domain.ports.watch import WatchStore
from relay.domain.timeline import Timeline
from relay.domain.traces import Traces
from relay.domain.tries import Wait
from relay.watch.leases import Lease

log = logging.getLogger(__name__)

LARGEST: Final = 100  # entries per transaction; more gains little, and one poisoned entry costs that many again
STORE_CEILING: Final = 30.0  # seconds; the longest wait between two tries while the database is away
FLUSH: Final = 30.0  # seconds between notes of when Pings began; only explain and health read them


async def until_durable(
    write: Callable[[], Awaitable[None]], random: Random, on_outage: Callable[[], None] = lambda: None
) -> None:
    """Repeat a write with a growing wait until it is durable; call `on_outage` each time the database is away.

    A write whose end is unknown is repeated, too, so it must bear that.
    """
    failures = 0
    while True:
        try:
            await write()
        except StoreUnavailable:
            failures += 1
            on_outage()
            await asyncio.sleep(min(STORE_CEILING, backoff.delay(failures, random)))
        else:
            return


class StoreJournal:
    """The journal of all watches of this process."""

    def __init__(
        self,
        committer: "GroupCommitter",
        store: WatchStore,
        lease_of: Callable[[MailboxId], Lease | None],
        clock: Clock,
        random: Random,
    ) -> None:
        """Note Pings in `store`; `lease_of` finds a mailbox's lease, or None when it is lost."""
        self._committer = committer
        self._store = store
        self._lease_of = lease_of
        self._clock = clock
        self._random = random
        self._pings: dict[MailboxId, tuple[float, float]] = {}
        """Mailbox -> when its Ping began, by the loop's clock, and its heartbeat in seconds."""

    async def commit(self, mailbox: MailboxId, progress: Progress) -> None:
        """Return when `progress` is durable, however long the database is away; raise Fenced when the lease is lost.

        A commit whose end is unknown is made again: a change counted twice is better than one lost.
        """

        async def write() -> None:
            lease = self._lease_of(mailbox)
            if lease is None:
                raise Fenced
            await self._committer.commit(CommitEntry(mailbox, *lease, progress))

        await until_durable(write, self._random)

    async def spend(self, mailbox: MailboxId) -> float | None:
        """Return None when a refused credential may be shown again, else how many seconds it must wait; raise Fenced.

        While the database is away it is not shown: nobody can count the try.
        """
        if self._lease_of(mailbox) is None:
            raise Fenced
        try:
            wait = await self._store.spend(mailbox, self._clock())
        except StoreUnavailable:
            return STORE_CEILING
        return wait.seconds if isinstance(wait, Wait) else None

    def pinged(self, mailbox: MailboxId, heartbeat: float) -> None:
        """Note that a Ping is held from now on."""
        self._pings[mailbox] = (asyncio.get_running_loop().time(), heartbeat)

    async def run(self) -> None:
        """Write the noted Pings from time to time, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH)
            await self.flush()

    async def flush(self) -> None:
        """Write the noted Pings; those that cannot be written now are dropped, because later ones replace them."""
        pings, self._pings = self._pings, {}
        if not pings:
            return
        now, loop_now = self._clock(), asyncio.get_running_loop().time()
        moments = {
            mailbox: (now - timedelta(seconds=loop_now - began), hold) for mailbox, (began, hold) in pings.items()
        }
        try:
            await self._store.note_pings(moments)
        except StoreUnavailable:
            log.warning("moments of Pings not noted: the database is away", extra={"pings": len(pings)})


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    entry: CommitEntry
    done: asyncio.Future[None]
    since: datetime | None
    """When it was queued; None: nobody traces it."""


class GroupCommitter:
    """Commits entries of many watches in groups while `run` runs."""

    def __init__(
        self, store: WatchStore, clock: Clock, timeline: Timeline | None = None, traces: Traces | None = None
    ) -> None:
        """Commit to `store`, and note in the timeline what is durable, and in `traces` if there are any."""
        self._traces = traces
        self._timeline = timeline or Timeline.off()
        self._store = store
        self._clock = clock
        self._queue: deque[_Waiting] = deque()
        self._queued = asyncio.Event()
        self._full = asyncio.Event()
        """Set when a full group is queued."""
        self._writing: set[MailboxId] = set()
        self._stopped = False

    async def commit(self, entry: CommitEntry) -> None:
        """Return when the entry is durable; raise Fenced, StoreUnavailable, or what the store raised for this entry.

        An entry whose waiter is cancelled before its turn is not committed at all.
        """
        if self._stopped:
            raise StoreUnavailable("the writer has stopped")
        traced = self._traces is not None and bool(entry.progress.changes)
        since = self._clock() if traced else None
        waiting = _Waiting(entry, asyncio.get_running_loop().create_future(), since)
        self._queue.append(waiting)
        self._queued.set()
        if len(self._queue) >= LARGEST:
            self._full.set()
        await waiting.done

    async def run(self) -> None:
        """Write until cancelled; entries that wait then fail with StoreUnavailable."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._run(1, self._queued), name="committer")
                # Only a full group: smaller ones would cost more for each entry, and the database is busy.
                tasks.create_task(self._run(LARGEST, self._full), name="committer of full groups")
        finally:
            self._stopped = True
            _fail(self._queue, StoreUnavailable("the writer has stopped"))
            self._queue.clear()

    async def _run(self, least: int, ready: asyncio.Event) -> None:
        """Write one group after the other, each as soon as so many entries are queued."""
        group: dict[MailboxId, _Waiting] = {}
        try:
            while True:
                group = self._next() if len(self._queue) >= least else {}
                if group:
                    await self._write(list(group.values()))
                    self._writing.difference_update(group)
                    self._queued.set()  # later entries of these mailboxes may wait
                else:
                    ready.clear()
                    await ready.wait()
        finally:
            _fail(group.values(), StoreUnavailable("the writer has stopped"))

    def _next(self) -> dict[MailboxId, _Waiting]:
        """Remove the next group from the queue: at most one entry of each mailbox, in the order they came.

        An entry of a mailbox that is being written waits.
        """
        group: dict[MailboxId, _Waiting] = {}
        later: list[_Waiting] = []
        while self._queue and len(group) < LARGEST:
            waiting = self._queue.popleft()
            if waiting.done.done():
                continue
            if waiting.entry.mailbox_id in group or waiting.entry.mailbox_id in self._writing:
                later.append(waiting)
            else:
                group[waiting.entry.mailbox_id] = waiting
        self._queue.extendleft(reversed(later))
        self._writing.update(group)
        return group

    async def _write(self, group: Sequence[_Waiting]) -> None:
        """Commit a group; if one of its entries makes the transaction fail, commit each entry by itself."""
        error = await self._try(group)
        if error is None:
            return
        if isinstance(error, StoreUnavailable) or len(group) == 1:
            _fail(group, error)
            return
        for waiting in group:
            alone = await self._try([waiting])
            if alone is not None:
                _fail([waiting], alone)

    async def _try(self, group: Sequence[_Waiting]) -> BaseException | None:
        """Commit in one transaction and wake the waiters; return the error instead, whatever it is."""
        batch = [waiting.entry for waiting in group]
        now = self._clock()
        try:
            fenced = await self._store.commit(batch, now)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001  # the waiters raise it; a task for each group would cost more
            return error
        self._note([each for each in group if each.entry.mailbox_id not in fenced], now)
        for waiting in group:
            if waiting.done.done():
                continue
            if waiting.entry.mailbox_id in fenced:
                waiting.done.set_exception(Fenced())
            else:
                waiting.done.set_result(None)
        return None

    def _note(self, durable: Sequence[_Waiting], at: datetime) -> None:
        """Note entries that are durable now, and were committed with a moment, in timeline and traces."""
        if self._timeline.on:
            for each in durable:
                self._timeline.progressed(each.entry.mailbox_id, each.entry.progress)
        if self._traces is not None:
            traced = [(each.since, each.entry.progress.changes) for each in durable if each.since is not None]
            if traced:
                seen = min(since for since, _ in traced)
                self._traces.committed(seen, at, [changes for _, changes in traced])


def _fail(group: Iterable[_Waiting], error: BaseException) -> None:
    for waiting in group:
        if not waiting.done.done():
            waiting.done.set_exception(error)
