"""Test that an outage, a poisoned mark or an old one harms no other, burns no tries and makes little noise."""

import asyncio
from datetime import timedelta
from itertools import pairwise

import pytest

from relay.domain.model import DuePush, Environment, Mark, Platform, RegistrationId
from relay.domain.outcome import Delivered, Outcome, OutcomeKind, Reach, Refused, RetryLater
from relay.push.breaker import IN_A_ROW
from relay.push.dispatch import GATHER, LEASE, SLOTS, SWEEP
from relay.push.outcomes import TRIES
from relay.push.stats import Outage
from tests.fakes.outbox import BEGAN, MemoryOutbox
from tests.unit.relay.push.dispatching import Provider, dispatcher, running
from tests.unit.relay.push.pushes import due_push

pytestmark = pytest.mark.looptime

AWAY = RetryLater("timed-out", remedy="look at the firewall", provider=True)
HOUR = 3600.0


async def test_an_outage_is_met_by_one_push_at_a_time_and_burns_no_tries(caplog: pytest.LogCaptureFixture) -> None:
    outbox, provider = MemoryOutbox(), Provider()
    provider.answer = lambda push: AWAY
    under_test = dispatcher(outbox, provider)
    for number in range(3 * SLOTS):
        outbox.put(due_push(number))

    async with running(under_test):
        await asyncio.sleep(1)
        assert len(provider.sent) == SLOTS
        outage = under_test.stats.outage
        assert outage is not None
        assert outage == Outage(Environment.PRODUCTION, "timed-out", "look at the firewall", outage.since)
        provider.most_at_once = 0
        await asyncio.sleep(HOUR)

        probes = len(provider.sent) - SLOTS
        assert 40 <= probes <= 100
        assert provider.most_at_once == 1
        assert max(row.attempts for row in outbox.rows.values()) <= 1
        assert caplog.messages.count("push provider away") == 1

        provider.answer = lambda push: Delivered()
        sent = len(provider.sent)
        await asyncio.sleep(120)
        assert outbox.rows == {}
        assert under_test.stats.outage is None
        returned = provider.moments[sent:]
        assert len([moment for moment in returned if moment <= returned[0] + 0.25]) < SLOTS / 2  # no storm


async def test_an_outage_of_one_environment_leaves_the_other_alone() -> None:
    outbox, provider = MemoryOutbox(), Provider()
    provider.answer = lambda push: AWAY if push.environment is Environment.SANDBOX else Delivered()
    for number in range(20):
        outbox.put(due_push(number, environment=Environment.SANDBOX))

    async with running(dispatcher(outbox, provider)):
        await asyncio.sleep(60)
        for number in range(100, 150):
            outbox.put(due_push(number))
        await asyncio.sleep(0.3)

        assert sorted(number for number in provider.numbers if number >= 100) == list(range(100, 150))


async def test_a_few_failures_are_no_outage_and_count_as_tries() -> None:
    outbox, provider = MemoryOutbox(), Provider()
    outcomes: list[Outcome] = [AWAY] * (IN_A_ROW - 1)
    provider.answer = lambda push: outcomes.pop() if outcomes else Delivered()
    under_test = dispatcher(outbox, provider)
    outbox.put(due_push())

    async with running(under_test):
        await asyncio.sleep(0.1 + GATHER)
        assert [row.attempts for row in outbox.rows.values()] == [1]
        await asyncio.sleep(60)

    assert outbox.rows == {}
    assert under_test.stats.outage is None


@pytest.mark.parametrize("after", [None, 30.0])
async def test_a_phone_or_an_app_whose_pushes_fail_delays_no_other(after: float | None) -> None:
    outbox, provider = MemoryOutbox(), Provider()
    dead, sick, living = range(3), range(10, 15), range(20, 23)
    failed = RetryLater("InternalServerError", after, provider=True, reach=Reach.ANSWERED)
    provider.answer = lambda push: failed if int(push.device_token, 16) < 20 else Delivered()
    under_test = dispatcher(outbox, provider)

    async with running(under_test):
        for mail in range(60):
            for number in dead:
                outbox.put(due_push(number))
            for number in sick:
                outbox.put(due_push(number, app="com.example.sick"))
            await asyncio.sleep(5)
            for number in living:
                outbox.put(due_push(number))
            # From the first answer on, those that fail are known.
            await asyncio.sleep(0.5 if mail else after or 4.0)
            assert not any(int(id_.rpartition("-")[2]) in living for id_, _ in outbox.rows)
            await asyncio.sleep(60)

    assert under_test.stats.outages == {}


async def test_a_time_the_provider_names_for_all_is_kept_by_all() -> None:
    outbox, provider = MemoryOutbox(), Provider()
    answers = iter([RetryLater("QUOTA_EXCEEDED", 60.0, provider=True)])
    provider.answer = lambda push: next(answers, Delivered())
    outbox.put(due_push(1))

    async with running(dispatcher(outbox, provider)):
        await asyncio.sleep(1)
        outbox.put(due_push(2))
        await asyncio.sleep(58)
        assert len(provider.sent) == 1
        await asyncio.sleep(60)

    assert outbox.rows == {}


