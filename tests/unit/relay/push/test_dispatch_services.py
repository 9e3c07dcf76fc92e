"""Marks of a push service that is away or busy are left where they are, and those of others are pushed."""

import asyncio
from random import Random

import pytest

from eas_watcher.breaker import Failure
from relay.domain.model import DuePush, Platform
from relay.domain.outcome import Delivered, Outcome, Reach, RetryLater
from relay.push.breaker import SERVICE
from relay.push.dispatch import SLOTS
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

    async def send(self, push: DuePush) -> Outcome:
        service, loop = service_of(push), asyncio.get_running_loop()
        held = self.services.admit(service, push, loop.time())
        if held is not None:
            self.held_back[service] += 1
            return RetryLater(held.reason, held.seconds, reach=Reach.HERE)
        self.sent.append((loop.time(), push))
        try:
            slowness = self.slowness if service == SLOW else 0.0
            await asyncio.sleep(0.01 + slowness * self.slow.uniform(0.5, 1.5))
            device = push.device_token.encode()
            if self.away and service == SLOW:
                self.services.failed(service, push, device, Failure("timed-out"), loop.time())
                return RetryLater("timed-out")
            self.services.answered(service, push, device, 201, loop.time())
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
        assert 3 <= probes <= 8  # after 30, 60, 120, 240 and 300 s
        assert services.held_back[SLOW] <= SLOTS
        assert max(row.attempts for row in outbox.rows.values()) <= probes + 1

        services.away = False
        await asyncio.sleep(SERVICE.ceiling + 60)

    assert outbox.rows == {}


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
