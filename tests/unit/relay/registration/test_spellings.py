"""Test that all spellings of one user lead to one mailbox, and that another user's password opens nothing by it."""

from dataclasses import replace

import pytest

from relay.domain.model import Platform, RegistrationChange, RegistrationState
from relay.domain.users import Accounts
from relay.registration.errors import CredentialRefused, OtherMailbox
from relay.registration.registrations import Registered
from relay.registration.requests import BasicLogin, Device, KerberosLogin, Login, RegistrationRequest
from relay.registration.secret import Access
from relay.security.invitations import invite
from tests.fakes.relay_api import APNS_APP, GOOD, ApiWorld, judging

pytestmark = pytest.mark.looptime

LISTED = {"head-office": Accounts(domains=frozenset({"example.com", "example"}))}


async def register(
    world: ApiWorld,
    user: str,
    device: str,
    password: str = GOOD,
    login: Login | None = None,
    server: str = "head-office",
) -> Registered:
    where = Device(Platform.APNS, APNS_APP, device * 32)
    wish = RegistrationRequest("ann@example.com", login or BasicLogin(password, user), where, server)
    async with judging(world):
        return await world.service.register(wish)


async def test_case_makes_no_second_mailbox_and_the_first_spelling_is_sent() -> None:
    world = ApiWorld()
    first = await register(world, "Ann@example.com", "aa")

    second = await register(world, "ann@EXAMPLE.com", "bb")

    assert second.view.mailbox.id == first.view.mailbox.id
    assert len(world.store.mailboxes) == 1
    assert world.open(second.view.registration.id) == ("Ann@example.com", GOOD)


async def test_another_user_of_a_name_that_differs_in_case_gets_nothing_of_the_mailbox() -> None:
    world = ApiWorld()
    await register(world, "Ann@example.com", "aa")

    with pytest.raises(CredentialRefused):
        await register(world, "ann@example.com", "bb", password="of another ann")

    (left,) = world.store.registrations.values()
    assert left.state is RegistrationState.ACTIVE


async def test_a_server_that_tells_case_apart_has_a_mailbox_for_each_spelling() -> None:
    world = ApiWorld(accounts={"head-office": Accounts(cased=True)})

    made = [await register(world, user, device) for user, device in (("Ann", "aa"), ("ann", "bb"), ("Ann", "cc"))]

    assert [each.view.mailbox.user for each in made] == ["Ann", "ann", "Ann"]
    assert len(world.store.mailboxes) == 2


@pytest.mark.parametrize("first", ["ann", "ann@example.com", "EXAMPLE\\ann"])
async def test_the_forms_of_a_login_are_one_user_where_the_operator_says_so(first: str) -> None:
    world = ApiWorld(accounts=LISTED)
    await register(world, first, "aa")

    for user, device in (("Ann", "bb"), ("ANN@example.com", "cc"), ("example\\ann", "dd")):
        await register(world, user, device)

    assert len(world.store.mailboxes) == 1


async def test_the_forms_of_a_login_are_users_of_their_own_where_nobody_says_more() -> None:
    world = ApiWorld()

    for user, device in (("ann", "aa"), ("ann@example.com", "bb"), ("EXAMPLE\\ann", "cc")):
        await register(world, user, device)

    assert len(world.store.mailboxes) == 3


async def test_a_mailbox_that_was_made_under_other_settings_is_found() -> None:
    world = ApiWorld()
    await register(world, "ann@example.com", "aa")
    world.service.rules = replace(world.service.rules, accounts=LISTED)

    await register(world, "EXAMPLE\\ann", "bb")

    assert len(world.store.mailboxes) == 1


async def test_a_change_may_spell_the_user_otherwise() -> None:
    world = ApiWorld()
    made = await register(world, "Ann@example.com", "aa")
    access = Access(made.view.registration.id, made.secret)
    async with judging(world):
        await world.service.change(access, RegistrationChange(), BasicLogin(GOOD, "ann@example.com"))
        with pytest.raises(OtherMailbox):
            await world.service.change(access, RegistrationChange(), BasicLogin(GOOD, "ann"))

    assert world.open(made.view.registration.id) == ("Ann@example.com", GOOD)


async def test_an_invitation_is_for_its_own_spelling() -> None:
    world = ApiWorld()
    until = world.time.now.replace(year=world.time.now.year + 1)
    for user, device in (("Ann", "aa"), ("ann", "bb")):
        login = KerberosLogin(invite(world.inviting, "branch", user, until), user)
        made = await register(world, user, device, login=login, server="branch")
        assert made.view.mailbox.user == user
