"""Test that commits travel in groups, that one entry's failure harms no other, and that outages are outlasted."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, cast

import pytest

from eas_watcher.machine.memory import Change, Progress
from eas_watcher.names import CollectionClass, MailboxId
from eas_watcher.ports import Fenced
from relay.domain.errors import StoreUnavailable
from relay.domain.model import CommitEntry
from relay.domain.ports.watch import WatchStore
from relay.watch.committer import FLUSH, LARGEST, GroupCommitter, StoreJournal
from relay.watch.leases import Lease

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


class GatedStore:
    """Holds every commit until the gate opens; fails as a test sets it."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.refusals: list[int | None] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.poisoned: set[str] = set()
        self.fenced: set[str] = set()
        self.away = False

    async def commit(self, batch: Sequence[CommitEntry], now: datetime) -> frozenset[MailboxId]:
        assert now == NOW
        ids = [entry.mailbox_id for entry in batch]
        self.batches.append([str(id_) for id_ in ids])
        self.refusals += [entry.progress.refusals for entry in batch]
        self.entered.set()
        await self.gate.wait()
        if self.away:
            raise StoreUnavailable("away")
        if self.poisoned.intersection(ids):
            raise ValueError("poisoned")
        return frozenset(id_ for id_ in ids if id_ in self.fenced)


def entry(name: str, refusals: int | None = None) -> CommitEntry:
    return CommitEntry(MailboxId(name), 1, 1, Progress(refusals=refusals))


@asynccontextmanager
async def running(store: GatedStore) -> AsyncIterator[GroupCommitter]:
    committer = GroupCommitter(cast("WatchStore", store), lambda: NOW)
    async with asyncio.TaskGroup() as tasks:
        writer = tasks.create_task(committer.run())
        yield committer
        writer.cancel()


async def outcomes(*waits: Any) -> list[Any]:
    return list(await asyncio.gather(*waits, return_exceptions=True))


