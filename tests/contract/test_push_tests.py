"""Test that an app learns what became of each test push, and that one is tried although its token is in quarantine."""

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from relay.domain.model import DuePush, Mark, Platform, PushTest, PushTestState, Registration
from relay.domain.outcome import Delivered, Outcome, Refused, RetryLater, TokenGone
from relay.domain.pacing import Pacing
from relay.domain.ports.wakeups import Topic
from relay.store.engine import Database
from relay.store.push_tests import KEPT
from relay.store.wakeups import LocalWakeups
from tests.contract.outbox_sites import OutboxSite, SqlSite
from tests.contract.samples import NOW
from tests.transactions import transaction

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
BAD = Refused("BadDeviceToken", "compare the environment")


@pytest.fixture
def sql(engine: Database) -> SqlSite:
    return SqlSite(engine, LocalWakeups())


async def asked(site: OutboxSite, registration: Registration, id_: str = "test-1", after: int = 0) -> list[DuePush]:
    """Ask for a test push and claim it."""
    await site.registrations.mark(registration.id, Mark.TEST, NOW + after * SECOND, id_)
    return await site.claim(NOW + after * SECOND)


async def found_of(site: OutboxSite, registration: Registration, id_: str = "test-1") -> PushTest:
    found = await site.registrations.push_test(registration.id, id_)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("outcome", "state", "reason", "channel"),
    [
        (Delivered(), PushTestState.DELIVERED, "", False),
        (BAD, PushTestState.REFUSED, "BadDeviceToken", False),
        (Refused("InvalidProviderToken", "replace the key", channel=True), PushTestState.REFUSED, None, True),
        (TokenGone("Unregistered"), PushTestState.REFUSED, "Unregistered", False),
    ],
)
async def test_the_answer_of_the_provider_is_the_result(
    sql: SqlSite, outcome: Outcome, state: PushTestState, reason: str | None, channel: bool
) -> None:
    ann = await sql.activate()
    pushes = await asked(sql, ann)
    assert await found_of(sql, ann) == PushTest("test-1", PushTestState.QUEUED, NOW)

    await sql.settle(pushes, outcome, NOW + SECOND)

    reason = "InvalidProviderToken" if reason is None else reason
    assert await found_of(sql, ann) == PushTest("test-1", state, NOW, NOW + SECOND, reason, channel)
    assert await sql.marks() == {}, "nobody waits for a test that was answered"


async def test_a_provider_that_is_busy_leaves_it_queued_for_an_hour(sql: SqlSite) -> None:
    ann = await sql.activate()
    busy = RetryLater("TooManyRequests")
    await sql.settle(await asked(sql, ann), busy, NOW + SECOND, next_try_at=NOW + 2 * SECOND)

    assert await found_of(sql, ann) == PushTest("test-1", PushTestState.QUEUED, NOW, reason="TooManyRequests")

    await sql.settle(await sql.claim(NOW + HOUR), busy, NOW + HOUR, next_try_at=NOW + 2 * HOUR)

    assert await found_of(sql, ann) == PushTest("test-1", PushTestState.EXPIRED, NOW, NOW + HOUR, "TooManyRequests")
    assert await sql.marks() == {}


async def test_a_later_test_supersedes_one_that_waits_and_is_sent_itself(sql: SqlSite) -> None:
    ann = await sql.activate()
    first = await asked(sql, ann)
    await sql.registrations.mark(ann.id, Mark.TEST, NOW + 10 * SECOND, "test-2")

    await sql.settle(first, BAD, NOW + 11 * SECOND)

    assert (await found_of(sql, ann)).state is PushTestState.SUPERSEDED
    assert (await found_of(sql, ann, "test-2")).state is PushTestState.QUEUED
    second = await sql.claim(NOW + 12 * SECOND)
    await sql.settle(second, Delivered(), NOW + 12 * SECOND)
    assert (await found_of(sql, ann, "test-2")).state is PushTestState.DELIVERED
    assert (await found_of(sql, ann)).state is PushTestState.SUPERSEDED


async def test_a_test_whose_mark_was_dropped_is_no_longer_queued(sql: SqlSite) -> None:
    ann = await sql.activate()
    await asked(sql, ann)
    async with transaction(sql.engine) as connection:
        await connection.execute(sa.text("DELETE FROM outbox"))

    assert await found_of(sql, ann) == PushTest("test-1", PushTestState.EXPIRED, NOW)


async def test_few_tests_are_kept_and_none_of_another_registration_is_shown(sql: SqlSite) -> None:
    ann, ben = await sql.activate(), await sql.activate("ben")
    await sql.registrations.mark(ben.id, Mark.TEST, NOW, "of-ben")
    for number in range(KEPT + 2):
        await sql.registrations.mark(ann.id, Mark.TEST, NOW + number * SECOND, f"test-{number}")

    found = [await sql.registrations.push_test(ann.id, f"test-{number}") for number in range(KEPT + 2)]

    assert [each is not None for each in found] == [False, False, *[True] * KEPT]
    assert await sql.registrations.push_test(ann.id, "of-ben") is None
    assert await sql.registrations.push_test(ben.id, "of-ben") is not None
    await sql.registrations.remove(ann.id, NOW)
    assert await sql.registrations.push_test(ann.id, f"test-{KEPT}") is None


async def test_a_test_is_tried_in_quarantine_and_its_success_ends_it(site: OutboxSite) -> None:
    ann = await site.activate()
    await site.change()
    await site.settle(await site.claim(), BAD)
    assert await site.claim(NOW + SECOND) == []

    pushes = await asked(site, ann, after=1)

    assert [push.mark for push in pushes] == [Mark.TEST]
    waiter = site.wakeups.waiter(Topic.OUTBOX_APNS)
    await site.settle(pushes, Delivered(), NOW + 2 * SECOND)
    assert (await site.registered(ann)).quarantine is None
    assert waiter.woken, "what the quarantine held back is due now"
    assert [push.mark for push in await site.claim(NOW + 2 * SECOND)] == [Mark.EMAIL]


async def test_a_test_that_is_refused_in_quarantine_leaves_it_as_it_was(site: OutboxSite) -> None:
    ann = await site.activate()
    await site.change()
    await site.settle(await site.claim(), BAD)
    before = (await site.registered(ann)).quarantine
    assert before is not None
    await site.registrations.mark(ann.id, Mark.TEST, NOW + SECOND)
    assert await site.outbox.next_due(Platform.APNS) == NOW + SECOND

    await site.settle(await site.claim(NOW + SECOND), BAD, NOW + SECOND)

    assert (await site.registered(ann)).quarantine == before
    assert await site.outbox.next_due(Platform.APNS) == before.recheck_at


async def test_the_pace_holds_no_test_back(site: OutboxSite) -> None:
    slow = site.paced(Pacing(coalesce=60.0))
    ann = await slow.activate()
    await slow.settle(await asked(slow, ann), Delivered())

    assert [push.mark for push in await asked(slow, replace(ann), "test-2", after=1)] == [Mark.TEST]
