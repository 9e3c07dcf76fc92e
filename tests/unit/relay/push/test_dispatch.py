import asyncio
import logging
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise

import pytest

from relay.domain.model import DuePush, Environment, Mark, Platform, RegistrationId
from relay.domain.outcome import Delivered, Outcome, OutcomeKind, Refused, RetryLater, TokenGone
from relay.domain.pacing import Pacing
from relay.domain.ports.wakeups import Topic
from relay.push.dispatch import DRAIN, GATHER, LEASE, SLOTS
from relay.push.schedule import SLOW_POLL
from tests.fakes.outbox import BEGAN, MemoryOutbox, loop_clock
from tests.unit.relay.push.dispatching import Provider, dispatcher, running
from tests.unit.relay.push.pushes import due_push

pytestmark = pytest.mark.looptime

SICK = Refused("TopicDisallowed", "allow the topic", channel=True)


async def test_due_marks_go_out_oldest_first_and_are_done() -> None:
    outbox, provider = MemoryOutbox(), Provider()
    for number in (3, 1, 2):
        outbox.put(due_push(number, first_at=BEGAN - timedelta(seconds=10 - number)))

    async with running(dispatcher(outbox, provider)):
        await asyncio.sleep(0.2)

    assert provider.numbers == [1, 2, 3]
    assert outbox.rows == {}


async def test_a_wake_up_sends_at_once() -> None:
    outbox, provider = MemoryOutbox(), Provider()

    async with running(dispatcher(outbox, provider)):
        await asyncio.sleep(5)
        outbox.put(due_push())
        await asyncio.sleep(0.01)

        assert provider.moments == [pytest.approx(5.01)]


async def test_a_lost_wake_up_costs_the_slow_poll() -> None:
    outbox, provider = MemoryOutbox(), Provider()

    async with running(dispatcher(outbox, provider)):
        outbox.put(due_push(), wake=False)
        await asyncio.sleep(SLOW_POLL + 1)

        assert len(provider.sent) == 1


async def test_an_idle_dispatcher_asks_the_database_only_at_the_slow_poll() -> None:
    outbox = MemoryOutbox()

    async with running(dispatcher(outbox, Provider())):
        await asyncio.sleep(10 * SLOW_POLL)

    assert outbox.claims <= 22


async def test_what_ended_together_is_settled_together() -> None:
    outbox, provider = MemoryOutbox(seconds=0.05), Provider()
    for number in range(SLOTS):
        outbox.put(due_push(number))

    async with running(dispatcher(outbox, provider)):
        await asyncio.sleep(1)

    assert outbox.rows == {}
    assert len(outbox.groups) <= 2


async def test_no_more_pushes_than_slots_are_claimed_and_under_way() -> None:
    outbox, provider = MemoryOutbox(), Provider(1.0)
    for number in range(3 * SLOTS):
        outbox.put(due_push(number))

    async with running(dispatcher(outbox, provider)) as _:
        await asyncio.sleep(0.5)
        assert sum(row.owner is not None for row in outbox.rows.values()) == SLOTS
        await asyncio.sleep(3)

    assert provider.most_at_once == SLOTS
    assert outbox.rows == {}
    assert max(provider.moments) < 2.1  # a slot is used again as soon as it is free


async def test_a_time_the_provider_named_is_honoured() -> None:
    outbox, provider = MemoryOutbox(), Provider()
    outcomes: Iterator[Outcome] = iter([RetryLater("QUOTA_EXCEEDED", 60.0), Delivered()])
    provider.answer = lambda push: next(outcomes)
    outbox.put(due_push())

    async with running(dispatcher(outbox, provider)):
        await asyncio.sleep(100)

    first, second = provider.moments
    assert 60.0 <= second - first - provider.seconds <= 67.5
    assert outbox.rows == {}