@asynccontextmanager
async def queued_behind_one(
    store: GatedStore, committer: GroupCommitter, entries: Sequence[CommitEntry]
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Start to commit entries while another commit is under way; let that one end when the block ends."""
    store.gate.clear()
    loop = asyncio.get_running_loop()
    first = loop.create_task(committer.commit(entry("first")))
    await store.entered.wait()
    tasks = [loop.create_task(committer.commit(value)) for value in entries]
    await asyncio.sleep(0)
    yield tasks
    store.gate.set()
    await outcomes(first, *tasks)


async def test_an_idle_writer_commits_at_once() -> None:
    store = GatedStore()
    async with running(store) as committer:
        await committer.commit(entry("ann"))
        await committer.commit(entry("ann"))

    assert store.batches == [["ann"], ["ann"]]


async def test_entries_queued_during_a_commit_are_the_next_group() -> None:
    store = GatedStore()
    entries = [entry("ann"), entry("ben")]
    async with running(store) as committer, queued_behind_one(store, committer, entries) as tasks:
        assert not any(task.done() for task in tasks)

    assert store.batches == [["first"], ["ann", "ben"]]


async def test_a_group_is_never_larger_than_allowed() -> None:
    store = GatedStore()
    entries = [entry(str(number)) for number in range(LARGEST + 3)]
    async with running(store) as committer, queued_behind_one(store, committer, entries):
        pass

    assert [len(batch) for batch in store.batches] == [1, LARGEST, 3]


async def test_a_full_group_is_written_while_another_one_is() -> None:
    store = GatedStore()
    entries = [entry(str(number)) for number in range(LARGEST)]
    async with running(store) as committer, queued_behind_one(store, committer, entries[:-1]) as tasks:
        await asyncio.sleep(0)
        assert len(store.batches) == 1
        tasks.append(asyncio.get_running_loop().create_task(committer.commit(entries[-1])))
        while len(store.batches) < 2:  # noqa: ASYNC110 - few turns of the loop; the time limit of the test guards it
            await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)

    assert [len(batch) for batch in store.batches] == [1, LARGEST]


async def test_an_entry_waits_while_another_one_of_its_mailbox_is_written() -> None:
    store = GatedStore()
    entries = [entry("first", 1), *(entry(str(number)) for number in range(LARGEST + 1))]
    async with running(store) as committer, queued_behind_one(store, committer, entries):
        while len(store.batches) < 2:  # noqa: ASYNC110 - few turns of the loop; the time limit of the test guards it
            await asyncio.sleep(0)

    assert [len(batch) for batch in store.batches] == [1, LARGEST, 2]
    assert "first" not in store.batches[1]
    assert store.batches[2] == ["first", str(LARGEST)]


async def test_an_entry_that_waits_for_its_mailbox_is_written_when_that_is_free() -> None:
    store = GatedStore()
    others = [entry(str(number)) for number in range(LARGEST)]
    async with running(store) as committer, queued_behind_one(store, committer, others) as tasks:
        while len(store.batches) < 2:  # noqa: ASYNC110 - few turns of the loop; the time limit of the test guards it
            await asyncio.sleep(0)
        tasks += [asyncio.get_running_loop().create_task(committer.commit(entry("0", 2))) for _ in range(2)]

    assert [len(batch) for batch in store.batches] == [1, LARGEST, 1, 1]
    assert store.batches[2:] == [["0"], ["0"]]


async def test_entries_of_one_mailbox_are_committed_one_after_the_other_in_order() -> None:
    store = GatedStore()
    entries = [entry("ann", 1), entry("ann", 2), entry("ben", 3), entry("ann", 4), entry("ben", 5)]
    async with running(store) as committer, queued_behind_one(store, committer, entries):
        pass

    assert store.batches == [["first"], ["ann", "ben"], ["ann", "ben"], ["ann"]]
    assert store.refusals == [None, 1, 3, 2, 5, 4]


async def test_only_the_fenced_entries_fail() -> None:
    store = GatedStore()
    store.fenced = {"ben"}
    async with running(store) as committer:
        async with queued_behind_one(store, committer, [entry("ann"), entry("ben"), entry("eve")]) as tasks:
            pass
        ann, ben, eve = await outcomes(*tasks)

    assert (ann, eve) == (None, None)
    assert isinstance(ben, Fenced)


async def test_an_outage_fails_the_whole_group_and_the_next_one_is_tried() -> None:
    store = GatedStore()
    store.away = True
    async with running(store) as committer:
        async with queued_behind_one(store, committer, [entry("ann"), entry("ben")]) as tasks:
            pass
        assert [type(outcome) for outcome in await outcomes(*tasks)] == [StoreUnavailable] * 2
        store.away = False
        await committer.commit(entry("ann"))

    assert store.batches == [["first"], ["ann", "ben"], ["ann"]]


async def test_a_poisoned_entry_fails_alone() -> None:
    store = GatedStore()
    store.poisoned = {"ben"}
    async with running(store) as committer:
        async with queued_behind_one(store, committer, [entry("ann"), entry("ben"), entry("eve")]) as tasks:
            pass
        ann, ben, eve = await outcomes(*tasks)
        await committer.commit(entry("ann"))

    assert (ann, eve) == (None, None)
    assert isinstance(ben, ValueError)
    assert store.batches[1:] == [["ann", "ben", "eve"], ["ann"], ["ben"], ["eve"], ["ann"]]


async def test_a_poisoned_entry_that_came_alone_is_tried_once() -> None:
    store = GatedStore()
    store.poisoned = {"ann"}
    async with running(store) as committer:
        with pytest.raises(ValueError, match="poisoned"):
            await committer.commit(entry("ann"))

    assert store.batches == [["ann"]]


async def test_a_waiter_cancelled_before_its_turn_commits_nothing_and_harms_nobody() -> None:
    store = GatedStore()
    async with running(store) as committer:
        async with queued_behind_one(store, committer, [entry("ann"), entry("ben")]) as tasks:
            tasks[0].cancel()
        assert tasks[0].cancelled()
        assert tasks[1].exception() is None

    assert store.batches == [["first"], ["ben"]]


async def test_a_waiter_cancelled_while_its_group_is_written_harms_nobody() -> None:
    store = GatedStore()
    async with running(store) as committer:
        async with queued_behind_one(store, committer, [entry("ann"), entry("ben")]) as tasks:
            store.gate.set()
            while len(store.batches) < 2:  # noqa: ASYNC110 - few turns of the loop; the time limit of the test guards it
                await asyncio.sleep(0)
            tasks[0].cancel()
        assert tasks[0].cancelled() or tasks[0].exception() is None
        assert tasks[1].exception() is None
        await committer.commit(entry("eve"))

    assert store.batches[1] == ["ann", "ben"]


async def test_entries_that_wait_when_the_writer_stops_fail() -> None:
    store = GatedStore()
    store.gate.clear()
    committer = GroupCommitter(cast("WatchStore", store), lambda: NOW)
    loop = asyncio.get_running_loop()
    writer = loop.create_task(committer.run())
    under_way = loop.create_task(committer.commit(entry("ann")))
    await store.entered.wait()
    queued = loop.create_task(committer.commit(entry("ben")))
    await asyncio.sleep(0)

    writer.cancel()
    with suppress(asyncio.CancelledError):
        await writer

    assert [type(outcome) for outcome in await outcomes(under_way, queued)] == [StoreUnavailable] * 2
    with pytest.raises(StoreUnavailable):
        await committer.commit(entry("eve"))


MAILBOX = MailboxId("mailbox")
NEW_MAIL = Progress(changes=(Change(CollectionClass.EMAIL, 1),))


class Script:
    """Ends each commit as scripted."""

    def __init__(self, *ends: BaseException | None) -> None:
        self.ends = list(ends)
        self.entries: list[CommitEntry] = []

    async def commit(self, entry: CommitEntry) -> None:
        self.entries.append(entry)
        end = self.ends.pop(0) if self.ends else None
        if end is not None:
            raise end


class Notes:
    def __init__(self, *, away: bool = False) -> None:
        self.away = away
        self.written: list[Mapping[MailboxId, tuple[datetime, float]]] = []

    async def note_pings(self, pings: Mapping[MailboxId, tuple[datetime, float]]) -> None:
        if self.away:
            raise StoreUnavailable
        self.written.append(pings)


def journal(committer: Script | None = None, notes: Notes | None = None, *leases: Lease | None) -> StoreJournal:
    remaining = list(leases)

    def lease_of(_: MailboxId) -> Lease | None:
        return remaining.pop(0) if remaining else Lease(3, 7)

    store = cast("WatchStore", notes or Notes())
    return StoreJournal(cast("GroupCommitter", committer or Script()), store, lease_of, lambda: NOW, Random(1))


async def test_a_commit_carries_the_lease_under_which_it_may_happen() -> None:
    committer = Script()

    await journal(committer).commit(MAILBOX, NEW_MAIL)

    assert committer.entries == [CommitEntry(MAILBOX, 3, 7, NEW_MAIL)]


@pytest.mark.looptime
async def test_a_commit_waits_out_an_outage_of_the_database() -> None:
    committer = Script(*[StoreUnavailable()] * 12)

    await journal(committer).commit(MAILBOX, NEW_MAIL)

    assert len(committer.entries) == 13
    longest_if_every_wait_were_at_its_ceiling = 12 * 30.0
    assert asyncio.get_running_loop().time() <= longest_if_every_wait_were_at_its_ceiling


@pytest.mark.looptime
async def test_a_lease_lost_during_an_outage_ends_the_commit() -> None:
    committer = Script(StoreUnavailable())

    with pytest.raises(Fenced):
        await journal(committer, None, Lease(3, 7), None).commit(MAILBOX, NEW_MAIL)

    assert len(committer.entries) == 1


async def test_without_a_lease_nothing_is_committed() -> None:
    committer = Script()

    with pytest.raises(Fenced):
        await journal(committer, None, None).commit(MAILBOX, NEW_MAIL)

    assert committer.entries == []


async def test_fencing_is_passed_on_to_the_watch() -> None:
    with pytest.raises(Fenced):
        await journal(Script(Fenced())).commit(MAILBOX, NEW_MAIL)


@pytest.mark.looptime
async def test_the_times_of_pings_are_written_in_groups() -> None:
    notes = Notes()
    kept = journal(None, notes)
    running = asyncio.get_running_loop().create_task(kept.run())

    kept.pinged(MAILBOX, 600)
    await asyncio.sleep(10)
    kept.pinged(MailboxId("other"), 900)
    await asyncio.sleep(FLUSH)
    running.cancel()

    ago = timedelta(seconds=FLUSH)
    assert notes.written == [{MAILBOX: (NOW - ago, 600), MailboxId("other"): (NOW - ago + timedelta(seconds=10), 900)}]


async def test_nothing_is_written_when_no_ping_began() -> None:
    notes = Notes()

    await journal(None, notes).flush()

    assert notes.written == []


async def test_notes_lost_in_an_outage_raise_nothing() -> None:
    kept = journal(None, Notes(away=True))
    kept.pinged(MAILBOX, 600)

    await kept.flush()
