"""Test how fast marks leave: coalescing, jitter, expiry, and what is set aside."""

from datetime import datetime, timedelta
from random import Random

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from eas_watcher.machine.memory import Change, Progress
from eas_watcher.names import CollectionClass
from relay.domain.model import DuePush, Mark, Platform
from relay.domain.outcome import Delivered, RetryLater
from relay.domain.pacing import Pacing
from relay.domain.ports.outbox import Settlement
from relay.store.outbox import ROUNDS, SqlOutboxStore
from relay.store.registrations import SqlRegistrationStore
from relay.store.tables import outbox as outbox_table
from relay.store.tables import registration
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import NEW_MAIL, NOW, activate, entry, marks, own_all

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
EVENT = Change(CollectionClass.CALENDAR, 1)


@pytest.fixture
def paced(engine: AsyncEngine, wakeups: LocalWakeups) -> SqlOutboxStore:
    return SqlOutboxStore(engine, wakeups, Pacing(coalesce=2.0, random=Random(1)))


async def change(watches: SqlWatchStore, now: datetime, changed: Change = NEW_MAIL, name: str = "ann") -> None:
    await watches.commit([entry(await own_all(watches), Progress(changes=(changed,)), name)], now)


async def due(outbox: SqlOutboxStore, now: datetime, limit: int = 100) -> list[DuePush]:
    return [*(await outbox.claim(Platform.APNS, limit, "push-1", now + 60 * SECOND, now)).pushes]


async def deliver(outbox: SqlOutboxStore, now: datetime) -> list[DuePush]:
    pushes = await due(outbox, now)
    await outbox.settle([Settlement(push, Delivered()) for push in pushes], now)
    return pushes


async def test_the_first_change_leaves_at_once_and_those_soon_after_add_up(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, paced: SqlOutboxStore
) -> None:
    await activate(registrations, watches)
    await change(watches, NOW)
    assert [push.count for push in await deliver(paced, NOW)] == [2]

    await change(watches, NOW + 0.5 * SECOND)
    assert await due(paced, NOW + 0.5 * SECOND) == []
    await change(watches, NOW + 1.5 * SECOND)
    assert await due(paced, NOW + 1.9 * SECOND) == []
    assert await paced.next_due(Platform.APNS) == NOW + 2 * SECOND

    assert [push.count for push in await deliver(paced, NOW + 2 * SECOND)] == [4]


async def test_what_came_during_a_push_waits_its_turn(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, paced: SqlOutboxStore
) -> None:
    await activate(registrations, watches)
    await change(watches, NOW)
    (push,) = await due(paced, NOW)
    await change(watches, NOW + SECOND)

    await paced.settle([Settlement(push, Delivered())], NOW + SECOND)

    assert await due(paced, NOW + 2.9 * SECOND) == []
    assert [push.count for push in await due(paced, NOW + 3 * SECOND)] == [2]


async def test_other_classes_other_phones_and_notices_do_not_wait(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, paced: SqlOutboxStore
) -> None:
    ann = await activate(registrations, watches)
    await change(watches, NOW)
    await deliver(paced, NOW)
    await activate(registrations, watches, device="tablet")

    await change(watches, NOW + SECOND)
    await change(watches, NOW + SECOND, EVENT)
    await registrations.mark(ann.id, Mark.TEST, NOW + SECOND)

    found = {(push.registration_id, push.mark) for push in await deliver(paced, NOW + SECOND)}
    assert found == {
        ("reg-ann-phone", Mark.CALENDAR),
        ("reg-ann-phone", Mark.TEST),
        ("reg-ann-tablet", Mark.EMAIL),
        ("reg-ann-tablet", Mark.CALENDAR),
    }
    await registrations.mark(ann.id, Mark.TEST, NOW + SECOND)
    assert [push.mark for push in await deliver(paced, NOW + SECOND)] == [Mark.TEST]


