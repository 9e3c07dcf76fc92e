"""Test that a group of plain deliveries is settled on either database as each of them would be alone."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from json import JSONDecodeError
from typing import Final

import pytest
import sqlalchemy as sa

from eas_watcher.machine.memory import Change, Progress
from eas_watcher.names import CollectionClass
from relay.domain.model import DuePush, Mark, Platform, Registration, RegistrationId
from relay.domain.outcome import DELIVERED, Delivered, Refused, RetryLater
from relay.domain.ports.outbox import Settlement
from relay.store.engine import Database, open_database
from relay.store.outbox import SqlOutboxStore
from relay.store.registrations import SqlRegistrationStore
from relay.store.tables import registration
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import LATER, MAIL, NEW_MAIL, NOW, activate, entry, marks, own_all
from tests.transactions import recorded, transaction

EMAIL: Final = Progress(collections=(MAIL,), changes=(NEW_MAIL,))
BOTH: Final = Progress(collections=(MAIL,), changes=(NEW_MAIL, Change(CollectionClass.CALENDAR, 1)))


@pytest.fixture
async def other_engine(postgres_url: str) -> AsyncIterator[Database]:
    """The engine of another process on the same database."""
    async with open_database(postgres_url) as engine:
        yield engine


async def claimed(engine: Database, progress: Progress, names: Sequence[str] = ("ann",)) -> tuple[DuePush, ...]:
    """Commit a change to each of these mailboxes; return the pushes that are claimed for the changes."""
    registrations, watches = SqlRegistrationStore(engine, LocalWakeups()), SqlWatchStore(engine, LocalWakeups())
    for name in names:
        await activate(registrations, watches, name)
    epoch = await own_all(watches)
    await watches.commit([entry(epoch, progress, name) for name in names], NOW)
    return await claim(engine)


async def claim(engine: Database) -> tuple[DuePush, ...]:
    return (await SqlOutboxStore(engine, LocalWakeups()).claim(Platform.APNS, 100, "push", LATER, NOW)).pushes


async def settle(engine: Database, pushes: Sequence[DuePush]) -> None:
    await SqlOutboxStore(engine, LocalWakeups()).settle([Settlement(push, Delivered()) for push in pushes], LATER)


async def pushed(engine: Database) -> dict[str, float]:
    """Return when each mark of the registration was pushed, or of one of several that are alike."""
    async with transaction(engine) as connection:
        found: dict[str, float] = await connection.scalar(sa.select(registration.c.pushed).limit(1))
    return found


async def view(engine: Database) -> Registration | None:
    found = await SqlRegistrationStore(engine, LocalWakeups()).view(RegistrationId("reg-ann-phone"))
    return None if found is None else found.registration


async def test_each_delivery_is_noted_by_its_mark_beside_those_before(engine: Database) -> None:
    pushes = await claimed(engine, BOTH)
    assert {push.mark for push in pushes} == {Mark.EMAIL, Mark.CALENDAR}

    await settle(engine, pushes[:1])
    assert await pushed(engine) == {pushes[0].mark: LATER.timestamp()}
    await settle(engine, pushes[1:])

    assert await pushed(engine) == {"calendar": LATER.timestamp(), "email": LATER.timestamp()}
    found = await view(engine)
    assert found is not None
    assert (found.last_outcome, found.last_push_at) == (DELIVERED, LATER)
    assert await marks(engine) == {}


async def test_deliveries_of_two_marks_of_one_registration_are_settled_together(engine: Database) -> None:
    await settle(engine, await claimed(engine, BOTH, ["ann", "ben"]))

    assert await pushed(engine) == {"calendar": LATER.timestamp(), "email": LATER.timestamp()}
    assert await marks(engine) == {}


async def test_a_value_that_is_no_moments_by_marks_is_told_and_stays(engine: Database) -> None:
    pushes = await claimed(engine, EMAIL)
    async with transaction(engine) as connection:
        await connection.execute(sa.text("UPDATE registration SET pushed = '[]'"))

    with pytest.raises(TypeError, match="pushed: no moments by marks"):
        await settle(engine, pushes)

    assert len(await marks(engine)) == 1


@pytest.mark.parametrize(
    "before",
    [
        "UPDATE registration SET pushed = NULL",
        "UPDATE registration SET pushed = 'null'",
        "UPDATE registration SET pushed = ' null '",
    ],
)
async def test_moments_may_be_missing_or_null(engine: Database, before: str) -> None:
    pushes = await claimed(engine, EMAIL)
    async with transaction(engine) as connection:
        await connection.execute(sa.text(before))

    await settle(engine, pushes)

    assert await pushed(engine) == {"email": LATER.timestamp()}
    assert await marks(engine) == {}


async def test_a_delivery_ends_a_quarantine(engine: Database) -> None:
    pushes = await claimed(engine, BOTH)
    outbox = SqlOutboxStore(engine, LocalWakeups())
    await outbox.settle([Settlement(pushes[0], Refused("BadDeviceToken", "look"), NOW)], NOW)

    await settle(engine, pushes[1:])

    found = await view(engine)
    assert found is not None
    assert found.quarantine is None
    assert {mark for _, mark in await marks(engine)} == {pushes[0].mark}


async def test_a_mark_that_grew_keeps_the_rest(engine: Database) -> None:
    pushes = await claimed(engine, EMAIL)
    watches = SqlWatchStore(engine, LocalWakeups())
    await watches.commit([entry(await own_all(watches), EMAIL)], NOW)

    await settle(engine, pushes)

    [left] = (await marks(engine)).values()
    assert (left.changes, left.generation, left.claimed_by) == (2, 2, None)


@pytest.mark.parametrize(
    ("meanwhile", "left"),
    [
        ("UPDATE registration SET device_token = 'another' WHERE id = 'reg-ann-phone'", {"email": 2}),
        ("UPDATE registration SET environment = 'sandbox' WHERE id = 'reg-ann-phone'", {"email": 2}),
        (
            "UPDATE outbox SET generation = generation + 1, count = count + 3 WHERE registration_id = 'reg-ann-phone'",
            {"email": 3},
        ),
        (
            "UPDATE outbox SET first_at = '2026-11-24 08:30:16+00:00' WHERE registration_id = 'reg-ann-phone'",
            {"email": 2},
        ),
        ("UPDATE outbox SET claimed_by = 'another' WHERE registration_id = 'reg-ann-phone'", {}),
        ("DELETE FROM outbox WHERE registration_id = 'reg-ann-phone'", {}),
    ],
)
async def test_what_happened_to_one_of_a_group_holds_no_other_back(
    engine: Database, meanwhile: str, left: dict[str, int]
) -> None:
    pushes = await claimed(engine, EMAIL, ["ann", "ben"])
    async with transaction(engine) as connection:
        await connection.execute(sa.text(meanwhile))

    await settle(engine, pushes)

    assert {key: row.changes for key, row in (await marks(engine)).items()} == {
        ("reg-ann-phone", mark): changes for mark, changes in left.items()
    }
    assert await pushed(engine) == {"email": LATER.timestamp()}
    found = await view(engine)
    assert found is not None
    assert (found.last_outcome, found.last_push_at) == (DELIVERED, LATER)


async def test_a_text_that_is_no_json_is_told_and_holds_no_other_delivery_back(sqlite_url: str) -> None:
    async with open_database(sqlite_url) as engine:
        pushes = await claimed(engine, EMAIL, ["ann", "ben"])
        async with transaction(engine) as connection:
            await connection.execute(sa.text("UPDATE registration SET pushed = '[' WHERE id = 'reg-ann-phone'"))

        with pytest.raises(JSONDecodeError):
            await settle(engine, pushes)
        assert len(await marks(engine)) == 2, "the group is done or not as a whole"
        await settle(engine, [push for push in pushes if push.registration_id == "reg-ben-phone"])

        assert set(await marks(engine)) == {("reg-ann-phone", "email")}


async def test_deliveries_cost_one_statement_for_each_mark_on_postgresql(postgres_engine: Database) -> None:
    pushes = await claimed(postgres_engine, BOTH, [f"user{number}" for number in range(20)])

    with recorded(postgres_engine) as committed:
        await settle(postgres_engine, pushes)

    assert len(pushes) == 40
    assert [len(statements) for statements in committed] == [1, 1]
    assert await marks(postgres_engine) == {}


async def test_a_group_with_another_outcome_is_one_transaction(postgres_engine: Database) -> None:
    [email, calendar] = await claimed(postgres_engine, BOTH)
    outbox = SqlOutboxStore(postgres_engine, LocalWakeups())

    with recorded(postgres_engine) as committed:
        await outbox.settle([Settlement(email, Delivered()), Settlement(calendar, RetryLater("b"), LATER)], NOW)

    assert len(committed) == 1
    assert {mark for _, mark in await marks(postgres_engine)} == {calendar.mark}


GROW: Final = "UPDATE outbox SET generation = generation + 1, count = count + 3, last_at = last_at + interval '1 s'"


@pytest.mark.parametrize(
    ("meanwhile", "left", "gone"),
    [
        ("UPDATE registration SET last_outcome = 'x'", {}, False),
        ("UPDATE registration SET device_token = 'another'", {"email": 2}, False),
        ("UPDATE registration SET environment = 'sandbox'", {"email": 2}, False),
        ("UPDATE registration SET quarantined_at = now(), recheck_at = now()", {}, False),
        ("DELETE FROM registration", {}, True),
        (GROW, {"email": 3}, False),
        ("UPDATE outbox SET claimed_by = 'another'", {}, False),
        ("UPDATE outbox SET first_at = first_at + interval '1 s'", {"email": 2}, False),
        ("DELETE FROM outbox", {}, False),
    ],
)
async def test_deliveries_that_waited_for_a_lock_see_what_its_holder_did(
    postgres_engine: Database, other_engine: Database, meanwhile: str, left: dict[str, int], *, gone: bool
) -> None:
    pushes = await claimed(postgres_engine, EMAIL)

    async with asyncio.TaskGroup() as tasks, transaction(other_engine) as connection:
        await connection.execute(sa.text(meanwhile))
        settling = tasks.create_task(settle(postgres_engine, pushes))
        done, _ = await asyncio.wait([settling], timeout=0.3)
        assert not done

    assert {mark: row.changes for (_, mark), row in (await marks(postgres_engine)).items()} == left
    found = await view(postgres_engine)
    assert (found is None) is gone
    assert found is None or (found.last_outcome, found.quarantine) == (DELIVERED, None)
