"""Test how fast marks leave: coalescing, jitter, expiry, and marks that are parked."""

from datetime import timedelta
from random import Random

import pytest
import sqlalchemy as sa

from eas_watcher.machine.memory import Change, Progress
from eas_watcher.names import CollectionClass
from relay.domain.model import Mark, Platform
from relay.domain.outcome import Delivered, LastOutcome, OutcomeKind, RetryLater, Shadowed
from relay.domain.pacing import Pacing
from relay.store.claims import ROUNDS
from relay.store.engine import Database
from relay.store.tables import outbox as outbox_table
from relay.store.tables import registration
from relay.store.wakeups import LocalWakeups
from tests.contract.outbox_sites import OutboxSite, SqlSite
from tests.contract.samples import NEW_MAIL, NOW, unchecked
from tests.transactions import transaction

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
EVENT = Change(CollectionClass.CALENDAR, 1)


@pytest.fixture
def paced(site: OutboxSite) -> OutboxSite:
    return site.paced(Pacing(coalesce=2.0, random=Random(1)))


@pytest.fixture
def sql(engine: Database) -> SqlSite:
    return SqlSite(engine, LocalWakeups())


async def test_the_first_change_leaves_at_once_and_those_soon_after_add_up(paced: OutboxSite) -> None:
    await paced.activate()
    await paced.change()
    pushes = await paced.claim()
    assert [push.count for push in pushes] == [2]
    await paced.settle(pushes, Delivered())

    await paced.change(now=NOW + 0.5 * SECOND)
    assert await paced.claim(NOW + 0.5 * SECOND) == []
    await paced.change(now=NOW + 1.5 * SECOND)
    assert await paced.claim(NOW + 1.9 * SECOND) == []
    assert await paced.outbox.next_due(Platform.APNS) == NOW + 2 * SECOND

    assert [push.count for push in await paced.claim(NOW + 2 * SECOND)] == [4]


async def test_what_came_during_a_push_waits_for_its_pace(paced: OutboxSite) -> None:
    await paced.activate()
    await paced.change()
    pushes = await paced.claim()
    await paced.change(now=NOW + SECOND)

    await paced.settle(pushes, Delivered(), NOW + SECOND)

    assert await paced.claim(NOW + 2.9 * SECOND) == []
    assert [push.count for push in await paced.claim(NOW + 3 * SECOND)] == [2]


async def test_other_classes_other_phones_and_notices_do_not_wait(paced: OutboxSite) -> None:
    ann = await paced.activate()
    await paced.change()
    await paced.settle(await paced.claim(), Delivered())
    await paced.activate(device="tablet")

    await paced.change(now=NOW + SECOND)
    await paced.change(now=NOW + SECOND, changed=EVENT)
    await paced.registrations.mark(ann.id, Mark.TEST, NOW + SECOND)

    pushes = await paced.claim(NOW + SECOND)
    assert {(push.registration_id, push.mark) for push in pushes} == {
        ("reg-ann-phone", Mark.CALENDAR),
        ("reg-ann-phone", Mark.TEST),
        ("reg-ann-tablet", Mark.EMAIL),
        ("reg-ann-tablet", Mark.CALENDAR),
    }
    await paced.settle(pushes, Delivered(), NOW + SECOND)
    await paced.registrations.mark(ann.id, Mark.TEST, NOW + SECOND)
    assert [push.mark for push in await paced.claim(NOW + SECOND)] == [Mark.TEST]


async def test_shadow_mode_keeps_the_interval(paced: OutboxSite) -> None:
    ann = await paced.activate()
    await paced.change()
    await paced.settle(await paced.claim(), Shadowed())

    await paced.change(now=NOW + SECOND)

    assert await paced.claim(NOW + SECOND) == []
    assert len(await paced.claim(NOW + 2 * SECOND)) == 1
    assert (await paced.registered(ann)).last_push_at is None


