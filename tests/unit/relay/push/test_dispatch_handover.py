"""How a dispatcher takes over marks from transactions of its own process, without a claim."""

import asyncio
from collections.abc import Collection
from datetime import datetime, timedelta

import pytest

from relay.domain.handover import NewPush, taken
from relay.domain.model import DuePush, Environment, Lane, Platform, RegistrationId
from relay.domain.outcome import Refused, RetryLater
from relay.domain.ports.outbox import Capacity, Claims
from relay.push.dispatch import GATHER, LEASE, MANY, SLOTS, Handovers
from tests.fakes.outbox import MemoryOutbox, loop_clock
from tests.unit.relay.push.dispatching import Provider, dispatcher, running
from tests.unit.relay.push.pushes import due_push

pytestmark = pytest.mark.looptime


async def commit(outbox: MemoryOutbox, handovers: Handovers, *pushes: DuePush, seconds: float = 0.0) -> list[DuePush]:
    """Set marks in a transaction that takes so long; return those that were born claimed."""
    offers = handovers.offer()
    new = [NewPush(push, None, quarantined=False) for push in pushes]
    born = taken(new, offers, loop_clock())
    await asyncio.sleep(seconds)
    for push in pushes:
        outbox.put(push, wake=push not in born)
        if push in born:
            row = outbox.rows[push.registration_id, push.mark]
            row.owner, row.until = offers[push.platform].owner, offers[push.platform].until
    handovers.take(offers, born)
    return born


async def test_a_mark_that_is_born_claimed_is_pushed_and_done_without_a_claim() -> None:
    outbox, provider, handovers = MemoryOutbox(), Provider(), Handovers()
    apns = dispatcher(outbox, provider)
    handovers.add(apns)

    async with running(apns):
        looks = outbox.claims
        await commit(outbox, handovers, due_push(first_at=loop_clock()))
        await asyncio.sleep(0.2)

    assert provider.numbers == [1]
    assert outbox.rows == {}
    assert outbox.claims == looks


async def test_slots_are_offered_to_one_transaction_at_a_time_and_free_afterwards() -> None:
    outbox, handovers = MemoryOutbox(), Handovers()
    apns = dispatcher(outbox, Provider())
    handovers.add(apns)

    async with running(apns):
        offers = handovers.offer()
        assert offers[Platform.APNS].slots == SLOTS
        assert offers[Platform.APNS].until - loop_clock() == timedelta(seconds=LEASE)
        assert handovers.offer() == {}

        handovers.take(offers, [])

        assert handovers.offer()[Platform.APNS].slots == SLOTS


