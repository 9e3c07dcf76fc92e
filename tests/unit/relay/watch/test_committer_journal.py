import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from random import Random
from typing import cast

import pytest

from eas_watcher.machine.memory import Change, Progress
from eas_watcher.names import CollectionClass, MailboxId
from eas_watcher.ports import Fenced
from relay.domain.errors import StoreUnavailable
from relay.domain.model import CommitEntry
from relay.domain.ports.watch import WatchStore
from relay.watch.committer import FLUSH, StoreJournal

MAILBOX = MailboxId("mailbox")
NEW_MAIL = Progress(changes=(Change(CollectionClass.EMAIL, 1),))
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Committer:
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


def journal(
    committer: Committer | None = None, notes: Notes | None = None, *leases: tuple[int, int] | None
) -> StoreJournal:
    remaining = list(leases)

    def lease_of(_: MailboxId) -> tuple[int, int] | None:
        return remaining.pop(0) if remaining else (3, 7)

    store = cast("WatchStore", notes or Notes())
    return StoreJournal(committer or Committer(), store, lease_of, lambda: NOW, Random(1))


async def test_a_commit_carries_the_lease_under_which_it_may_happen() -> None:
    committer = Committer()

    await journal(committer).commit(MAILBOX, NEW_MAIL)

    assert committer.entries == [CommitEntry(MAILBOX, 3, 7, NEW_MAIL)]


@pytest.mark.looptime
async def test_a_commit_waits_out_an_outage_of_the_database() -> None:
    committer = Committer(*[StoreUnavailable()] * 12)

    await journal(committer).commit(MAILBOX, NEW_MAIL)

    assert len(committer.entries) == 13
    longest_if_every_wait_were_at_its_ceiling = 12 * 30.0
    assert asyncio.get_running_loop().time() <= longest_if_every_wait_were_at_its_ceiling


@pytest.mark.looptime
async def test_a_lease_lost_during_an_outage_ends_the_commit() -> None:
    committer = Committer(StoreUnavailable())

    with pytest.raises(Fenced):
        await journal(committer, None, (3, 7), None).commit(MAILBOX, NEW_MAIL)

    assert len(committer.entries) == 1


async def test_without_a_lease_nothing_is_committed() -> None:
    committer = Committer()

    with pytest.raises(Fenced):
        await journal(committer, None, None).commit(MAILBOX, NEW_MAIL)

    assert committer.entries == []


async def test_fencing_is_passed_on_to_the_watch() -> None:
    with pytest.raises(Fenced):
        await journal(Committer(Fenced())).commit(MAILBOX, NEW_MAIL)


@pytest.mark.looptime
async def test_moments_of_pings_are_written_in_groups() -> None:
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


async def test_notes_lost_in_an_outage_are_no_fault() -> None:
    kept = journal(None, Notes(away=True))
    kept.pinged(MAILBOX, 600)

    await kept.flush()
