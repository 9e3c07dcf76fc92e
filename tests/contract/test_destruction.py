"""Test that what was destroyed is no longer in the files of an embedded database, while it is open."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from eas_watcher.machine.memory import Condition, Progress, WatchState
from eas_watcher.names import MailboxId
from eas_watcher.reasons import Reason
from relay.domain.challenge import hash_nonce
from relay.domain.model import Platform, RegistrationChange, RegistrationId
from relay.store.challenges import SqlChallengeStore
from relay.store.engine import Database, open_database, scrub
from relay.store.outbox import SqlOutboxStore
from relay.store.registrations import SqlRegistrationStore
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import LATER, NOW, candidate_of, entry, new_mailbox, new_registration, own_all
from tests.transactions import transaction

OLD, NEW = b"sealed-old-" + b"o" * 200, b"sealed-new-" + b"n" * 200


@pytest.fixture
async def embedded(sqlite_url: str) -> AsyncIterator[Database]:
    async with open_database(sqlite_url) as engine:
        yield engine


@pytest.fixture
def kept(tmp_path: Path) -> Callable[[bytes], bool]:
    """Return True if the database's files contain these bytes."""

    def search(wanted: bytes) -> bool:
        return any(wanted in path.read_bytes() for path in tmp_path.glob("relay.db*"))

    return search


async def test_destroyed_credentials_leave_the_files(embedded: Database, kept: Callable[[bytes], bool]) -> None:
    registrations = SqlRegistrationStore(embedded, LocalWakeups())
    watches = SqlWatchStore(embedded, LocalWakeups())
    ann = new_registration()
    await registrations.create(new_mailbox(), ann, OLD)
    await watches.accept(candidate_of(ann, OLD), NOW)
    assert kept(OLD)

    await registrations.change(ann.id, RegistrationChange(sealed_candidate=NEW), NOW)
    await watches.accept(candidate_of(ann, NEW), NOW)
    assert not kept(OLD)
    assert kept(NEW)

    epoch = await own_all(watches)
    await watches.commit([entry(epoch, Progress(condition=Condition(WatchState.WIPED, Reason.REMOTE_WIPE)))], NOW)
    assert not kept(NEW)


@pytest.mark.parametrize("end", ["refused", "replaced", "removed", "forgotten"])
async def test_candidates_that_ended_leave_the_files(
    embedded: Database, kept: Callable[[bytes], bool], end: str
) -> None:
    registrations = SqlRegistrationStore(embedded, LocalWakeups())
    watches = SqlWatchStore(embedded, LocalWakeups())
    ann = new_registration()
    await registrations.create(new_mailbox(), ann, OLD)
    assert kept(OLD)

    match end:
        case "refused":
            await watches.refuse(candidate_of(ann, OLD), NOW)
        case "replaced":
            await registrations.change(ann.id, RegistrationChange(sealed_candidate=NEW), NOW)
        case "removed":
            await registrations.remove(ann.id, NOW)
        case _:
            await watches.accept(candidate_of(ann, OLD), NOW)
            await registrations.remove(ann.id, NOW)
            assert await watches.forget(MailboxId("mb-ann"))

    assert not kept(OLD)


@pytest.mark.parametrize("way", ["registered", "changed", "proved"])
async def test_candidates_of_twins_leave_the_files(embedded: Database, kept: Callable[[bytes], bool], way: str) -> None:
    registrations = SqlRegistrationStore(embedded, LocalWakeups())
    watches = SqlWatchStore(embedded, LocalWakeups())
    twin, other = new_registration(), new_registration(device="other")
    await registrations.create(new_mailbox(), twin, b"first" if way != "registered" else OLD)
    if way != "registered":
        await watches.accept(candidate_of(twin, b"first"), NOW)
        await registrations.create(new_mailbox(), other, b"first")
        await watches.accept(candidate_of(other, b"first"), NOW)
        await registrations.change(twin.id, RegistrationChange(sealed_candidate=OLD), NOW)
    assert kept(OLD)

    match way:
        case "registered":
            again = new_registration(device="again", device_token=twin.device_token)
            await registrations.create(new_mailbox(), again, NEW)
        case "changed":
            await registrations.change(other.id, RegistrationChange(device_token=twin.device_token), NOW)
        case _:
            change = RegistrationChange(device_token=twin.device_token, proves=True)
            await registrations.change(other.id, change, NOW)
            await answer_challenge(embedded, registrations, other.id)

    assert await registrations.view(twin.id) is None
    assert not kept(OLD)


async def answer_challenge(engine: Database, registrations: SqlRegistrationStore, own: RegistrationId) -> None:
    """Send the challenge of a registration, and prove its device."""
    (push,) = (await SqlOutboxStore(engine, LocalWakeups()).claim(Platform.APNS, 10, "push-1", LATER, NOW)).pushes
    assert await SqlChallengeStore(engine).issue(push, hash_nonce("nonce"), NOW) is None
    assert await registrations.prove(own, "nonce", NOW)


async def test_a_reader_in_the_way_is_no_error(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "relay.store.engine")
    async with open_database(sqlite_url) as engine, open_database(sqlite_url) as other, transaction(other):
        await scrub(engine)

    assert "until the next clean-up: somebody reads them now" in caplog.text


async def test_a_clean_up_that_is_cancelled_leaves_the_connection_in_order(sqlite_url: str) -> None:
    async with open_database(sqlite_url) as engine:
        async with transaction(engine) as connection:
            before = await connection.scalar(sa.text("PRAGMA busy_timeout"))
        for turns in range(20):
            task = asyncio.get_running_loop().create_task(scrub(engine))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() or task.exception() is None

            async with transaction(engine) as connection:
                assert await connection.scalar(sa.text("PRAGMA busy_timeout")) == before