async def test_no_more_pushes_than_slots_are_under_way_whoever_set_their_marks() -> None:
    outbox, provider, handovers = MemoryOutbox(seconds=0.01), Provider(1.0), Handovers()
    apns = dispatcher(outbox, provider)
    handovers.add(apns)

    async with running(apns):
        await asyncio.sleep(0.5)
        for start in range(0, 2 * SLOTS, SLOTS // 2):
            group = [due_push(number, first_at=loop_clock()) for number in range(start, start + SLOTS // 2)]
            await commit(outbox, handovers, *group, seconds=0.03)
            outbox.put(due_push(1000 + start, first_at=loop_clock()))
        await asyncio.sleep(4.0)

    assert provider.most_at_once == SLOTS
    assert len(provider.sent) == 2 * SLOTS + 4
    assert outbox.rows == {}


async def test_slots_reserved_between_the_claims_of_one_look_are_not_filled_by_it() -> None:
    outbox, provider, handovers = MemoryOutbox(seconds=0.01), Provider(1.0), Handovers()
    sandbox = Lane(Environment.SANDBOX)
    apns = dispatcher(outbox, provider, capacities=lambda now: [Capacity(sandbox, 1, None)])
    handovers.add(apns)

    async with running(apns):
        await asyncio.sleep(0.5)
        for number in range(SLOTS):
            outbox.put(due_push(number, first_at=loop_clock()))
        await asyncio.sleep(0.005)  # the look claims for the limited lane first
        new = [due_push(number, first_at=loop_clock()) for number in range(SLOTS, 2 * SLOTS)]
        await commit(outbox, handovers, *new, seconds=0.05)
        await asyncio.sleep(4.0)

    assert provider.most_at_once <= SLOTS
    assert len(provider.sent) == 2 * SLOTS
    assert outbox.rows == {}


class SlowClaims(MemoryOutbox):
    """Answers a claim after a while."""

    async def claim(
        self,
        platform: Platform,
        limit: int,
        owner: str,
        until: datetime,
        now: datetime,
        *,
        only: Lane | None = None,
        without: Collection[Lane] = (),
    ) -> Claims:
        await asyncio.sleep(0.3)
        return await super().claim(platform, limit, owner, until, now, only=only, without=without)


async def test_marks_that_wait_go_before_new_ones() -> None:
    outbox, provider, handovers = SlowClaims(), Provider(1.0), Handovers()
    apns = dispatcher(outbox, provider)
    handovers.add(apns)
    for number in range(SLOTS + 1):
        outbox.put(due_push(number))

    async with running(apns):
        await asyncio.sleep(1.5)  # all slots are free again, and the claim of the mark that waits is under way
        assert await commit(outbox, handovers, due_push(SLOTS + 1, first_at=loop_clock())) == []
        await asyncio.sleep(4)
        assert await commit(outbox, handovers, due_push(SLOTS + 2, first_at=loop_clock()))
        await asyncio.sleep(2)

    assert sorted(provider.numbers) == [*range(SLOTS + 3)]
    assert provider.numbers[-1] == SLOTS + 2


async def test_a_look_while_all_slots_are_offered_is_made_up_for() -> None:
    outbox, provider, handovers = MemoryOutbox(), Provider(), Handovers()
    apns = dispatcher(outbox, provider)
    handovers.add(apns)

    async with running(apns):
        offers = handovers.offer()
        outbox.put(due_push())
        await asyncio.sleep(0.1)
        assert provider.sent == []
        handovers.take(offers, [])
        await asyncio.sleep(0.1)

        assert provider.numbers == [1]


async def test_nothing_is_offered_in_an_environment_that_is_away() -> None:
    outbox, provider, handovers = MemoryOutbox(), Provider(), Handovers()
    provider.answer = lambda push: RetryLater("no-connection", provider=True)
    apns = dispatcher(outbox, provider)
    handovers.add(apns)
    for number in range(SLOTS):
        outbox.put(due_push(number))

    async with running(apns):
        await asyncio.sleep(1)
        assert await commit(outbox, handovers, due_push(SLOTS, first_at=loop_clock())) == []


async def test_a_push_born_claimed_that_fails_is_tried_again_as_any_other() -> None:
    outbox, provider, handovers = MemoryOutbox(), Provider(), Handovers()
    provider.answer = lambda push: RetryLater("ServiceUnavailable") if len(provider.sent) == 1 else Refused("Bad", "")
    apns = dispatcher(outbox, provider)
    handovers.add(apns)

    async with running(apns):
        await commit(outbox, handovers, due_push(first_at=loop_clock()))
        await asyncio.sleep(5)

    assert [push.attempts for _, push in provider.sent] == [0, 1]


async def test_a_mark_that_grows_while_its_push_is_under_way_goes_again() -> None:
    outbox, provider, handovers = MemoryOutbox(), Provider(1.0), Handovers()
    apns = dispatcher(outbox, provider)
    handovers.add(apns)

    async with running(apns):
        await commit(outbox, handovers, due_push(count=1, first_at=loop_clock()))
        await asyncio.sleep(0.5)
        outbox.put(due_push(count=3, first_at=loop_clock()))
        await asyncio.sleep(3)

    assert [push.count for _, push in provider.sent] == [1, 3]
    assert outbox.rows == {}


async def test_a_dispatcher_that_stops_offers_nothing_and_leaves_no_claim() -> None:
    outbox, provider, handovers = MemoryOutbox(), Provider(), Handovers()
    apns = dispatcher(outbox, provider)
    handovers.add(apns)
    assert handovers.offer() == {}

    async with running(apns):
        offers = handovers.offer()
    handovers.take(offers, [due_push()])
    await asyncio.sleep(1)

    assert provider.sent == []
    assert handovers.offer() == {}


async def test_each_dispatcher_gets_the_pushes_of_its_platform() -> None:
    outbox, handovers = MemoryOutbox(), Handovers()
    providers = {platform: Provider() for platform in Platform}
    dispatchers = [dispatcher(outbox, providers[platform], platform) for platform in Platform]
    for each in dispatchers:
        handovers.add(each)
    numbers = {platform: number for number, platform in enumerate(Platform)}

    async with running(*dispatchers):
        pushes = [due_push(number, platform=platform, first_at=loop_clock()) for platform, number in numbers.items()]
        await commit(outbox, handovers, *pushes)
        await asyncio.sleep(0.3)

    assert {platform: providers[platform].numbers for platform in Platform} == {p: [n] for p, n in numbers.items()}
    assert outbox.rows == {}


async def test_outcomes_that_follow_one_another_are_recorded_together() -> None:
    outbox, provider = MemoryOutbox(), Provider(0.0)
    provider.answer = lambda push: RetryLater("ServiceUnavailable", 3600.0)

    async with running(dispatcher(outbox, provider)):
        await asyncio.sleep(1)
        for number in range(SLOTS // MANY - 1):
            outbox.put(due_push(number, first_at=loop_clock()))
            await asyncio.sleep(GATHER / 10)
        assert outbox.groups == []
        await asyncio.sleep(GATHER)
        assert [len(group) for group in outbox.groups] == [SLOTS // MANY - 1]

        outbox.put(due_push(100, first_at=loop_clock()))
        await asyncio.sleep(GATHER * 0.9)
        assert len(outbox.groups) == 1
        await asyncio.sleep(GATHER * 0.2)
        assert [len(group) for group in outbox.groups] == [SLOTS // MANY - 1, 1]


async def test_many_outcomes_do_not_wait() -> None:
    outbox, provider = MemoryOutbox(), Provider(0.0)
    many = SLOTS // MANY

    async with running(dispatcher(outbox, provider)):
        await asyncio.sleep(1)
        for number in range(many):
            outbox.put(due_push(number, first_at=loop_clock()))
        await asyncio.sleep(GATHER / 10)
        assert [len(group) for group in outbox.groups] == [many]


async def test_the_wait_for_other_outcomes_does_not_outlast_the_dispatcher() -> None:
    outbox, provider = MemoryOutbox(), Provider(0.0)

    async with running(dispatcher(outbox, provider)):
        for number in range(2):
            outbox.put(due_push(number, first_at=loop_clock()))
            await asyncio.sleep(GATHER / 10)
        assert outbox.groups == []

    assert RegistrationId("registration-1") not in {key[0] for key in outbox.rows}
