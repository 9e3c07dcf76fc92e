"""Test leases of shards, and that the watch role reads mailboxes as they were left."""

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from eas_watcher.commands.folder_sync import Folder
from eas_watcher.commands.provision import Acknowledgement
from eas_watcher.machine.memory import Collection, Condition, Memory, Partnership, Progress, WatchState
from eas_watcher.names import CollectionClass, CollectionId, MailboxId, PolicyKey, ProtocolVersion, SyncKey
from eas_watcher.reasons import Reason
from relay.domain.errors import StoreUnavailable
from relay.domain.model import RegistrationChange, RegistrationState
from relay.domain.unreadable import UnreadableRows
from relay.store.engine import Database
from relay.store.records import take_records
from relay.store.registrations import SqlRegistrationStore
from relay.store.tables import mailbox
from relay.store.watches import SqlWatchStore
from tests.contract.samples import (
    LATER,
    MAIL,
    NOW,
    SHARD,
    activate,
    candidate_of,
    entry,
    lease_all,
    leases,
    own_all,
    register,
)
from tests.transactions import recorded, touching, transaction

ANN = MailboxId("mb-ann")
PARTNERSHIP = Partnership(
    ProtocolVersion.V16_1,
    PolicyKey("307199232"),
    SyncKey("h-3"),
    informed=True,
    acknowledged=Acknowledgement.THIRD_PARTY,
    url="https://mail2.example.com/eas",
    horizon=NOW,
)


async def test_records_hold_all_that_was_committed(registrations: SqlRegistrationStore, watches: SqlWatchStore) -> None:
    registration = await activate(registrations, watches)
    epoch = await own_all(watches)
    condition = Condition(WatchState.WAITING, Reason.UNREACHABLE, retry_in=90.0, detail="no route")
    await watches.commit([entry(epoch, Progress(PARTNERSHIP, (MAIL,), condition=condition, refusals=1))], NOW)

    record = await watches.record(ANN, LATER)

    assert record is not None
    assert record.memory == Memory(PARTNERSHIP, (MAIL,), registration.classes, refusals=1, retry_in=30.0)
    assert record.sealed_credential == b"sealed"
    assert (record.candidates, record.registrations) == ((), 1)
    assert (record.mailbox.state, record.mailbox.reason, record.mailbox.detail) == (
        WatchState.WAITING,
        "unreachable",
        "no route",
    )


async def test_a_wait_that_is_over_leaves_none(registrations: SqlRegistrationStore, watches: SqlWatchStore) -> None:
    await activate(registrations, watches)
    epoch = await own_all(watches)
    condition = Condition(WatchState.WAITING, Reason.UNREACHABLE, retry_in=30.0)
    await watches.commit([entry(epoch, Progress(condition=condition))], NOW)

    record = await watches.record(ANN, LATER)

    assert record is not None
    assert record.memory.retry_in == 0.0


