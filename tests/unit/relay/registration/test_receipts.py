from datetime import timedelta

import pytest

from relay.domain.model import Mark, Platform
from relay.domain.receipts import PushId
from relay.domain.timeline import Event, EventKind
from relay.registration.errors import NotAuthorized
from relay.registration.receipts import PER_HOUR, REMEMBERED
from relay.registration.registrations import Registered
from relay.registration.requests import BasicLogin, Device, RegistrationRequest
from relay.registration.secret import Access
from tests.fakes.relay_api import APNS_APP, APNS_TOKEN, GOOD, ApiWorld, judging

WRONG = "a-secret-that-opens-nothing"


async def registered(world: ApiWorld) -> Registered:
    request = RegistrationRequest(
        "ann@example.com", BasicLogin(GOOD, None), Device(Platform.APNS, APNS_APP, APNS_TOKEN), "head-office"
    )
    async with judging(world):
        return await world.service.register(request)


def access(own: Registered) -> Access:
    return Access(own.view.registration.id, own.secret)


def made(world: ApiWorld, generation: int = 1) -> PushId:
    return PushId.of(Mark.EMAIL, world.time(), generation)


def push_id(own: Registered, world: ApiWorld, generation: int = 1) -> str:
    registration = own.view.registration
    return made(world, generation).seal(registration.mailbox_id, registration.id)


async def test_what_an_app_has_shown_is_counted_measured_and_noted() -> None:
    world = ApiWorld()
    own = await registered(world)
    seconds: list[tuple[Platform, float]] = []
    world.shown.on_shown = lambda platform, waited: seconds.append((platform, waited))
    push, sent = made(world), push_id(own, world)
    world.time.forward(seconds=3)

    await world.receipts.take(access(own), [(sent, 1.0)])

    assert world.shown.taken == {Platform.APNS: 1}
    assert seconds == [(Platform.APNS, 2.0)]
    [noted] = world.timeline.take()
    registration = own.view.registration
    assert noted.at == world.time() - timedelta(seconds=1)
    assert noted.event == Event(
        EventKind.SHOWN, registration.mailbox_id, registration.id, what="email", through="apns", code=push.text
    )


async def test_a_receipt_that_comes_again_counts_once() -> None:
    world = ApiWorld()
    own = await registered(world)
    sent = push_id(own, world)

    await world.receipts.take(access(own), [(sent, 0.0), (sent, 0.0)])
    await world.receipts.take(access(own), [(sent, 0.0), (push_id(own, world, 2), 0.0)])

    assert world.shown.taken[Platform.APNS] == 2


async def test_one_registration_counts_so_much_an_hour_and_the_next_one_again() -> None:
    world = ApiWorld()
    own = await registered(world)

    await world.receipts.take(access(own), [(push_id(own, world, n), 0.0) for n in range(PER_HOUR + 7)])
    assert world.shown.taken[Platform.APNS] == PER_HOUR

    world.time.forward(hours=1)
    await world.receipts.take(access(own), [(push_id(own, world), 0.0)])
    assert world.shown.taken[Platform.APNS] == PER_HOUR + 1


async def test_the_memory_of_receipts_is_bounded() -> None:
    world = ApiWorld()
    own = await registered(world)
    first = push_id(own, world)
    taken = 0
    while taken <= REMEMBERED:
        await world.receipts.take(access(own), [(push_id(own, world, taken + n), 0.0) for n in range(PER_HOUR)])
        taken += PER_HOUR
        world.time.forward(hours=1)

    known = world.shown.taken[Platform.APNS]
    await world.receipts.take(access(own), [(first, 0.0)])

    assert known == taken
    assert world.shown.taken[Platform.APNS] == known + 1, "the first one is forgotten by now"


async def test_a_wrong_secret_takes_no_receipt() -> None:
    world = ApiWorld()
    own = await registered(world)

    with pytest.raises(NotAuthorized):
        await world.receipts.take(Access(own.view.registration.id, WRONG), [(push_id(own, world), 0.0)])

    assert not world.shown.taken
    assert world.timeline.take() == []