async def test_news_of_a_remedy_ends_an_absence_at_once() -> None:
    outbox, provider = MemoryOutbox(), Provider()
    provider.answer = lambda push: Refused("InvalidProviderToken", "look at the key", channel=True)
    under_test = dispatcher(outbox, provider)
    outbox.put(due_push())

    async with running(under_test):
        await asyncio.sleep(1)
        assert under_test.stats.dead
        provider.answer = lambda push: Delivered()
        under_test.hurry()
        await asyncio.sleep(0.2 + GATHER)

        assert outbox.rows == {}
        assert not under_test.stats.dead


async def test_a_channel_that_is_away_costs_its_marks_no_tries() -> None:
    outbox, provider = MemoryOutbox(), Provider()
    provider.answer = lambda push: Refused("TopicDisallowed", "allow it", channel=True)
    for number in range(20):
        outbox.put(due_push(number))

    async with running(dispatcher(outbox, provider)):
        await asyncio.sleep(HOUR)

    assert {row.attempts for row in outbox.rows.values()} == {0}
    assert 10 <= len(provider.sent) - 20 <= 20  # 30 s after the first fault, then up to 5 minutes apart


async def test_a_push_service_that_is_away_costs_its_marks_no_tries_and_no_longer_waits() -> None:
    outbox, provider = MemoryOutbox(), Provider(0.0)
    provider.answer = lambda push: RetryLater("push-service-rests: timed-out", 30.0, reach=Reach.HERE)
    outbox.put(due_push())

    async with running(dispatcher(outbox, provider)):
        await asyncio.sleep(HOUR)
        waits = [later - earlier for earlier, later in pairwise(provider.moments)]
        assert len(waits) > 100
        assert all(30.0 <= wait <= 30.1 for wait in waits)
        assert {row.attempts for row in outbox.rows.values()} == {0}

        provider.answer = lambda push: Delivered()
        await asyncio.sleep(35)

    assert outbox.rows == {}


async def test_a_push_that_always_breaks_its_sender_is_parked(caplog: pytest.LogCaptureFixture) -> None:
    outbox, provider = MemoryOutbox(), Provider()

    def answer(push: DuePush) -> Outcome:
        if push.count == 7:
            raise KeyError("bug")
        return Delivered()

    provider.answer = answer
    outbox.put(due_push(1, count=7))
    outbox.put(due_push(2))

    async with running(dispatcher(outbox, provider)):
        await asyncio.sleep(HOUR / 2)
        (row,) = outbox.rows.values()
        assert (row.parked, row.attempts) == ("internal-error", TRIES)
        assert caplog.messages.count("push set aside") == 1
        await asyncio.sleep(HOUR)

    assert provider.numbers.count(1) == TRIES + 1


async def test_an_outcome_that_cannot_be_recorded_spoils_no_other(caplog: pytest.LogCaptureFixture) -> None:
    outbox, provider = MemoryOutbox(), Provider()
    outbox.poisoned[RegistrationId("registration-3")] = False
    for number in range(6):
        outbox.put(due_push(number))

    async with running(dispatcher(outbox, provider)):
        await asyncio.sleep(1)
        (row,) = outbox.rows.values()
        assert row.parked == "its outcome cannot be recorded: ValueError"
        outbox.poisoned.clear()
        await asyncio.sleep(HOUR + 60)

    assert outbox.rows == {}
    assert provider.numbers.count(3) == 2
    assert caplog.messages.count("push set aside") == 1


async def test_a_mark_that_cannot_even_be_parked_is_not_sent_again_and_again() -> None:
    outbox, provider = MemoryOutbox(), Provider()
    outbox.poisoned[RegistrationId("registration-1")] = True
    outbox.put(due_push(1))
    outbox.put(due_push(2))

    async with running(dispatcher(outbox, provider)):
        await asyncio.sleep(10 * LEASE)
        outbox.put(due_push(3))
        await asyncio.sleep(1)

    assert sorted(provider.numbers) == [1, 2, 3]


async def test_what_is_too_old_is_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    outbox, provider = MemoryOutbox(), Provider()
    provider.answer = lambda push: AWAY
    under_test = dispatcher(outbox, provider)
    outbox.put(due_push(1, first_at=BEGAN - timedelta(hours=23, minutes=59)))
    outbox.put(due_push(2, first_at=BEGAN))
    outbox.put(due_push(3, platform=Platform.FCM, first_at=BEGAN - timedelta(days=2), mark=Mark.TASKS))

    async with running(under_test):
        await asyncio.sleep(2 * SWEEP + 1)

    assert {push for push, _ in outbox.rows} == {"registration-2", "registration-3"}
    assert under_test.stats.outcomes[OutcomeKind.EXPIRED] == 1
    assert "pushes expired" in caplog.messages