async def test_taking_a_shard_counts_a_try_on_every_key(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    await activate(registrations, watches, "ben", shard=8)
    epoch = await own_all(watches)
    await watches.commit(
        [entry(epoch, Progress(collections=(MAIL,))), entry(epoch, Progress(collections=(MAIL,)), "ben", 8)], NOW
    )

    (record,) = await watches.records(await leases(watches, [SHARD]), NOW)

    assert record.mailbox.id == ANN
    assert [collection.tries for collection in record.memory.collections] == [MAIL.tries + 1]
    again = await watches.record(ANN, NOW)
    assert again is not None
    assert again.memory == record.memory
    other = await watches.record(MailboxId("mb-ben"), NOW)
    assert other is not None
    assert other.memory.collections == (MAIL,)


async def test_dirty_mailboxes_are_taken_once(registrations: SqlRegistrationStore, watches: SqlWatchStore) -> None:
    registration = await register(registrations)
    await register(registrations, "ben", shard=8)

    (record,) = await watches.take_dirty(await leases(watches, [SHARD]), NOW)

    assert record.candidates == (replace(candidate_of(registration), created_at=NOW),)
    assert record.sealed_credential is None
    assert record.memory.classes == frozenset()
    assert await watches.take_dirty(await leases(watches, [SHARD]), NOW) == []
    assert [record.mailbox.id for record in await watches.take_dirty(await leases(watches, [SHARD, 8]), NOW)] == [
        MailboxId("mb-ben")
    ]


async def test_taking_a_shard_clears_its_dirty_flags_and_reading_one_does_not(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await register(registrations)
    await watches.record(ANN, NOW)
    assert len(await watches.take_dirty(await leases(watches, [SHARD]), NOW)) == 1
    await registrations.change((await register(registrations, device="tablet")).id, RegistrationChange(), NOW)

    assert len(await watches.records(await leases(watches, [SHARD]), NOW)) == 1

    assert await watches.take_dirty(await leases(watches, [SHARD]), NOW) == []


async def test_only_active_registrations_say_which_classes_are_watched(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches, classes=frozenset({CollectionClass.EMAIL}))
    await activate(registrations, watches, device="tablet", classes=frozenset({CollectionClass.TASKS}))
    await register(registrations, device="watch", classes=frozenset({CollectionClass.NOTES}))

    record = await watches.record(ANN, NOW)

    assert record is not None
    assert record.memory.classes == {CollectionClass.EMAIL, CollectionClass.TASKS}
    assert record.registrations == 3


async def test_a_mailbox_that_is_not_there_has_no_record(watches: SqlWatchStore) -> None:
    assert await watches.record(ANN, NOW) is None
    assert await watches.records(await leases(watches, [SHARD]), NOW) == []
    assert await watches.take_dirty({}, NOW) == []


async def test_more_mailboxes_than_one_statement_carries_are_read_whole(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database
) -> None:
    names = ["a", "b", "c", "d", "e"]
    for name in names:
        await register(registrations, name)

    taken = await engine.run(
        take_records, await leases(watches, [SHARD]), NOW, UnreadableRows(), only_dirty=True, at_once=2
    )

    assert [record.mailbox.id for record in taken] == [f"mb-{name}" for name in names]
    assert all(len(record.candidates) == 1 for record in taken)
    assert await watches.take_dirty(await leases(watches, [SHARD]), NOW) == []


async def test_a_start_locks_mailboxes_before_it_counts_a_try_on_their_keys(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database
) -> None:
    await register(registrations)
    with recorded(engine) as transactions:
        await watches.records(await leases(watches, [SHARD]), NOW)

    ((*statements,),) = touching(transactions, "UPDATE collection")
    tried = next(number for number, text in enumerate(statements) if text.startswith("UPDATE collection"))
    assert any(text.startswith("SELECT mailbox.") for text in statements[:tried])


async def test_noted_pings_are_seen_by_operators(registrations: SqlRegistrationStore, watches: SqlWatchStore) -> None:
    await register(registrations)
    await register(registrations, "ben")

    await watches.note_pings({MailboxId("mb-ben"): (LATER, 480.0), ANN: (NOW, 900.5), MailboxId("mb-gone"): (NOW, 1.0)})
    await watches.note_pings({})

    found = [await registrations.mailbox_of("office", f"{name}@example.com") for name in ("ann", "ben")]
    assert [(m.last_ping_at, m.heartbeat) for m in found if m] == [(NOW, 900.5), (LATER, 480.0)]


async def test_a_mailbox_is_forgotten_only_when_no_registration_names_it(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database
) -> None:
    registration = await activate(registrations, watches)
    epoch = await own_all(watches)
    await watches.commit([entry(epoch, Progress(collections=(MAIL,)))], NOW)

    assert not await watches.forget(ANN)
    await registrations.remove(registration.id, NOW)
    (record,) = await watches.take_dirty(await leases(watches, [SHARD]), NOW)
    assert record.registrations == 0
    assert await watches.forget(ANN)

    assert await watches.record(ANN, NOW) is None
    assert await watches.forget(ANN)


async def test_a_forgotten_mailbox_starts_from_nothing(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    registration = await activate(registrations, watches)
    epoch = await own_all(watches)
    await watches.commit([entry(epoch, Progress(PARTNERSHIP, (MAIL,)))], NOW)
    await registrations.remove(registration.id, NOW)
    await watches.forget(ANN)

    await register(registrations)

    record = await watches.record(ANN, NOW)
    assert record is not None
    assert (record.memory.partnership, record.memory.collections) == (Partnership(), ())
    assert record.sealed_credential is None
    assert record.mailbox.state is WatchState.VERIFYING
    view = await registrations.view(registration.id)
    assert view is not None
    assert view.registration.state is RegistrationState.VERIFYING


async def test_dirty_mailboxes_are_not_lost_with_the_answer_to_the_commit(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await register(registrations)
    mine = await leases(watches, [SHARD])

    def commit_and_lose_the_connection(connection: sa.Connection) -> None:
        connection.exec_driver_sql("COMMIT")
        raise ConnectionResetError

    sa.event.listen(engine.engine, "commit", commit_and_lose_the_connection, once=True)
    taken = await watches.take_dirty(mine, NOW)

    assert [record.mailbox.id for record in taken] == [ANN]
    assert await watches.take_dirty(mine, NOW) == []


async def test_dirty_mailboxes_that_could_not_be_read_stay_dirty(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await register(registrations)
    mine = await leases(watches, [SHARD])

    def lose_the_connection(_: sa.Connection) -> None:
        raise ConnectionResetError

    sa.event.listen(engine.engine, "begin", lose_the_connection, once=True)
    with pytest.raises(StoreUnavailable):
        await watches.take_dirty(mine, NOW)

    assert len(await watches.take_dirty(mine, NOW)) == 1


async def test_a_wait_written_by_a_clock_that_was_wrong_is_not_served(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    epoch = await own_all(watches)
    condition = Condition(WatchState.WAITING, Reason.SERVER_BUSY, retry_in=3600.0)
    await watches.commit([entry(epoch, Progress(condition=condition))], NOW)

    soon = await watches.record(ANN, NOW)
    long_before = await watches.record(ANN, NOW - timedelta(days=1))

    assert soon is not None
    assert long_before is not None
    assert (soon.memory.retry_in, long_before.memory.retry_in) == (3600.0, 0.0)


async def test_subfolders_are_those_of_the_active_registrations_for_classes_they_watch(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    mail, tasks = CollectionClass.EMAIL, CollectionClass.TASKS
    await activate(registrations, watches, subfolders=frozenset({tasks}))
    tablet = await activate(registrations, watches, device="tablet")
    await register(registrations, device="unproved", subfolders=frozenset({mail}))
    record = await watches.record(ANN, NOW)
    assert record is not None
    assert record.memory.subfolders == frozenset()

    await registrations.change(tablet.id, RegistrationChange(subfolders=frozenset({mail, tasks})), LATER)

    (record,) = await watches.take_dirty(await leases(watches, [SHARD]), LATER)
    assert record.memory.subfolders == {mail}
    assert record.memory.hierarchy is None


async def test_a_hierarchy_is_kept_replaced_and_forgotten(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    await activate(registrations, watches, "ben")
    epoch = await own_all(watches)
    inbox = Folder(CollectionId("5"), CollectionId("0"), 2)
    projects = Folder(CollectionId("20"), inbox.id, 12)
    sub = replace(MAIL, id=projects.id, sub=True)

    async def kept(progress: Progress) -> tuple[tuple[Folder, ...] | None, tuple[Collection, ...]]:
        await watches.commit([entry(epoch, progress), entry(epoch, Progress(), "ben")], NOW)
        record = await watches.record(ANN, NOW)
        assert record is not None
        return record.memory.hierarchy, record.memory.collections

    plain = replace(sub, sub=False)
    assert await kept(Progress(collections=(sub,), hierarchy=(projects, inbox))) == ((projects, inbox), (sub,))
    assert await kept(Progress(condition=Condition(WatchState.WATCHING))) == ((projects, inbox), (sub,))
    assert await kept(Progress(hierarchy=(inbox,), dropped=(sub.id,))) == ((inbox,), ())
    assert await kept(Progress(collections=(plain,))) == ((inbox,), (plain,))
    assert await kept(Progress(hierarchy=())) == (None, (plain,))
    ben = await watches.record(MailboxId("mb-ben"), NOW)
    assert ben is not None
    assert ben.memory.hierarchy is None


async def test_a_neighbour_counts_as_accepted_when_its_last_ping_began(
    engine: Database, registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    epoch = await own_all(watches)
    assert await watches.accepted_beside(ANN) is None
    rows = {
        "mb-ben": {"state": "watching", "last_ping_at": NOW},
        "mb-cleo": {"state": "waiting", "last_ping_at": LATER},
        "mb-elsewhere": {"state": "watching", "last_ping_at": LATER, "url": "https://mail2.example.com/eas"},
        "mb-other": {"state": "watching", "last_ping_at": LATER, "server": "other"},
    }
    async with transaction(engine) as connection:
        server = await connection.scalar(sa.select(mailbox.c.server).where(mailbox.c.id == ANN))
        for id_, row in rows.items():
            given = {"server": server, "url": None} | row
            await connection.execute(
                sa.insert(mailbox).values(id=id_, user=id_, device_id=id_, shard=1, since=NOW, **given)
            )
        own = sa.update(mailbox).where(mailbox.c.id == ANN)
        await connection.execute(own.values(state="watching", last_ping_at=LATER))

    assert await watches.accepted_beside(ANN) == NOW
    await watches.commit([entry(epoch, Progress(PARTNERSHIP))], NOW)
    assert await watches.accepted_beside(ANN) == LATER
    assert await watches.accepted_beside(MailboxId("mb-gone")) is None


async def test_the_flags_of_a_shard_that_has_another_owner_stay_for_it(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await register(registrations)
    await register(registrations, "ben", shard=8)
    before = await lease_all(watches)
    after = await lease_all(watches, "node-2")
    mine = {SHARD: before[SHARD], 8: after[8]}

    assert [record.mailbox.id for record in await watches.take_dirty(mine, NOW)] == [MailboxId("mb-ben")]
    assert [record.mailbox.id for record in await watches.records(mine, NOW)] == [MailboxId("mb-ben")]
    assert [record.mailbox.id for record in await watches.take_dirty(after, NOW)] == [ANN]