async def test_a_restarted_process_keeps_the_interval(paced: OutboxSite) -> None:
    await paced.activate()
    await paced.change()
    await paced.settle(await paced.claim(), Delivered())

    restarted = paced.paced(Pacing(coalesce=2.0))
    await restarted.change(now=NOW + SECOND)

    assert await restarted.claim(NOW + SECOND) == []
    assert len(await restarted.claim(NOW + 2 * SECOND)) == 1


async def test_a_push_noted_while_the_clock_was_wrong_keeps_nothing_waiting(paced: OutboxSite) -> None:
    await paced.activate()
    await paced.change(now=NOW + HOUR)
    await paced.settle(await paced.claim(NOW + HOUR), Delivered(), NOW + HOUR)

    await paced.change()

    assert len(await paced.claim()) == 1


async def test_marks_put_off_do_not_take_the_slots_of_those_that_may_leave(paced: OutboxSite) -> None:
    for name in ("ann", "ben"):
        await paced.activate(name)
    await paced.change("ann")
    await paced.settle(await paced.claim(), Delivered())
    await paced.change("ann", now=NOW + 0.5 * SECOND)
    await paced.change("ben", now=NOW + SECOND)

    assert [push.registration_id for push in await paced.claim(NOW + SECOND, limit=1)] == ["reg-ben-phone"]


async def test_with_jitter_each_recipient_of_one_mail_leaves_at_a_moment_of_its_own(site: OutboxSite) -> None:
    jittered = site.paced(Pacing(jitter=60.0, random=Random(1)))
    names = [f"user{number:02}" for number in range(12)]
    for name in names:
        await jittered.activate(name)
    await jittered.change(*names)

    assert await jittered.claim(limit=5) == []
    moments = {registration_id: row.due_at for (registration_id, _), row in (await jittered.marks()).items()}
    order = sorted(moments, key=lambda id_: moments[id_])
    assert len(set(moments.values())) == 12
    assert order != sorted(order)
    assert all(NOW <= moment <= NOW + 60 * SECOND for moment in moments.values())

    # A change that comes meanwhile does not hurry it, nor does a restart.
    await jittered.change("user00", now=NOW + 0.1 * SECOND)
    again = site.paced(Pacing(jitter=60.0, random=Random(2)))
    assert await again.claim(min(moments.values()) - 0.001 * SECOND) == []
    assert [push.registration_id for push in await again.claim(NOW + 60 * SECOND)] == order


async def test_a_burst_is_put_off_in_several_claims_and_each_but_the_last_says_so(site: OutboxSite) -> None:
    jittered = site.paced(Pacing(jitter=60.0, random=Random(1)))
    burst = [f"user{number:02}" for number in range(ROUNDS + 2)]
    for name in burst:
        await jittered.activate(name)
    await jittered.change(*burst)

    async def put_off() -> tuple[int, bool]:
        claims = await jittered.outbox.claim(Platform.APNS, 1, "push-1", NOW + 60 * SECOND, NOW)
        assert claims.pushes == ()
        return sum(row.paced for row in (await jittered.marks()).values()), claims.unfinished

    assert [await put_off() for _ in range(3)] == [(ROUNDS, True), (ROUNDS + 2, False), (ROUNDS + 2, False)]


async def test_a_claim_says_when_the_first_of_the_marks_that_it_put_off_falls_due(paced: OutboxSite) -> None:
    for name in ("ann", "ben"):
        await paced.activate(name)
        await paced.change(name)
    await paced.settle(await paced.claim(), Delivered())
    await paced.change("ann", "ben", now=NOW + SECOND)

    claims = await paced.outbox.claim(Platform.APNS, 10, "push-1", NOW + HOUR, NOW + SECOND)

    assert (claims.pushes, claims.delayed_until, claims.unfinished) == ((), NOW + 2 * SECOND, False)


