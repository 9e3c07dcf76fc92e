"""Test that an app which makes id and secret itself, or sends an Idempotency-Key, makes one registration of a wish."""

import asyncio
from dataclasses import replace

import pytest

from eas_watcher.names import CollectionClass
from relay.domain.model import Environment, Platform, RegistrationId, RegistrationState
from relay.registration.errors import (
    CredentialRefused,
    Gone,
    InvalidRequest,
    KeyReused,
    NotAuthorized,
    OtherMailbox,
    TooManyRefusals,
    UnknownApp,
    Wiped,
)
from relay.registration.requests import BasicLogin, Device, RegistrationRequest
from relay.registration.secret import Access
from tests.fakes.relay_api import APNS_APP, APNS_TOKEN, FCM_APP, FCM_TOKEN, GOOD, SILENT, ApiWorld, judging

pytestmark = pytest.mark.looptime

MINE = Access(RegistrationId("Vq0zM3yX8sT1bN6kR4wJcLhP"), "2r5uGvTjJ1rN4QkO0mWc7yYxVb8eLhZq")
KEY = "3f0a9c1e-7b52-4d68-9e01-c2d4f6a8b7e5"


def wish(password: str = GOOD, user: str | None = None, mailbox: str = "ann@example.com") -> RegistrationRequest:
    return RegistrationRequest(mailbox, BasicLogin(password, user), Device(Platform.APNS, APNS_APP, APNS_TOKEN))


async def test_an_app_makes_a_registration_under_its_own_id_and_secret() -> None:
    world = ApiWorld()

    async with judging(world):
        made = await world.service.put(MINE, wish())

    assert made.made
    assert made.view.registration.state is RegistrationState.ACTIVE
    assert (await world.service.view(MINE)).registration.id == MINE.registration_id
    assert not world.tokens.made or MINE.secret not in repr(world.store.registrations)


async def test_the_same_request_again_tries_no_password_and_changes_nothing() -> None:
    world = ApiWorld()
    async with judging(world):
        made = await world.service.put(MINE, wish())
        again = await world.service.put(MINE, wish())

    assert not again.made
    assert again.view == made.view
    assert world.judged == [GOOD]


async def test_the_same_request_revives_a_registration_whose_token_was_gone() -> None:
    world = ApiWorld()
    async with judging(world):
        made = await world.service.put(MINE, wish())
        mine = made.view.registration
        world.store.registrations[mine.id] = replace(mine, state=RegistrationState.TOKEN_GONE)
        again = await world.service.put(MINE, wish())

    assert again.view.registration.state is RegistrationState.ACTIVE
    assert world.judged == [GOOD]


async def test_the_same_request_waits_for_the_verdict_on_the_first_one() -> None:
    world = ApiWorld()
    first = asyncio.get_running_loop().create_task(world.service.put(MINE, wish()))
    await asyncio.sleep(1)

    async with asyncio.TaskGroup() as tasks:
        second = tasks.create_task(world.service.put(MINE, wish()))
        await asyncio.sleep(1)
        world.judge()

    assert (await first).made
    assert not second.result().made
    assert second.result().view.registration.state is RegistrationState.ACTIVE
    assert world.judged == [GOOD]


async def test_the_same_request_learns_of_the_refusal_of_the_first_one() -> None:
    world = ApiWorld()
    made = await world.service.put(MINE, wish(SILENT))
    assert made.view.candidate_pending

    again = asyncio.get_running_loop().create_task(world.service.put(MINE, wish(SILENT)))
    await asyncio.sleep(1)
    world.store.refuse(MINE.registration_id, world.time())

    with pytest.raises(CredentialRefused):
        await again


async def test_two_requests_that_both_find_nothing_make_one_registration() -> None:
    world = ApiWorld()
    world.store.appears = True

    async with judging(world):
        made = await world.service.put(MINE, wish())

    assert not made.made
    assert list(world.store.registrations) == [MINE.registration_id]


async def test_another_secret_opens_nothing_and_changes_nothing() -> None:
    world = ApiWorld()
    async with judging(world):
        made = await world.service.put(MINE, wish())
        with pytest.raises(NotAuthorized, match="no registration opens"):
            await world.service.put(replace(MINE, secret="0123456789abcdef" * 4), replace(wish(), locale="fr"))

    assert (await world.service.view(MINE)) == made.view
    assert world.judged == [GOOD]


async def test_a_weak_identity_makes_nothing() -> None:
    world = ApiWorld()

    with pytest.raises(InvalidRequest, match="Authorization: the secret must be at least 128 random bits"):
        await world.service.put(replace(MINE, secret="password"), wish())

    assert not world.store.registrations


async def test_what_differs_is_changed_without_a_try_of_the_password() -> None:
    world = ApiWorld()
    device = Device(Platform.APNS, APNS_APP, "AB" * 32, Environment.SANDBOX)
    calendar = frozenset({CollectionClass.CALENDAR})
    async with judging(world):
        await world.service.put(MINE, wish())
        view = (await world.service.put(MINE, replace(wish(), device=device, classes=calendar, locale="fr"))).view

    own = view.registration
    assert (own.device_token, own.environment) == ("ab" * 32, Environment.SANDBOX)
    assert (own.classes, own.locale, own.state) == (calendar, "fr", RegistrationState.ACTIVE)
    assert world.judged == [GOOD]