async def test_a_process_that_starts_anew_keeps_the_interval(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, paced: SqlOutboxStore, engine: AsyncEngine
) -> None:
    await activate(registrations, watches)
    await change(watches, NOW)
    await deliver(paced, NOW)

    another = SqlOutboxStore(engine, LocalWakeups(), Pacing(coalesce=2.0))
    await change(watches, NOW + SECOND)

    assert await due(another, NOW + SECOND) == []
    assert len(await due(another, NOW + 2 * SECOND)) == 1


async def test_a_push_noted_while_the_clock_was_wrong_keeps_nothing_waiting(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, paced: SqlOutboxStore
) -> None:
    await activate(registrations, watches)
    await change(watches, NOW + HOUR)
    await deliver(paced, NOW + HOUR)

    await change(watches, NOW)

    assert len(await due(paced, NOW)) == 1


async def test_marks_put_off_do_not_take_the_places_of_those_that_may_leave(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, paced: SqlOutboxStore
) -> None:
    for name in ("ann", "ben"):
        await activate(registrations, watches, name)
    await change(watches, NOW, name="ann")
    await deliver(paced, NOW)
    await change(watches, NOW + 0.5 * SECOND, name="ann")
    await change(watches, NOW + SECOND, name="ben")

    assert [push.registration_id for push in await due(paced, NOW + SECOND, limit=1)] == ["reg-ben-phone"]


async def test_with_jitter_each_recipient_of_one_mail_leaves_at_a_moment_of_its_own(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: AsyncEngine
) -> None:
    outbox = SqlOutboxStore(engine, LocalWakeups(), Pacing(jitter=60.0, random=Random(1)))
    for number in range(12):
        await activate(registrations, watches, f"user{number:02}")
    epoch = await own_all(watches)
    changed = Progress(changes=(NEW_MAIL,))
    await watches.commit([entry(epoch, changed, f"user{number:02}") for number in range(12)], NOW)

    assert await due(outbox, NOW, limit=5) == []
    moments = {row.registration_id: row.due_at for row in (await marks(engine)).values()}
    order = sorted(moments, key=lambda id_: moments[id_])
    assert len(set(moments.values())) == 12
    assert order != sorted(order)
    assert all(NOW <= moment <= NOW + 60 * SECOND for moment in moments.values())

    # A change that comes meanwhile does not hurry it, nor does a restart.
    await watches.commit([entry(epoch, changed, name) for name in ("user00",)], NOW + 0.1 * SECOND)
    again = SqlOutboxStore(engine, LocalWakeups(), Pacing(jitter=60.0, random=Random(2)))
    assert await due(again, min(moments.values()) - 0.001 * SECOND) == []
    assert [push.registration_id for push in await due(again, NOW + 60 * SECOND)] == order


async def test_a_burst_is_put_off_in_several_claims_and_each_but_the_last_says_so(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, engine: AsyncEngine
) -> None:
    outbox = SqlOutboxStore(engine, LocalWakeups(), Pacing(jitter=60.0, random=Random(1)))
    burst = [f"user{number:02}" for number in range(ROUNDS + 2)]
    for name in burst:
        await activate(registrations, watches, name)
    epoch = await own_all(watches)
    await watches.commit([entry(epoch, Progress(changes=(NEW_MAIL,)), name) for name in burst], NOW)

    async def paced() -> tuple[int, bool]:
        claims = await outbox.claim(Platform.APNS, 1, "push-1", NOW + 60 * SECOND, NOW)
        assert claims.pushes == ()
        return sum(row.paced for row in (await marks(engine)).values()), claims.unfinished

    assert [await paced() for _ in range(3)] == [(ROUNDS, True), (ROUNDS + 2, False), (ROUNDS + 2, False)]