async def test_a_mark_without_a_change_for_a_day_expires_and_its_registration_says_so(site: OutboxSite) -> None:
    ann, ben, _ = [await site.activate(name) for name in ("ann", "ben", "eve")]
    await site.change("ann", "ben", "eve")
    await site.settle(await site.claim(), RetryLater("busy"), next_try_at=NOW)
    await site.change("ben", now=NOW + SECOND)  # the mark grew, so it is news
    await site.commit(Progress(attention=True), "eve")
    now = NOW + timedelta(days=1) + 0.5 * SECOND

    assert {(push.registration_id, push.mark) for push in await site.claim(now)} == {
        ("reg-ben-phone", Mark.EMAIL),
        ("reg-eve-phone", Mark.ATTENTION),
    }
    assert await site.outbox.expire(Platform.FCM, now) == 0
    assert await site.outbox.expire(Platform.APNS, now) == 2
    assert await site.outbox.expire(Platform.APNS, now) == 0

    assert set(await site.marks()) == {("reg-ben-phone", "email"), ("reg-eve-phone", "attention")}
    expired = LastOutcome(OutcomeKind.EXPIRED, "not delivered for 24 h; before: retry-later: busy")
    assert (await site.registered(ann)).last_outcome == expired
    assert (await site.registered(ben)).last_outcome == LastOutcome(OutcomeKind.RETRY_LATER, "busy")


async def test_a_claimed_mark_does_not_expire(site: OutboxSite) -> None:
    await site.activate()
    await site.change()
    late = NOW + timedelta(days=1)
    pushes = await site.claim(late)

    assert await site.outbox.expire(Platform.APNS, late + SECOND) == 0
    await site.settle(pushes, RetryLater("busy"), late + SECOND, next_try_at=late + HOUR)
    assert await site.outbox.expire(Platform.APNS, late + SECOND) == 1


async def test_a_mark_whose_outcome_cannot_be_recorded_is_parked_free_of_its_claim(site: OutboxSite) -> None:
    await site.activate()
    await site.change()
    (push,) = await site.claim()

    await site.outbox.park(push, "broke twice", NOW + HOUR)

    assert await site.claim(NOW + HOUR - SECOND) == []
    row = (await site.marks())["reg-ann-phone", "email"]
    assert (row.parked, row.attempts, row.owner) == ("broke twice", 1, None)
    await site.settle(await site.claim(NOW + HOUR), Delivered(), NOW + HOUR)
    assert await site.marks() == {}


async def test_a_mark_that_cannot_be_read_is_parked_and_stops_no_other(
    sql: SqlSite, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("ann", "ben"):
        await sql.activate(name)
        await sql.change(name)
    strange = sa.update(outbox_table).where(outbox_table.c.registration_id == "reg-ann-phone").values(mark="telepathy")
    async with transaction(sql.engine) as connection:
        await unchecked(connection)
        await connection.execute(strange)

    assert [push.registration_id for push in await sql.claim()] == ["reg-ben-phone"]
    row = (await sql.marks())["reg-ann-phone", "telepathy"]
    assert (row.parked, row.attempts, row.due_at) == ("cannot be read: 'telepathy' is not a valid Mark", 1, NOW + HOUR)
    assert "push set aside" in caplog.messages


async def test_a_mark_that_cannot_be_read_does_not_hinder_the_settlement_of_another(sql: SqlSite) -> None:
    await sql.activate()
    await sql.commit(Progress(changes=(NEW_MAIL, EVENT)))
    email, _ = sorted(await sql.claim(), key=lambda push: push.mark is not Mark.EMAIL)
    strange = sa.update(outbox_table).where(outbox_table.c.mark == "calendar").values(mark="telepathy")
    async with transaction(sql.engine) as connection:
        await unchecked(connection)
        await connection.execute(strange)

    await sql.settle([email], Delivered())

    assert set(await sql.marks()) == {("reg-ann-phone", "telepathy")}


async def test_a_registration_that_cannot_be_read_stops_no_other(sql: SqlSite) -> None:
    for name in ("ann", "ben"):
        await sql.activate(name)
        await sql.change(name)
    strange = sa.update(registration).where(registration.c.id == "reg-ann-phone").values(pushed={"email": "late"})
    async with transaction(sql.engine) as connection:
        await unchecked(connection)
        await connection.execute(strange)

    assert [push.registration_id for push in await sql.claim()] == ["reg-ben-phone"]
    assert (await sql.marks())["reg-ann-phone", "email"].parked == "cannot be read: pushed: no moments by marks"
