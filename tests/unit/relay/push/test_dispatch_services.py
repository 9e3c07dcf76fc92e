"""Marks of a push service that is away or busy are left where they are, and those of others are pushed."""

import asyncio
from random import Random

import pytest

from eas_watcher.breaker import Failure
from relay.domain.model import DuePush, Platform
from relay.domain.outcome import Delivered, Outcome, Reach, RetryLater
from relay.push.backoff import PASSING_CEILING
from relay.push.breaker import SERVICE
from relay.push.dispatch import SLOTS
from relay.push.webpush.answers import own_fault
from relay.push.webpush.services import Services
from tests.fakes.outbox import MemoryOutbox
from tests.unit.relay.push.dispatching import Provider, dispatcher, running
from tests.unit.relay.push.pushes import due_push

pytestmark = pytest.mark.looptime

SLOW, GOOD = "slow.example.com", "good.example.com"


class TwoServices(Provider):
    """Send to two push services as WebPushSender does; what is held back is not sent."""

    def __init__(self) -> None:
        super().__init__(0.01)
        self.services = Services(SLOTS // 2, Random(1))
        self.held_back = {SLOW: 0, GOOD: 0}
        self.slow = Random(1)
        self.slowness = 0.0
        """Seconds a push to SLOW takes on an average."""
        self.away = False
        self.dead: frozenset[int] = frozenset()
        """The phones that nobody listens to: their pushes are answered 507, as ntfy does."""

    async def send(self, push: DuePush) -> Outcome:
        service, loop = service_of(push), asyncio.get_running_loop()
        device = push.device_token.encode()
        held = self.services.admit(service, push, device, loop.time(), retried=push.attempts > 0)
        if held is not None:
            self.held_back[service] += 1
            return RetryLater(held.reason, held.seconds, reach=Reach.HERE)
        self.sent.append((loop.time(), push))
        try:
            slowness = self.slowness if service == SLOW else 0.0
            await asyncio.sleep(0.01 + slowness * self.slow.uniform(0.5, 1.5))
            if self.away and service == SLOW:
                self.services.failed(service, push, device, Failure("timed-out"), loop.time())
                return RetryLater("timed-out")
            status = 507 if int(push.registration_id.rpartition("-")[2]) in self.dead else 201
            self.services.answered(service, push, device, status, loop.time())
            if status != 201:
                waits = RetryLater("http-507")
                own = self.services.failed(service, push, device, Failure("http-507"), loop.time())
                return own_fault(waits) if own else waits
            return Delivered()
        finally:
            self.services.ended(service, push, loop.time())

    def count(self, service: str) -> int:
        return sum(service_of(push) == service for _, push in self.sent)


def service_of(push: DuePush) -> str:
    return SLOW if SLOW in push.device_token else GOOD


def put(outbox: MemoryOutbox, service: str, numbers: range) -> None:
    for number in numbers:
        token = f'{{"auth":"x","endpoint":"https://{service}/{number}","p256dh":"y"}}'
        outbox.put(due_push(number, platform=Platform.WEBPUSH, device_token=token))


async def test_marks_of_a_service_that_is_away_are_not_claimed_and_leave_when_it_is_back() -> None:
    outbox, services = MemoryOutbox(), TwoServices()
    services.away = True
    put(outbox, SLOW, range(1000))

    async with running(dispatcher(outbox, services, Platform.WEBPUSH, services.services.capacities)):
        await asyncio.sleep(1)
        put(outbox, GOOD, range(1000, 2000))
        await asyncio.sleep(20)
        assert services.count(GOOD) == 1000
        first = services.count(SLOW)
        assert SERVICE.sources <= first <= SLOTS
        assert services.held_back[SLOW] <= SLOTS

        await asyncio.sleep(600)
        probes = services.count(SLOW) - first
        # After 32, 64, 128, 256 and 300 s, by a phone that failed before and by another.
        assert 6 <= probes <= 14
        assert services.held_back[SLOW] <= SLOTS
        assert max(row.attempts for row in outbox.rows.values()) <= probes + 1

        services.away = False
        await asyncio.sleep(SERVICE.ceiling + 60)

    assert outbox.rows == {}


async def test_dead_phones_delay_no_living_one_however_often_mail_comes() -> None:
    outbox, services = MemoryOutbox(), TwoServices()
    services.dead = frozenset(range(5))
    dead, living = range(5), range(5, 7)

    async with running(dispatcher(outbox, services, Platform.WEBPUSH, services.services.capacities)):
        for mail in range(60):
            put(outbox, GOOD, dead)
            await asyncio.sleep(1)
            put(outbox, GOOD, living)
            # From the first answer on, the dead ones are known.
            await asyncio.sleep(0.5 if mail else SERVICE.first + 0.5)
            assert not any(int(id_.rpartition("-")[2]) in living for id_, _ in outbox.rows)
            await asyncio.sleep(60)

        quarantines = [outbox.registrations[id_].quarantine for id_ in {id_ for id_, _ in outbox.rows}]
        assert [each and each.reason for each in quarantines] == ["http-507"] * 5

        services.dead = frozenset()
        await asyncio.sleep(1.5 * PASSING_CEILING)

    assert outbox.rows == {}
    assert not any(registration.quarantine for registration in outbox.registrations.values())


async def test_a_living_phone_among_dead_ones_alone_is_tried_at_once() -> None:
    outbox, services = MemoryOutbox(), TwoServices()
    services.dead = frozenset(range(3))

    async with running(dispatcher(outbox, services, Platform.WEBPUSH, services.services.capacities)):
        put(outbox, GOOD, range(3))
        await asyncio.sleep(3600)  # the dead ones' turn waits for minutes by now
        assert services.services.away
        put(outbox, GOOD, range(3, 4))
        await asyncio.sleep(0.3)

        assert {int(id_.rpartition("-")[2]) for id_, _ in outbox.rows} == {0, 1, 2}
        assert services.services.away == []


async def test_marks_of_a_busy_service_wait_for_a_slot_there_and_are_not_claimed_in_vain() -> None:
    outbox, services = MemoryOutbox(), TwoServices()
    services.slowness = 5.0
    put(outbox, SLOW, range(1000))

    async with running(dispatcher(outbox, services, Platform.WEBPUSH, services.services.capacities)):
        await asyncio.sleep(7)
        put(outbox, GOOD, range(1000, 2000))
        await asyncio.sleep(2)
        assert services.count(GOOD) == 1000

        await asyncio.sleep(120)

    assert outbox.rows == {}
    assert max(services.moments) <= 1000 / (SLOTS / 2) * 5.0 + 10.0, "its slots were always used"
    assert services.held_back[SLOW] <= 2 * SLOTS


async def test_a_burst_to_one_service_is_limited_by_its_slots_alone() -> None:
    outbox, services = MemoryOutbox(), TwoServices()

    async with running(dispatcher(outbox, services, Platform.WEBPUSH, services.services.capacities)):
        put(outbox, GOOD, range(SLOTS))
        await asyncio.sleep(0.3)

        assert outbox.rows == {}