async def test_tries_come_later_and_later_and_not_in_step() -> None:
    outbox, provider = MemoryOutbox(), Provider(0.0)
    provider.answer = lambda push: RetryLater("ServiceUnavailable")
    for number in range(20):
        outbox.put(due_push(number))

    async with running(dispatcher(outbox, provider)):
        await asyncio.sleep(60)

    assert len({moment for moment in provider.moments if moment > 0.5}) > 60
    for number in range(20):
        moments = [moment for moment, push in provider.sent if push.registration_id == f"registration-{number}"]
        waits = [later - earlier for earlier, later in pairwise(moments)]
        for failures, wait in enumerate(waits, start=1):
            middle = 2.0 ** (failures - 1)
            assert 0.7 * middle - 0.01 <= wait <= 1.3 * middle + 0.1


async def test_a_mark_that_grew_while_it_was_sent_goes_again_with_what_came() -> None:
    outbox, provider = MemoryOutbox(), Provider(1.0)
    outbox.put(due_push(count=1))

    async with running(dispatcher(outbox, provider)):
        await asyncio.sleep(0.5)
        outbox.put(due_push(count=2))
        await asyncio.sleep(3)

    assert [push.count for _, push in provider.sent] == [1, 2]
    assert provider.moments[1] < 1.1 + GATHER
    assert outbox.rows == {}


async def test_a_gone_token_ends_its_registrations_marks() -> None:
    outbox, provider = MemoryOutbox(), Provider()
    provider.answer = lambda push: TokenGone("Unregistered")
    outbox.put(due_push())

    async with running(dispatcher(outbox, provider)) as _:
        await asyncio.sleep(1)

    assert outbox.rows == {}
    assert len(provider.sent) == 1


async def test_a_refused_push_waits_about_an_hour_and_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    outbox, provider = MemoryOutbox(), Provider()
    provider.answer = lambda push: Refused("BadDeviceToken", "look") if push.count == 7 else Delivered()
    outbox.put(due_push(1, count=7))
    outbox.put(due_push(2))

    async with running(dispatcher(outbox, provider)):
        await asyncio.sleep(2400)
        assert provider.numbers == [1, 2]
        await asyncio.sleep(2400)
        assert provider.numbers == [1, 2, 1]

    assert "push refused" in caplog.messages


async def test_a_stalled_provider_does_not_touch_the_other() -> None:
    outbox, stalled, healthy = MemoryOutbox(), Provider(1e9), Provider()
    apns, fcm = dispatcher(outbox, stalled), dispatcher(outbox, healthy, Platform.FCM)
    for number in range(2 * SLOTS):
        outbox.put(due_push(number))

    async with running(apns, fcm):
        await asyncio.sleep(1)
        for number in range(1000, 1300):
            outbox.put(due_push(number, platform=Platform.FCM))
        await asyncio.sleep(1)

        assert len(healthy.sent) == 300
        assert apns.stats.in_flight == SLOTS
        assert fcm.stats.in_flight == 0


async def test_a_faulty_channel_is_away_and_one_push_probes_it(caplog: pytest.LogCaptureFixture) -> None:
    outbox, provider = MemoryOutbox(), Provider()
    healthy = False
    provider.answer = lambda push: Delivered() if healthy or push.app == "com.example.other" else SICK
    under_test = dispatcher(outbox, provider)
    for number in range(10):
        outbox.put(due_push(number))

    async with running(under_test):
        await asyncio.sleep(1)
        fault = under_test.stats.fault
        assert fault is not None
        assert (fault.app, fault.environment, fault.reason) == (
            "com.example.mail",
            Environment.PRODUCTION,
            "TopicDisallowed",
        )
        assert len(provider.sent) == 10

        outbox.put(due_push(20, app="com.example.other"))
        outbox.put(due_push(21))
        await asyncio.sleep(25)
        assert provider.numbers[10:] == [20]  # the other app goes on, the faulty one is away

        await asyncio.sleep(20)
        assert len(provider.sent) == 12  # one probe
        healthy = True
        await asyncio.sleep(200)

    assert outbox.rows == {}
    assert under_test.stats.fault is None
    assert caplog.messages.count("push channel faulty") == 1


