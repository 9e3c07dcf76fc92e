"""Test that commits travel in groups, and that nobody suffers from another's trouble."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from eas_watcher.machine.memory import Progress
from eas_watcher.names import MailboxId
from eas_watcher.ports import Fenced
from relay.domain.errors import StoreUnavailable
from relay.domain.model import CommitEntry
from relay.domain.ports.watch import WatchStore
from relay.watch.committer import LARGEST, GroupCommitter

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


class GatedStore:
    """Hold every commit until the gate opens; fail as told."""

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
    """Start to commit entries while another commit is under way; let it go when the block ends."""
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


async def test_what_was_queued_meanwhile_is_the_next_group() -> None:
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


async def test_entries_of_one_mailbox_are_committed_one_after_the_other_in_order() -> None:
    store = GatedStore()
    entries = [entry("ann", 1), entry("ann", 2), entry("ben", 3), entry("ann", 4), entry("ben", 5)]
    async with running(store) as committer, queued_behind_one(store, committer, entries):
        pass

    assert store.batches == [["first"], ["ann", "ben"], ["ann", "ben"], ["ann"]]
    assert store.refusals == [None, 1, 3, 2, 5, 4]


async def test_only_the_fenced_are_told_so() -> None:
    store = GatedStore()
    store.fenced = {"ben"}
    async with running(store) as committer:
        async with queued_behind_one(store, committer, [entry("ann"), entry("ben"), entry("eve")]) as tasks:
            pass
        ann, ben, eve = await outcomes(*tasks)

    assert (ann, eve) == (None, None)
    assert isinstance(ben, Fenced)


async def test_an_outage_is_told_to_the_whole_group_and_the_next_one_is_tried() -> None:
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


async def test_whoever_waits_when_the_writer_stops_is_told() -> None:
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
