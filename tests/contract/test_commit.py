"""Test that progress and the marks it leads to are committed together, fenced by the shard's epoch."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from eas_watcher.machine.memory import Change, Collection, Condition, Partnership, Progress, WatchState
from eas_watcher.machine.seen import NONE_SEEN
from eas_watcher.names import CollectionClass, CollectionId, MailboxId, PolicyKey, ProtocolVersion, SyncKey
from eas_watcher.ports import Fenced
from eas_watcher.reasons import Reason
from relay.domain.handover import NOBODY, Offer
from relay.domain.model import DuePush, Mailbox, Mark, Platform, RegistrationId, WatchRecord
from relay.domain.outcome import RetryLater
from relay.domain.ports.outbox import Handover, Settlement
from relay.domain.ports.wakeups import Topic
from relay.store.engine import Database
from relay.store.outbox import SqlOutboxStore
from relay.store.registrations import SqlRegistrationStore
from relay.store.tables import candidate, collection, mailbox, outbox, shard
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from relay.watch import committer
from tests.contract.samples import LATER, MAIL, NEW_MAIL, NOW, SHARD, activate, entry, leases, marks, own_all, register
from tests.transactions import transaction

ANN = MailboxId("mb-ann")
CALENDAR = Collection(CollectionId("Kalender/Ä"), CollectionClass.CALENDAR, SyncKey("k"))


async def recorded(watches: SqlWatchStore, name: str = "ann") -> WatchRecord:
    record = await watches.record(MailboxId(f"mb-{name}"), NOW)
    assert record is not None
    return record


async def test_collections_are_inserted_replaced_and_dropped(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    epoch = await own_all(watches)

    await watches.commit([entry(epoch, Progress(collections=(MAIL, CALENDAR)))], NOW)
    assert (await recorded(watches)).memory.collections == (MAIL, CALENDAR)

    moved = Collection(MAIL.id, MAIL.cls, SyncKey("key-2"), 0, LATER, NONE_SEEN)
    await watches.commit([entry(epoch, Progress(collections=(moved,), dropped=(CALENDAR.id,)))], NOW)
    assert (await recorded(watches)).memory.collections == (moved,)


async def test_what_progress_does_not_name_stays(registrations: SqlRegistrationStore, watches: SqlWatchStore) -> None:
    await activate(registrations, watches)
    epoch = await own_all(watches)
    partnership = Partnership(ProtocolVersion.V14_1, PolicyKey("1"), SyncKey("h"), informed=True)
    await watches.commit([entry(epoch, Progress(partnership, (MAIL,), refusals=2))], NOW)
    before = await recorded(watches)

    await watches.commit([entry(epoch, Progress())], LATER)

    assert await recorded(watches) == before
    await watches.commit([entry(epoch, Progress(Partnership()))], LATER)
    assert (await recorded(watches)).memory.partnership == Partnership()


async def test_since_is_when_state_or_reason_last_changed(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    epoch = await own_all(watches)

    async def shown(condition: Condition, minutes: int) -> Mailbox:
        moment = NOW + timedelta(minutes=minutes)
        await watches.commit([entry(epoch, Progress(condition=condition))], moment)
        return (await recorded(watches)).mailbox

    first = await shown(Condition(WatchState.WAITING, Reason.UNREACHABLE, 30.0, "no route"), 1)
    assert (first.since, first.next_try_at) == (NOW + timedelta(minutes=1), NOW + timedelta(minutes=1, seconds=30))
    again = await shown(Condition(WatchState.WAITING, Reason.UNREACHABLE, 60.0, "timed out"), 2)
    assert (again.since, again.detail) == (NOW + timedelta(minutes=1), "timed out")
    assert again.next_try_at == NOW + timedelta(minutes=3)
    other_reason = await shown(Condition(WatchState.WAITING, Reason.SERVER_BUSY), 3)
    assert (other_reason.since, other_reason.next_try_at) == (NOW + timedelta(minutes=3), None)
    other_state = await shown(Condition(WatchState.BLOCKED, Reason.SERVER_BUSY), 4)
    assert other_state.since == NOW + timedelta(minutes=4)


async def test_changes_become_marks_of_the_registrations_that_asked_for_the_class(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database, wakeups: LocalWakeups
) -> None:
    mail_only = frozenset({CollectionClass.EMAIL})
    await activate(registrations, watches, classes=mail_only)
    await activate(registrations, watches, device="tablet", platform=Platform.FCM)
    await register(registrations, device="unproved")
    await activate(registrations, watches, "ben")
    epoch = await own_all(watches)
    waiter = wakeups.waiter(Topic.OUTBOX_APNS)
    changes = (NEW_MAIL, Change(CollectionClass.CALENDAR, 1, certain=False), Change(CollectionClass.EMAIL, 3))

    await watches.commit([entry(epoch, Progress(collections=(MAIL,), changes=changes))], NOW)

    found = await marks(engine)
    assert set(found) == {("reg-ann-phone", "email"), ("reg-ann-tablet", "email"), ("reg-ann-tablet", "calendar")}
    mail, calendar = found["reg-ann-tablet", "email"], found["reg-ann-tablet", "calendar"]
    assert (mail.changes, mail.generation, mail.certain, mail.platform) == (5, 1, True, "fcm")
    assert (mail.first_at, mail.last_at, mail.due_at, mail.attempts) == (NOW, NOW, NOW, 0)
    assert (calendar.changes, calendar.certain) == (1, False)
    assert found["reg-ann-phone", "email"].platform == "apns"
    assert waiter.woken


async def test_the_last_change_of_a_mailbox_is_that_of_its_collections_and_stays_when_these_are_dropped(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    async def last_change(name: str = "ann") -> datetime | None:
        view = await registrations.view(RegistrationId(f"reg-{name}-phone"))
        return view.mailbox.last_change_at if view else NOW

    await activate(registrations, watches)
    await activate(registrations, watches, "ben")
    epoch = await own_all(watches)
    await watches.commit([entry(epoch, Progress(collections=(MAIL, CALENDAR)))], NOW)
    assert await last_change() is None

    await watches.commit([entry(epoch, Progress(collections=(MAIL,), changes=(NEW_MAIL,)))], LATER)
    assert await last_change() == LATER
    await watches.commit([entry(epoch, Progress(collections=(CALENDAR,), changes=(NEW_MAIL,)))], NOW)
    await watches.commit([entry(epoch, Progress(collections=(MAIL,)))], LATER + timedelta(hours=1))
    assert await last_change() == LATER
    await watches.commit([entry(epoch, Progress(dropped=(MAIL.id,)))], LATER + timedelta(hours=1))
    assert await last_change() == LATER
    await watches.commit([entry(epoch, Progress(dropped=(CALENDAR.id,)))], LATER + timedelta(hours=1))
    assert await last_change() == LATER
    assert await last_change("ben") is None


async def test_changes_add_up_in_one_mark(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database
) -> None:
    await activate(registrations, watches)
    epoch = await own_all(watches)
    await watches.commit([entry(epoch, Progress(changes=(Change(CollectionClass.EMAIL, 1, certain=False),)))], NOW)

    await watches.commit([entry(epoch, Progress(changes=(NEW_MAIL,)))], LATER)

    (mark,) = (await marks(engine)).values()
    assert (mark.changes, mark.generation, mark.certain) == (3, 2, True)
    assert (mark.first_at, mark.last_at, mark.due_at) == (NOW, LATER, NOW)
    await watches.commit([entry(epoch, Progress(changes=(Change(CollectionClass.EMAIL, 1, certain=False),)))], LATER)
    (mark,) = (await marks(engine)).values()
    assert (mark.changes, mark.certain) == (4, True)


async def test_a_mark_that_waits_for_a_retry_keeps_waiting_when_more_comes(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    await activate(registrations, watches)
    epoch = await own_all(watches)
    await watches.commit([entry(epoch, Progress(changes=(NEW_MAIL,)))], NOW)
    (push,) = (await outbox.claim(Platform.APNS, 10, "push-1", LATER, NOW)).pushes
    retry_at = NOW + timedelta(hours=1)
    await outbox.settle([Settlement(push, RetryLater("busy"), retry_at)], NOW)

    await watches.commit([entry(epoch, Progress(changes=(NEW_MAIL,)))], LATER)

    assert await outbox.next_due(Platform.APNS) == retry_at
    (again,) = (await outbox.claim(Platform.APNS, 10, "push-1", retry_at, retry_at)).pushes
    assert (again.count, again.attempts) == (4, 1)


async def test_attention_marks_every_active_registration(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database
) -> None:
    await activate(registrations, watches, classes=frozenset({CollectionClass.NOTES}))
    await activate(registrations, watches, device="tablet")
    await register(registrations, device="unproved")
    epoch = await own_all(watches)

    await watches.commit([entry(epoch, Progress(attention=True))], NOW)

    assert set(await marks(engine)) == {("reg-ann-phone", "attention"), ("reg-ann-tablet", "attention")}
    assert (await recorded(watches)).mailbox.last_change_at is None


async def test_an_attention_that_may_be_the_servers_fault_is_uncertain_until_a_certain_one_joins_it(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database
) -> None:
    async def certain() -> list[bool]:
        async with transaction(engine) as connection:
            return list(await connection.scalars(sa.select(outbox.c.certain)))

    await activate(registrations, watches)
    epoch = await own_all(watches)

    await watches.commit([entry(epoch, Progress(attention=True, in_doubt=True))], NOW)
    assert await certain() == [False]

    await watches.commit([entry(epoch, Progress(attention=True))], NOW)
    assert await certain() == [True]


async def test_progress_without_changes_wakes_no_dispatcher(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, wakeups: LocalWakeups, engine: Database
) -> None:
    await activate(registrations, watches)
    epoch = await own_all(watches)
    waiter = wakeups.waiter(Topic.OUTBOX_APNS)

    assert await watches.commit([], NOW) == frozenset()
    await watches.commit([entry(epoch, Progress(collections=(MAIL,)))], NOW)

    assert not waiter.woken
    assert await marks(engine) == {}


async def test_a_wipe_destroys_credential_keys_and_all_marks_but_attention(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database
) -> None:
    registration = await activate(registrations, watches)
    await activate(registrations, watches, "ben")
    epoch = await own_all(watches)
    partnership = Partnership(ProtocolVersion.V14_1, PolicyKey("1"), SyncKey("h"), informed=True)
    both = [entry(epoch, Progress(partnership, (MAIL,), changes=(NEW_MAIL,)), name) for name in ("ann", "ben")]
    await watches.commit(both, NOW)
    await registrations.mark(registration.id, Mark.TEST, NOW)

    wiped = Condition(WatchState.WIPED, Reason.REMOTE_WIPE)
    last = Progress(collections=(CALENDAR,), changes=(NEW_MAIL,), condition=wiped, attention=True)
    await watches.commit([entry(epoch, last)], LATER)

    record = await recorded(watches)
    assert (record.sealed_credential, record.memory.collections) == (None, ())
    assert record.memory.partnership == Partnership()
    assert (record.mailbox.state, record.mailbox.since) == (WatchState.WIPED, LATER)
    assert set(await marks(engine)) == {("reg-ann-phone", "attention"), ("reg-ben-phone", "email")}
    other = await recorded(watches, "ben")
    assert (other.sealed_credential, other.memory.collections) == (b"sealed", (MAIL,))


@pytest.mark.parametrize("refusals", [None, 2], ids=["news", "more"])
async def test_a_lost_lease_commits_nothing_and_the_others_go_through(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database, refusals: int | None
) -> None:
    for name, number in (("ann", 7), ("ben", 8), ("eve", 9)):
        await activate(registrations, watches, name, shard=number)
    epoch = await own_all(watches)
    async with transaction(engine) as connection:
        await connection.execute(sa.update(shard).where(shard.c.number == 8).values(epoch=epoch + 1, owner="node-2"))
    progress = Progress(collections=(MAIL,), changes=(NEW_MAIL,), refusals=refusals)

    fenced = await watches.commit(
        [entry(epoch, progress, "ann", 7), entry(epoch, progress, "ben", 8), entry(epoch, progress, "eve", 10)], NOW
    )

    assert fenced == {"mb-ben", "mb-eve"}
    assert set(await marks(engine)) == {("reg-ann-phone", "email")}
    assert (await recorded(watches, "ann")).memory.collections == (MAIL,)
    for name in ("ben", "eve"):
        memory = (await recorded(watches, name)).memory
        assert (memory.collections, memory.refusals) == ((), 0)


async def test_a_mailbox_that_is_gone_is_fenced(registrations: SqlRegistrationStore, watches: SqlWatchStore) -> None:
    epoch = await own_all(watches)

    assert await watches.commit([entry(epoch, Progress(collections=(MAIL,)))], NOW) == {ANN}


async def test_a_batch_that_fails_leaves_nothing(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database
) -> None:
    await activate(registrations, watches)
    await activate(registrations, watches, "ben")
    epoch = await own_all(watches)
    poisoned = Collection(CollectionId("6"), CollectionClass.EMAIL, SyncKey("k"), newest=NOW.replace(tzinfo=None))
    batch = [
        entry(epoch, Progress(collections=(MAIL,), changes=(NEW_MAIL,))),
        entry(epoch, Progress(collections=(poisoned,)), "ben"),
    ]

    with pytest.raises(ValueError, match="without time zone"):
        await watches.commit(batch, NOW)

    assert (await recorded(watches)).memory.collections == ()
    assert await marks(engine) == {}


async def test_values_stay_out_of_error_texts(engine: Database) -> None:
    row = {"registration_id": "nobody", "sealed": b"sealed-credential"}

    with pytest.raises(sa.exc.IntegrityError) as raised:
        async with transaction(engine) as connection:
            await connection.execute(sa.insert(candidate), row)

    assert "sealed-credential" not in str(raised.value)


async def test_a_hundred_mailboxes_are_committed_in_a_few_statements(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database
) -> None:
    names = [f"user{number:03}" for number in range(100)]
    for name in names:
        await register(registrations, name)
    async with transaction(engine) as connection:
        await connection.execute(sa.update(mailbox).values(state="starting"))
        await connection.execute(sa.text("UPDATE registration SET state = 'active'"))
    epoch = await own_all(watches)
    executed: list[str] = []

    def listen(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        executed.append(statement)

    sa.event.listen(engine.engine, "before_cursor_execute", listen)
    watching = Condition(WatchState.WATCHING)
    progress = Progress(collections=(MAIL,), condition=watching, refusals=0)
    counts = {name: number for number, name in enumerate(names, 1)}
    entries = [
        entry(epoch, replace(progress, changes=(replace(NEW_MAIL, count=counts[name]),)), name)
        for name in reversed(names)
    ]
    await watches.commit(entries, NOW)

    assert len([statement for statement in executed if not statement.startswith(("BEGIN", "COMMIT"))]) <= 8
    assert {id_: row.changes for (id_, _), row in (await marks(engine)).items()} == {
        f"reg-{name}-phone": count for name, count in counts.items()
    }
    assert len(await watches.records(await leases(watches, [SHARD]), NOW)) == 100


class Full:
    """Dispatchers that take part, but have no free slot."""

    def offer(self) -> Mapping[Platform, Offer]:
        return {Platform.APNS: Offer("push", LATER, 0)}

    def take(self, offers: Mapping[Platform, Offer], pushes: Sequence[DuePush]) -> None:
        assert not pushes


@pytest.mark.parametrize(
    ("handover", "expected"),
    # One statement, which is a transaction by itself; or the leases with the mailboxes, what moved with the
    # listeners, and the marks, between BEGIN and COMMIT.
    [(NOBODY, 1), (Full(), 5)],
)
async def test_a_lone_change_waits_for_few_answers_of_postgresql(
    postgres_engine: Database, handover: Handover, expected: int
) -> None:
    registrations = SqlRegistrationStore(postgres_engine, LocalWakeups())
    watches = SqlWatchStore(postgres_engine, LocalWakeups(), handover=handover)
    await activate(registrations, watches)
    epoch = await own_all(watches)
    executed: list[str] = []

    def listen(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        executed.append(statement)

    sa.event.listen(postgres_engine.engine, "before_cursor_execute", listen)
    for seen in (MAIL, replace(MAIL, sync_key=SyncKey("{next}1"))):  # the first inserts the collection
        executed.clear()
        assert not await watches.commit([entry(epoch, Progress(collections=(seen,), changes=(NEW_MAIL,)))], LATER)

        assert len(executed) == expected

    [record] = await watches.records(await leases(watches, [SHARD]), NOW)
    assert [each.sync_key for each in record.memory.collections] == ["{next}1"]
    assert {key: mark.changes for key, mark in (await marks(postgres_engine)).items()} == {
        ("reg-ann-phone", "email"): 4
    }
    async with transaction(postgres_engine) as connection:
        assert await connection.scalar(sa.select(collection.c.changed_at)) == LATER


async def test_collections_that_are_there_and_new_ones_are_written_in_one_commit(
    registrations: SqlRegistrationStore, watches: SqlWatchStore
) -> None:
    await activate(registrations, watches)
    epoch = await own_all(watches)
    other = replace(MAIL, id=CollectionId("99"))
    await watches.commit([entry(epoch, Progress(collections=(MAIL,)))], NOW)

    moved = replace(MAIL, sync_key=SyncKey("{next}2"))
    await watches.commit([entry(epoch, Progress(collections=(moved, other)))], LATER)

    [record] = await watches.records(await leases(watches, [SHARD]), NOW)
    assert sorted((each.id, each.sync_key) for each in record.memory.collections) == sorted(
        (each.id, each.sync_key) for each in (moved, other)
    )


async def test_changes_in_subfolders_become_marks_only_of_those_who_asked_for_them(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database
) -> None:
    mail = frozenset({CollectionClass.EMAIL})
    await activate(registrations, watches)
    await activate(registrations, watches, device="tablet", subfolders=mail)
    await activate(registrations, watches, device="watch", classes=frozenset({CollectionClass.TASKS}), subfolders=mail)
    epoch = await own_all(watches)
    in_sub = Change(CollectionClass.EMAIL, 3, sub=True)
    other = Change(CollectionClass.CALENDAR, 1, sub=True)

    await watches.commit([entry(epoch, Progress(changes=(in_sub, other)))], NOW)
    assert {key: mark.changes for key, mark in (await marks(engine)).items()} == {("reg-ann-tablet", "email"): 3}

    await watches.commit([entry(epoch, Progress(changes=(NEW_MAIL, in_sub)))], LATER)
    assert {key: mark.changes for key, mark in (await marks(engine)).items()} == {
        ("reg-ann-phone", "email"): 2,
        ("reg-ann-tablet", "email"): 8,
    }


async def test_groups_that_are_written_at_a_time_keep_the_order_of_each_mailbox_and_its_fence(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "LARGEST", 2)
    names = ("ann", "ben", "eve", "joe", "kim")
    for name in names:
        await activate(registrations, watches, name)
    epoch = await own_all(watches)
    writer = committer.GroupCommitter(watches, lambda: NOW)
    moves = [replace(MAIL, sync_key=SyncKey(f"key-{number}")) for number in range(4)]
    news = [
        entry(epoch, Progress(collections=(moved,), changes=(NEW_MAIL,)), name) for moved in moves for name in names
    ]
    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(writer.run())
        lost = replace(news[0], epoch=epoch - 1)
        *written, fenced = await asyncio.gather(*map(writer.commit, [*news, lost]), return_exceptions=True)
        writing.cancel()

    assert written == [None] * len(news)
    assert isinstance(fenced, Fenced)
    assert [(await recorded(watches, name)).memory.collections for name in names] == [(moves[-1],)] * len(names)
    assert {mark.changes for mark in (await marks(engine)).values()} == {len(moves) * NEW_MAIL.count}