async def test_a_mark_without_a_change_for_a_day_expires_and_its_registration_says_so(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore, engine: AsyncEngine
) -> None:
    for name in ("ann", "ben", "eve"):
        await activate(registrations, watches, name)
        await change(watches, NOW, name=name)
    await outbox.settle([Settlement(push, RetryLater("busy"), NOW) for push in await due(outbox, NOW)], NOW)
    await change(watches, NOW + SECOND, name="ben")  # it grew, so what it tells of is news
    await watches.commit([entry(await own_all(watches), Progress(attention=True), "eve")], NOW)
    now = NOW + timedelta(days=1) + 0.5 * SECOND

    assert {(push.registration_id, push.mark) for push in await due(outbox, now)} == {
        ("reg-ben-phone", Mark.EMAIL),
        ("reg-eve-phone", Mark.ATTENTION),
    }
    assert await outbox.expire(Platform.FCM, now) == 0
    assert await outbox.expire(Platform.APNS, now) == 2
    assert await outbox.expire(Platform.APNS, now) == 0

    assert set(await marks(engine)) == {("reg-ben-phone", "email"), ("reg-eve-phone", "attention")}
    view = await registrations.view((await activate(registrations, watches, "zoe")).id)
    assert view is not None
    assert view.registration.last_outcome is None
    for name, outcome in (
        ("ann", "expired: not delivered for 24 h; before: retry-later: busy"),
        ("ben", "retry-later: busy"),
    ):
        row = await _last_outcome(engine, f"reg-{name}-phone")
        assert row == outcome


async def test_what_is_in_hand_does_not_expire(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    await activate(registrations, watches)
    await change(watches, NOW)
    late = NOW + timedelta(days=1)
    (push,) = await due(outbox, late)

    assert await outbox.expire(Platform.APNS, late + SECOND) == 0
    await outbox.settle([Settlement(push, RetryLater("busy"), late + HOUR)], late + SECOND)
    assert await outbox.expire(Platform.APNS, late + SECOND) == 1


async def test_a_mark_that_nobody_can_read_is_set_aside_and_stops_no_other(
    registrations: SqlRegistrationStore,
    watches: SqlWatchStore,
    outbox: SqlOutboxStore,
    engine: AsyncEngine,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("ann", "ben"):
        await activate(registrations, watches, name)
        await change(watches, NOW, name=name)
    strange = sa.update(outbox_table).where(outbox_table.c.registration_id == "reg-ann-phone").values(mark="telepathy")
    async with engine.begin() as connection:
        await connection.execute(strange)

    assert [push.registration_id for push in await due(outbox, NOW)] == ["reg-ben-phone"]
    row = (await marks(engine))["reg-ann-phone", "telepathy"]
    assert (row.aside, row.attempts, row.due_at) == ("cannot be read: ValueError", 1, NOW + HOUR)
    assert "push set aside" in caplog.messages


async def test_a_mark_whose_outcome_cannot_be_recorded_rests_free_of_its_claim(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore, engine: AsyncEngine
) -> None:
    await activate(registrations, watches)
    await change(watches, NOW)
    (push,) = await due(outbox, NOW)

    await outbox.park(push, "broke twice", NOW + HOUR)

    assert await due(outbox, NOW + HOUR - SECOND) == []
    row = (await marks(engine))["reg-ann-phone", "email"]
    assert (row.aside, row.attempts, row.claimed_by) == ("broke twice", 1, None)
    (again,) = await due(outbox, NOW + HOUR)
    await outbox.settle([Settlement(again, Delivered())], NOW + HOUR)
    assert await marks(engine) == {}


async def _last_outcome(engine: AsyncEngine, registration_id: str) -> object:
    query = sa.text("SELECT last_outcome FROM registration WHERE id = :id")
    async with engine.connect() as connection:
        return await connection.scalar(query, {"id": registration_id})


async def test_a_registration_that_nobody_can_read_stops_no_other(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore, engine: AsyncEngine
) -> None:
    for name in ("ann", "ben"):
        await activate(registrations, watches, name)
        await change(watches, NOW, name=name)
    strange = sa.update(registration).where(registration.c.id == "reg-ann-phone").values(pushed={"email": "late"})
    async with engine.begin() as connection:
        await connection.execute(strange)

    assert [push.registration_id for push in await due(outbox, NOW)] == ["reg-ben-phone"]
    assert (await marks(engine))["reg-ann-phone", "email"].aside == "cannot be read: TypeError"