async def test_a_rested_channel_is_tried_by_one_push_while_the_others_wait() -> None:
    outbox, provider = MemoryOutbox(), Provider(3.0)
    answers = iter([SICK])
    provider.answer = lambda push: next(answers, Delivered())
    outbox.put(due_push(0))

    async with running(dispatcher(outbox, provider)):
        await asyncio.sleep(4)
        for number in range(1, 11):
            outbox.put(due_push(number))
        await asyncio.sleep(120)

    probe = provider.moments[1]
    assert probe >= 33.0
    assert min(provider.moments[2:]) >= probe + 3.0 - 0.1
    assert max(provider.moments) <= probe + 33.0
    assert outbox.rows == {}


async def test_a_sender_that_raises_stops_no_other_push(caplog: pytest.LogCaptureFixture) -> None:
    outbox, provider = MemoryOutbox(), Provider()
    broken = iter([True])

    def answer(push: DuePush) -> Outcome:
        if push.count == 7 and next(broken, False):
            raise KeyError("bug")
        return Delivered()

    provider.answer = answer
    outbox.put(due_push(1, count=7))
    outbox.put(due_push(2))

    async with running(dispatcher(outbox, provider)):
        await asyncio.sleep(5)

    assert provider.numbers == [1, 2, 1]
    assert outbox.rows == {}
    assert "push sender broke" in caplog.messages


async def test_each_accepted_push_is_reported() -> None:
    outbox, provider = MemoryOutbox(), Provider()
    provider.answer = lambda push: Delivered() if push.count != 9 else TokenGone("Unregistered")
    under_test = dispatcher(outbox, provider)
    heard: list[tuple[Platform, float]] = []
    under_test.stats.on_accepted = lambda platform, seconds: heard.append((platform, seconds))
    outbox.put(due_push(1, first_at=BEGAN - timedelta(seconds=3)))
    outbox.put(due_push(2, count=9))

    async with running(under_test):
        await asyncio.sleep(1)

    ((platform, waited),) = heard
    assert (platform, round(waited, 3)) == (Platform.APNS, 3.1)
    assert under_test.stats.outcomes == {OutcomeKind.DELIVERED: 1, OutcomeKind.TOKEN_GONE: 1}


async def test_stopping_waits_for_pushes_under_way_settles_them_and_leaves_no_claim() -> None:
    outbox, provider = MemoryOutbox(), Provider(2.0)
    for number in range(2 * SLOTS):
        outbox.put(due_push(number))

    async with running(dispatcher(outbox, provider)):
        pass

    assert len(provider.sent) == SLOTS
    assert len(outbox.rows) == SLOTS  # those that were never sent
    assert all(row.owner is None for row in outbox.rows.values())
    assert asyncio.get_running_loop().time() == pytest.approx(2.0, abs=0.1)


async def test_stopping_gives_a_stalled_provider_only_so_long() -> None:
    outbox, provider = MemoryOutbox(), Provider(1000.0)
    outbox.put(due_push())

    async with running(dispatcher(outbox, provider)):
        pass

    assert asyncio.get_running_loop().time() == pytest.approx(DRAIN, abs=0.1)
    assert [row.owner for row in outbox.rows.values()] == [None]
    assert outbox.groups == []


async def test_an_absent_database_is_waited_out(caplog: pytest.LogCaptureFixture) -> None:
    outbox, provider = MemoryOutbox(away=True), Provider()

    with caplog.at_level(logging.WARNING):
        async with running(dispatcher(outbox, provider)):
            outbox.put(due_push())
            await asyncio.sleep(300)
            outbox.away = False
            await asyncio.sleep(45)

    assert len(provider.sent) == 1
    assert outbox.rows == {}
    assert caplog.messages.count("pushes wait: the database is away") == 1


@pytest.mark.parametrize("absence", [20.0, LEASE + 10.0, LEASE + 20.0, LEASE + 30.0, 600.0])
async def test_outcomes_are_kept_while_the_database_is_away_and_pushes_are_not_repeated(absence: float) -> None:
    outbox, provider = MemoryOutbox(), Provider(1.0)
    outbox.put(due_push())

    async with running(dispatcher(outbox, provider)):
        await asyncio.sleep(0.5)
        outbox.away = True
        await asyncio.sleep(absence)
        outbox.away = False
        await asyncio.sleep(LEASE + 40)

    assert len(provider.sent) == 1
    assert outbox.rows == {}