async def test_a_new_password_is_tried_and_then_counts_as_the_last_one() -> None:
    world = ApiWorld()
    async with judging(world):
        await world.service.put(MINE, wish())
        with pytest.raises(CredentialRefused):
            await world.service.put(MINE, replace(wish("wrong"), locale="fr"))
        view = (await world.service.put(MINE, wish())).view

    assert (view.registration.state, view.registration.locale) == (RegistrationState.ACTIVE, "en")
    assert world.judged == [GOOD, "wrong", GOOD]
    assert not view.candidate_refused


async def test_a_refused_password_leaves_nothing_and_is_tried_as_often_as_the_account_bears() -> None:
    world = ApiWorld()
    async with judging(world):
        for _ in range(2):
            with pytest.raises(CredentialRefused):
                await world.service.put(MINE, wish("wrong"))
            assert not world.store.registrations
        with pytest.raises(TooManyRefusals):
            await world.service.put(MINE, wish("wrong"))

    assert world.judged == ["wrong", "wrong"]


async def test_a_password_that_was_refused_late_is_tried_again() -> None:
    world = ApiWorld()
    await world.service.put(MINE, wish(SILENT))
    world.store.refuse(MINE.registration_id, world.time())

    view = (await world.service.put(MINE, wish(SILENT))).view

    assert (view.registration.state, view.candidate_pending) == (RegistrationState.VERIFYING, True)


async def test_a_registration_keeps_its_mailbox_and_its_app() -> None:
    world = ApiWorld()
    async with judging(world):
        await world.service.put(MINE, wish())
        with pytest.raises(OtherMailbox, match="another mailbox"):
            await world.service.put(MINE, wish(mailbox="ben@example.com"))
        with pytest.raises(OtherMailbox, match="another app"):
            await world.service.put(MINE, replace(wish(), device=Device(Platform.FCM, FCM_APP, FCM_TOKEN)))
        with pytest.raises(UnknownApp):
            await world.service.put(MINE, replace(wish(), device=Device(Platform.APNS, "other", APNS_TOKEN)))

    assert world.judged == [GOOD]


async def test_a_wiped_registration_does_not_come_back() -> None:
    world = ApiWorld()
    async with judging(world):
        made = await world.service.put(MINE, wish())
        world.store.registrations[MINE.registration_id] = replace(made.view.registration, state=RegistrationState.WIPED)
        with pytest.raises(Wiped):
            await world.service.put(MINE, wish())


async def test_a_registration_that_was_removed_does_not_come_back_by_a_request_that_is_late() -> None:
    world = ApiWorld()
    async with judging(world):
        await world.service.put(MINE, wish())
        await world.service.remove(MINE)
        with pytest.raises(Gone):
            await world.service.put(MINE, wish())
        with pytest.raises(NotAuthorized):
            await world.service.put(replace(MINE, secret="0123456789abcdef" * 4), wish())

    assert not world.store.registrations
    assert world.judged == [GOOD]


async def test_the_same_request_learns_that_the_mailbox_was_wiped_meanwhile() -> None:
    world = ApiWorld()
    await world.service.put(MINE, wish(SILENT))
    again = asyncio.get_running_loop().create_task(world.service.put(MINE, wish(SILENT)))
    await asyncio.sleep(1)
    own = world.store.registrations[MINE.registration_id]
    del world.store.candidates[own.id]
    world.store.registrations[own.id] = replace(own, state=RegistrationState.WIPED)

    with pytest.raises(Wiped):
        await again


async def test_an_app_that_lost_its_secret_takes_the_place_of_its_old_registration() -> None:
    world = ApiWorld()
    other = replace(MINE, registration_id=RegistrationId("0" + MINE.registration_id[1:]))
    async with judging(world):
        await world.service.put(MINE, wish())
        await world.service.put(other, wish())

    assert list(world.store.registrations) == [other.registration_id]


async def test_a_post_with_the_same_key_makes_one_registration_and_tells_its_secret_again() -> None:
    world = ApiWorld()
    async with judging(world):
        made = await world.service.register(wish(), KEY)
        again = await world.service.register(wish(), KEY)

    assert (made.view, made.secret) == (again.view, again.secret)
    assert list(world.store.registrations) == [made.view.registration.id]
    assert world.judged == [GOOD]
    assert made.secret not in repr(made)


async def test_a_key_is_good_for_another_password_while_none_was_accepted() -> None:
    world = ApiWorld()
    async with judging(world):
        with pytest.raises(CredentialRefused):
            await world.service.register(wish("wrong"), KEY)
        made = await world.service.register(wish(), KEY)
        with pytest.raises(KeyReused):
            await world.service.register(wish("other"), KEY)

    assert list(world.store.registrations) == [made.view.registration.id]
    assert world.judged == ["wrong", GOOD]


async def test_a_registration_that_came_by_post_is_put_as_well() -> None:
    world = ApiWorld()
    async with judging(world):
        made = await world.service.register(wish(), KEY)
        access = Access(made.view.registration.id, made.secret)
        again = await world.service.put(access, wish(user="ann@EXAMPLE.com"))

    assert again.view == made.view
    assert world.judged == [GOOD]
