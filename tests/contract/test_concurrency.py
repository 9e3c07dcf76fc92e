"""Test that many processes on one PostgreSQL neither take the same thing twice, nor block each other in a circle."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from datetime import timedelta
from random import Random
from typing import Any, Final

import pytest
import sqlalchemy as sa

from eas_watcher.machine.memory import Change, Condition, Progress, WatchState
from eas_watcher.names import CollectionClass, MailboxId
from relay.domain.errors import MailboxExists
from relay.domain.model import (
    CommitEntry,
    DuePush,
    Mark,
    NewMailbox,
    Platform,
    Registration,
    RegistrationChange,
    RegistrationId,
)
from relay.domain.outcome import Delivered, Refused, RetryLater
from relay.domain.pacing import Pacing
from relay.domain.ports.outbox import Settlement
from relay.store.claims import claim_marks
from relay.store.engine import Database, open_database
from relay.store.lanes import Lanes
from relay.store.outbox import SqlOutboxStore
from relay.store.registrations import SqlRegistrationStore
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import (
    LATER,
    MAIL,
    NEW_MAIL,
    NOW,
    SHARD,
    activate,
    candidate_of,
    entry,
    leases,
    marks,
    new_mailbox,
    new_registration,
    own_all,
    register,
)
from tests.transactions import transaction

LATE = NOW + timedelta(hours=2)
NAMES = [f"user{number:02}" for number in range(30)]
CHANGED = Progress(collections=(MAIL,), changes=(NEW_MAIL, Change(CollectionClass.CALENDAR, 1)))


@pytest.fixture
async def other_engine(postgres_url: str) -> AsyncIterator[Database]:
    """The engine of another process on the same database."""
    async with open_database(postgres_url) as engine:
        yield engine


async def activate_all(engine: Database) -> int:
    registrations, watches = SqlRegistrationStore(engine, LocalWakeups()), SqlWatchStore(engine, LocalWakeups())
    for name in NAMES:
        await activate(registrations, watches, name)
    return await own_all(watches)


def batch(epoch: int, names: Sequence[str]) -> list[CommitEntry]:
    return [entry(epoch, CHANGED, name) for name in names]


MANY: Final = (
    """INSERT INTO mailbox (id, server, "user", device_id, shard, state, since)
        SELECT n, 's', n, n, 1, 'watching', now() FROM generate_series(1, 3000) AS n""",
    """INSERT INTO registration (id, mailbox_id, secret_hash, app, platform, environment, device_token, token_since,
        classes, mode, locale, state, created_at) SELECT n, n, 'h', 'mail', 'apns', 'production', n, now(),
        '["email"]', 'alert', 'en', 'active', now() FROM generate_series(1, 3000) AS n""",
    """INSERT INTO outbox (registration_id, mark, platform, count, generation, certain, first_at, last_at, due_at,
        attempts) SELECT n, 'email', 'apns', 1, 1, true, :now, :now, CAST(:now AS timestamptz) - n * interval '1 s', 0
        FROM generate_series(1, 3000) AS n""",
)


async def test_a_claim_looks_at_few_more_marks_than_it_takes_of_many(postgres_engine: Database) -> None:
    read = """SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables
        WHERE relname = 'registration'"""
    async with transaction(postgres_engine) as connection:
        for statement in MANY:
            await connection.execute(sa.text(statement), {"now": NOW} if ":now" in statement else {})
    async with transaction(postgres_engine) as connection:
        before = await connection.scalar(sa.text(read))
        claimed, _ = await connection.run_sync(
            claim_marks, Lanes(Platform.APNS), 10, "push", LATER, NOW + timedelta(seconds=1), Pacing()
        )
        tuples = await connection.scalar(sa.text(read)) - before

    assert [push.registration_id for push in claimed.pushes] == [f"{n}" for n in range(3000, 2990, -1)]
    assert tuples < 100  # of 3,000; each mark that is looked at costs one


async def test_a_claim_alone_does_not_wait_for_the_disk(postgres_engine: Database) -> None:
    waits = sa.text("SHOW synchronous_commit")
    async with transaction(postgres_engine) as connection:
        before = await connection.scalar(waits)
        await connection.run_sync(claim_marks, Lanes(Platform.APNS), 10, "push", LATER, NOW, Pacing())
        during = await connection.scalar(waits)
    async with transaction(postgres_engine) as connection:  # over the same connection
        after = await connection.scalar(waits)

    assert (before, during, after) == ("on", "off", "on")


async def test_two_claimers_never_get_the_same_mark(postgres_engine: Database, other_engine: Database) -> None:
    epoch = await activate_all(postgres_engine)
    await SqlWatchStore(postgres_engine, LocalWakeups()).commit(batch(epoch, NAMES), NOW)
    stores = [SqlOutboxStore(engine, LocalWakeups()) for engine in (postgres_engine, other_engine)]

    async def claim_all(store: SqlOutboxStore, owner: str) -> list[DuePush]:
        claimed: list[DuePush] = []
        while pushes := (await store.claim(Platform.APNS, 3, owner, LATER, NOW)).pushes:
            claimed += pushes
        return claimed

    found = await asyncio.gather(*(claim_all(store, f"{n}") for n in range(3) for store in stores))

    taken = Counter((push.registration_id, push.mark) for pushes in found for push in pushes)
    assert set(taken.values()) == {1}
    assert len(taken) == 2 * len(NAMES)


async def test_a_claim_skips_what_another_has_locked(postgres_engine: Database, other_engine: Database) -> None:
    epoch = await activate_all(postgres_engine)
    await SqlWatchStore(postgres_engine, LocalWakeups()).commit(batch(epoch, NAMES), NOW)
    async with transaction(other_engine) as connection:
        await connection.execute(sa.text("SELECT 1 FROM outbox WHERE mark = 'email' FOR UPDATE"))

        async with asyncio.timeout(5):
            claimed = await SqlOutboxStore(postgres_engine, LocalWakeups()).claim(Platform.APNS, 100, "p", LATER, NOW)

    assert {push.mark for push in claimed.pushes} == {Mark.CALENDAR}


async def quarantine_all(engine: Database) -> None:
    """Put every registration into quarantine; each has two marks, and its re-check is due at LATE."""
    epoch = await activate_all(engine)
    await SqlWatchStore(engine, LocalWakeups()).commit(batch(epoch, NAMES), NOW)
    outbox = SqlOutboxStore(engine, LocalWakeups())
    pushes = (await outbox.claim(Platform.APNS, 2 * len(NAMES), "push", LATER, NOW)).pushes
    assert len(pushes) == 2 * len(NAMES)
    await outbox.settle([Settlement(push, Refused("BadDeviceToken", "look"), NOW) for push in pushes], NOW)


async def test_a_trial_that_is_not_committed_keeps_others_from_its_phone(
    postgres_engine: Database, other_engine: Database
) -> None:
    await quarantine_all(postgres_engine)
    outbox = SqlOutboxStore(postgres_engine, LocalWakeups())
    lanes, until = Lanes(Platform.APNS), LATE + timedelta(minutes=1)
    async with transaction(other_engine) as connection:
        trials, _ = await connection.run_sync(claim_marks, lanes, len(NAMES), "one", until, LATE, Pacing())
        assert len({push.registration_id for push in trials.pushes}) == len(NAMES)

        assert (await outbox.claim(Platform.APNS, 2 * len(NAMES), "two", until, LATE)).pushes == ()

    assert (await outbox.claim(Platform.APNS, 2 * len(NAMES), "two", until, LATE)).pushes == ()


async def test_a_trial_that_is_committed_while_another_process_looks_is_seen(
    postgres_engine: Database, other_engine: Database
) -> None:
    await quarantine_all(postgres_engine)
    until = LATE + timedelta(minutes=1)
    stores = [SqlOutboxStore(engine, LocalWakeups()) for engine in (postgres_engine, other_engine)]

    async def claim_all(store: SqlOutboxStore, owner: str) -> list[DuePush]:
        claimed: list[DuePush] = []
        for _ in range(len(NAMES)):
            claimed += (await store.claim(Platform.APNS, 3, owner, until, LATE)).pushes
        return claimed

    found = await asyncio.gather(*(claim_all(store, f"{n}") for n in range(3) for store in stores))

    tried = Counter(push.registration_id for pushes in found for push in pushes)
    assert len(tried) == len(NAMES)
    assert set(tried.values()) == {1}


async def test_a_phone_whose_registration_is_in_other_hands_is_tried_later(
    postgres_engine: Database, other_engine: Database
) -> None:
    await quarantine_all(postgres_engine)
    outbox, until = SqlOutboxStore(postgres_engine, LocalWakeups()), LATE + timedelta(minutes=1)
    async with transaction(other_engine) as connection:
        await connection.execute(sa.text("SELECT 1 FROM registration FOR UPDATE"))

        async with asyncio.timeout(5):
            assert (await outbox.claim(Platform.APNS, 100, "push", until, LATE)).pushes == ()

    assert len((await outbox.claim(Platform.APNS, 100, "push", until, LATE)).pushes) == len(NAMES)


async def test_commits_of_the_same_mailboxes_in_any_order_do_not_deadlock(
    postgres_engine: Database, other_engine: Database
) -> None:
    epoch = await activate_all(postgres_engine)
    random = Random(7)
    stores = [SqlWatchStore(engine, LocalWakeups()) for engine in (postgres_engine, other_engine)]

    async def commit_often(store: SqlWatchStore) -> None:
        for _ in range(10):
            names = random.sample(NAMES, len(NAMES))
            assert await store.commit(batch(epoch, names), NOW) == frozenset()

    await asyncio.gather(*(commit_often(store) for store in stores for _ in range(2)))

    found = await marks(postgres_engine)
    assert {row.changes for (_, mark), row in found.items() if mark == "email"} == {2 * 40}
    assert {row.generation for row in found.values()} == {40}


@pytest.mark.slow
async def test_all_roles_together_do_not_deadlock(postgres_engine: Database, other_engine: Database) -> None:
    epoch = await activate_all(postgres_engine)
    random = Random(11)
    watches = SqlWatchStore(postgres_engine, LocalWakeups())
    registrations = SqlRegistrationStore(other_engine, LocalWakeups())
    outbox = SqlOutboxStore(other_engine, LocalWakeups())

    async def watch() -> None:
        for _ in range(15):
            await watches.commit(batch(epoch, random.sample(NAMES, len(NAMES))), NOW)
            await watches.take_dirty(await leases(watches, [SHARD]), NOW)
            await watches.note_pings({MailboxId(f"mb-{name}"): (NOW, 60.0) for name in NAMES})

    async def push(owner: str) -> None:
        for _ in range(15):
            pushes = [*(await outbox.claim(Platform.APNS, 20, owner, LATER, NOW)).pushes]
            random.shuffle(pushes)
            ends = [
                Settlement(p, Delivered()) if n % 3 else Settlement(p, RetryLater("b"), NOW)
                for n, p in enumerate(pushes)
            ]
            await outbox.settle(ends, NOW)

    async def register_and_remove() -> None:
        for name in random.sample(NAMES, 20):
            tablet = await register(registrations, name, "tablet")
            await watches.accept(candidate_of(tablet), NOW)
            await registrations.change(tablet.id, RegistrationChange(device_token="new", sealed_candidate=b"x"), NOW)
            await registrations.mark(tablet.id, Mark.TEST, NOW)
            await registrations.remove(tablet.id, NOW)

    await asyncio.gather(watch(), watch(), push("one"), push("two"), register_and_remove())

    assert len(await watches.records(await leases(watches, [SHARD]), NOW)) == len(NAMES)


async def test_rows_are_locked_in_one_order_whatever_the_locale_of_the_database(postgres_engine: Database) -> None:
    epoch = await activate_all(postgres_engine)
    locks: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statement = " ".join(statement.split())
        # A statement may lock several tables, each in a part of its own.
        parts = re.split(r" FOR (?:NO KEY UPDATE|KEY SHARE|SHARE)\b", statement)[:-1]
        if "SKIP LOCKED" not in statement:
            locks.extend(part.rsplit(" ORDER BY ", 1)[1] for part in parts if " ORDER BY " in part)

    sa.event.listen(postgres_engine.engine, "before_cursor_execute", note)
    watches = SqlWatchStore(postgres_engine, LocalWakeups())
    outbox = SqlOutboxStore(postgres_engine, LocalWakeups())
    await watches.commit(batch(epoch, NAMES), NOW)
    await watches.take_dirty(await leases(watches, [SHARD]), NOW)
    pushes = (await outbox.claim(Platform.APNS, len(NAMES), "push", LATER, NOW)).pushes
    await outbox.settle([Settlement(push, Delivered()) for push in pushes], NOW)
    await outbox.release("push")
    await outbox.expire(Platform.APNS, NOW + timedelta(days=2))

    assert {order.split(".")[0] for order in locks} == {"shard", "mailbox", "registration", "outbox"}
    for order in locks:
        assert order == "shard.number" or all(key.endswith(' COLLATE "C"') for key in order.split(", ")), order


@pytest.mark.parametrize(
    ("meanwhile", "fenced", "marked"),
    [
        ("UPDATE shard SET epoch = epoch + 1", True, {}),
        ("UPDATE mailbox SET shard = shard + 1", True, {}),
        ("DELETE FROM mailbox", True, {}),
        ("UPDATE registration SET state = 'verifying' WHERE id = 'reg-ann-phone'", False, {"reg-ann-tablet": 2}),
        ("DELETE FROM registration WHERE id = 'reg-ann-phone'", False, {"reg-ann-tablet": 2}),
        ("UPDATE registration SET classes = '[\"notes\"]' WHERE id = 'reg-ann-phone'", False, {"reg-ann-tablet": 2}),
        ("UPDATE registration SET last_outcome = 'x'", False, {"reg-ann-phone": 2, "reg-ann-tablet": 2}),
    ],
)
async def test_news_that_waited_for_a_lock_see_what_its_holder_did(
    postgres_engine: Database, other_engine: Database, meanwhile: str, fenced: bool, marked: dict[str, int]
) -> None:
    registrations = SqlRegistrationStore(postgres_engine, LocalWakeups())
    watches = SqlWatchStore(postgres_engine, LocalWakeups())
    await activate(registrations, watches)
    await activate(registrations, watches, device="tablet")
    epoch = await own_all(watches)
    news = [entry(epoch, Progress(collections=(MAIL,), changes=(NEW_MAIL,)))]

    async with asyncio.TaskGroup() as tasks, transaction(other_engine) as connection:
        await connection.execute(sa.text("SELECT id FROM mailbox FOR NO KEY UPDATE"))
        await connection.execute(sa.text(meanwhile))
        committing = tasks.create_task(watches.commit(news, LATER))
        done, _ = await asyncio.wait([committing], timeout=0.3)
        assert not done

    assert committing.result() == ({MailboxId("mb-ann")} if fenced else set())
    assert {id_: mark.changes for (id_, _), mark in (await marks(postgres_engine)).items()} == marked


async def test_news_that_waited_ring_the_registration_that_took_the_place_of_another(
    postgres_engine: Database, other_engine: Database
) -> None:
    registrations = SqlRegistrationStore(postgres_engine, LocalWakeups())
    watches = SqlWatchStore(postgres_engine, LocalWakeups())
    for name in ("ann", "ben"):
        await activate(registrations, watches, name, "first", device_token="ab" * 32)
    again = await register(registrations, "ann", "again", device_token="ab" * 32)
    epoch = await own_all(watches)
    news = [entry(epoch, Progress(collections=(MAIL,), changes=(NEW_MAIL,)), name) for name in ("ann", "ben")]

    async with asyncio.TaskGroup() as tasks, transaction(other_engine) as connection:
        await connection.execute(sa.text("SELECT number FROM shard FOR UPDATE"))
        committing = tasks.create_task(watches.commit(news, LATER))
        done, _ = await asyncio.wait([committing], timeout=0.3)  # its statement has begun
        assert not done
        await SqlWatchStore(postgres_engine, LocalWakeups()).accept(candidate_of(again), LATER)

    assert committing.result() == set()
    found = {id_: mark.changes for (id_, _), mark in (await marks(postgres_engine)).items()}
    assert found == {"reg-ann-again": 2, "reg-ben-first": 2}


async def wipe(engine: Database) -> None:
    watches = SqlWatchStore(engine, LocalWakeups())
    await watches.commit([entry(await own_all(watches), Progress(condition=Condition(WatchState.WIPED)))], LATER)


async def sweep(engine: Database) -> None:
    await SqlRegistrationStore(engine, LocalWakeups()).sweep(NOW + timedelta(days=365))


@pytest.mark.parametrize("ends", [wipe, sweep])
async def test_registrations_that_end_are_locked_in_the_order_of_settlements(
    postgres_engine: Database, other_engine: Database, ends: Callable[[Database], Coroutine[Any, Any, None]]
) -> None:
    registrations, watches = (
        SqlRegistrationStore(postgres_engine, LocalWakeups()),
        SqlWatchStore(postgres_engine, LocalWakeups()),
    )
    for device in ("b", "a"):
        await activate(registrations, watches, device=device)

    async with asyncio.TaskGroup() as tasks, transaction(other_engine) as connection:
        for device in ("a", "b"):
            lock = sa.text("SELECT id FROM registration WHERE id = :id FOR NO KEY UPDATE")
            await connection.execute(lock, {"id": f"reg-ann-{device}"})  # the second one would wait in a circle
            if device == "a":
                ending = tasks.create_task(ends(postgres_engine))
                done, _ = await asyncio.wait([ending], timeout=0.5)
                assert not done


async def test_a_registration_that_got_a_push_while_the_sweep_looked_at_it_stays(
    postgres_engine: Database, other_engine: Database
) -> None:
    registrations, watches = (
        SqlRegistrationStore(postgres_engine, LocalWakeups()),
        SqlWatchStore(postgres_engine, LocalWakeups()),
    )
    phone, late = await activate(registrations, watches), NOW + timedelta(days=365)

    async with asyncio.TaskGroup() as tasks, transaction(other_engine) as connection:
        await connection.execute(sa.text("UPDATE registration SET last_push_at = :now"), {"now": late})
        sweeping = tasks.create_task(registrations.sweep(late))
        done, _ = await asyncio.wait([sweeping], timeout=0.5)
        assert not done

    assert sweeping.result() == {}
    assert await registrations.view(phone.id) is not None


async def test_a_mailbox_is_not_forgotten_under_a_registration_that_joins_it(
    postgres_engine: Database, other_engine: Database
) -> None:
    registrations = SqlRegistrationStore(other_engine, LocalWakeups())
    watches = SqlWatchStore(postgres_engine, LocalWakeups())

    for number in range(30):
        phone = await register(registrations, f"u{number}")
        await registrations.remove(phone.id, NOW)
        gone, tablet = await asyncio.gather(
            watches.forget(phone.mailbox_id), register(registrations, f"u{number}", "tablet")
        )
        assert await registrations.view(RegistrationId(tablet.id)) is not None, gone


async def test_a_credential_for_a_registration_that_is_being_removed_goes_with_it(
    postgres_engine: Database, other_engine: Database
) -> None:
    registrations = SqlRegistrationStore(other_engine, LocalWakeups())
    phone = await register(registrations, "ann")
    async with asyncio.TaskGroup() as tasks, transaction(postgres_engine) as connection:
        await connection.execute(sa.text("SELECT id FROM mailbox FOR UPDATE"))
        changing = tasks.create_task(registrations.change(phone.id, RegistrationChange(sealed_candidate=b"x"), NOW))
        await asyncio.wait([changing], timeout=0.2)
        assert not changing.done()
        await connection.execute(sa.text("DELETE FROM registration"))

    assert await registrations.view(phone.id) is None


async def test_one_id_that_is_put_twice_at_the_same_time_makes_one_registration(
    postgres_engine: Database, other_engine: Database
) -> None:
    stores = [SqlRegistrationStore(engine, LocalWakeups()) for engine in (postgres_engine, other_engine)]
    for number in range(20):
        taken = RegistrationId(f"taken-{number}")
        names = (f"ann{number}", f"ben{number}" if number % 2 else f"ann{number}")

        async def put(store: SqlRegistrationStore, name: str, taken: RegistrationId = taken) -> Registration:
            try:
                return await register(store, name, id=taken)
            except MailboxExists:  # the other one made the mailbox meanwhile
                return await register(store, name, id=taken)

        found = await asyncio.gather(*map(put, stores, names), return_exceptions=True)

        assert sorted(type(each).__name__ for each in found) == ["Registration", "RegistrationExists"]
        view = await stores[0].view(taken)
        assert view is not None
        assert view.candidate_pending


async def test_two_spellings_that_come_at_the_same_time_make_one_mailbox(
    postgres_engine: Database, other_engine: Database
) -> None:
    stores = [SqlRegistrationStore(engine, LocalWakeups()) for engine in (postgres_engine, other_engine)]
    device = new_mailbox().device_id
    for number in range(20):
        spellings = (f"Ann{number}", f"ann{number}")

        found = await asyncio.gather(
            *(
                store.create(
                    NewMailbox(MailboxId(user), "office", user, device, SHARD, f"ann{number}"),
                    new_registration(user, mailbox_id=MailboxId(user)),
                    b"sealed",
                )
                for store, user in zip(stores, spellings, strict=True)
            ),
            return_exceptions=True,
        )

        assert sorted(type(each).__name__ for each in found) == ["MailboxExists", "NoneType"]