async def test_stopping_without_a_database_says_what_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    outbox, provider = MemoryOutbox(), Provider(1.0)
    outbox.put(due_push())

    async with running(dispatcher(outbox, provider)):
        outbox.away = True

    assert "outcomes lost, their pushes repeat: the database is away" in caplog.messages
    assert "claims left to run out: the database is away" in caplog.messages
    assert len(outbox.rows) == 1


async def test_claims_of_a_process_that_died_run_out_and_are_taken_over() -> None:
    outbox, provider = MemoryOutbox(), Provider()
    outbox.put(due_push())
    until = loop_clock() + timedelta(seconds=LEASE)
    assert (await outbox.claim(Platform.APNS, 1, "dead/apns", until, loop_clock())).pushes

    async with running(dispatcher(outbox, provider)):
        await asyncio.sleep(LEASE - 1)
        assert provider.sent == []
        await asyncio.sleep(1.1)
        assert len(provider.sent) == 1


async def test_claims_a_former_run_of_the_same_process_left_are_taken_back_at_the_start() -> None:
    outbox, provider = MemoryOutbox(), Provider()
    outbox.put(due_push(mark=Mark.TEST))
    await outbox.claim(Platform.APNS, 1, "node-1/apns", loop_clock() + timedelta(seconds=LEASE), loop_clock())

    async with running(dispatcher(outbox, provider)):
        await asyncio.sleep(0.5)

    assert len(provider.sent) == 1


async def test_a_push_under_way_when_its_channel_goes_away_counts_by_its_own_answer() -> None:
    outbox, provider = MemoryOutbox(), Provider()
    provider.answer = lambda push: SICK if push.count == 7 else RetryLater("ServiceUnavailable")
    under_test = dispatcher(outbox, provider)
    outbox.put(due_push(1, count=7))
    outbox.put(due_push(2))

    async with running(under_test):
        await asyncio.sleep(1)

    assert under_test.stats.fault is not None  # an answer that says nothing about the channel does not heal it
    assert under_test.stats.outcomes[OutcomeKind.RETRY_LATER] == 1


async def test_marks_of_another_platform_lead_to_no_claim() -> None:
    outbox, apns, fcm = MemoryOutbox(), Provider(), Provider()
    async with running(dispatcher(outbox, apns), dispatcher(outbox, fcm, Platform.FCM)):
        before = outbox.claims
        outbox.put(due_push(1))
        await asyncio.sleep(1)
        assert (len(apns.sent), len(fcm.sent), outbox.claims - before) == (1, 0, 1)

        outbox.put(due_push(2, platform=Platform.FCM))
        outbox.put(due_push(3))
        await asyncio.sleep(1)
        assert (len(apns.sent), len(fcm.sent), outbox.claims - before) == (2, 1, 3)


async def test_a_mark_that_falls_due_leaves_then_however_often_nothing_was_found_before() -> None:
    outbox, provider = MemoryOutbox(), Provider()
    outbox.put(due_push(first_at=BEGAN + timedelta(seconds=5)))

    async with running(dispatcher(outbox, provider)):
        for _ in range(40):
            await asyncio.sleep(0.1)
            outbox.wakeups.wake(Topic.OUTBOX_APNS)
        await asyncio.sleep(1.1)

    assert provider.moments == [pytest.approx(5.0, abs=0.06)]


async def test_a_burst_is_put_off_as_fast_as_the_database_can() -> None:
    outbox, provider = MemoryOutbox(seconds=0.02, pacing=Pacing(coalesce=60.0)), Provider(0.0)
    for number in range(5000):
        outbox.put(due_push(number))
        outbox.pushed[RegistrationId(f"registration-{number}")] = {"email": BEGAN.timestamp()}

    async with running(dispatcher(outbox, provider)):
        await asyncio.sleep(1)
        assert all(row.paced for row in outbox.rows.values())
        assert outbox.claims <= 6

        await asyncio.sleep(70)
        assert outbox.rows == {}
