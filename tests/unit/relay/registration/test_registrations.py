import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.machine.memory import WatchState
from eas_watcher.names import CollectionClass
from relay.domain.errors import StoreUnavailable
from relay.domain.model import (
    Ending,
    Environment,
    Mark,
    Mode,
    Platform,
    RegistrationChange,
    RegistrationId,
    RegistrationState,
    shard_of,
)
from relay.registration.errors import (
    CredentialRefused,
    Gone,
    InvalidRequest,
    MailboxWiped,
    NoSuchTest,
    NotActive,
    NotAuthorized,
    OtherMailbox,
    Replaced,
    TooManyChallenges,
    TooManyRefusals,
    UnknownApp,
    UnknownServer,
    UnsupportedDevice,
    Wiped,
    WrongProof,
)
from relay.registration.registrations import Registered
from relay.registration.requests import BasicLogin, Device, OAuthCodeLogin, RegistrationRequest
from relay.registration.secret import Access, hash_secret
from relay.security.invitations import invite
from relay.security.sealing import derive_device_id
from tests.fakes.relay_api import (
    APNS_APP,
    APNS_TOKEN,
    FCM_APP,
    FCM_TOKEN,
    GOOD,
    REDIRECT,
    SERVICE,
    SILENT,
    WEB_APP,
    ApiWorld,
    judging,
    subscribed,
)

pytestmark = pytest.mark.looptime


def request(password: str = GOOD, user: str | None = None, mailbox: str = "ann@example.com") -> RegistrationRequest:
    return RegistrationRequest(mailbox, BasicLogin(password, user), Device(Platform.APNS, APNS_APP, APNS_TOKEN))


def access(registered: Registered) -> Access:
    return Access(registered.view.registration.id, registered.secret)


async def registered(world: ApiWorld, password: str = GOOD, mailbox: str = "ann@example.com") -> Registered:
    async with judging(world):
        return await world.service.register(request(password, mailbox=mailbox))


def time() -> float:
    return asyncio.get_running_loop().time()


async def test_an_accepted_credential_makes_an_active_registration_at_once() -> None:
    world = ApiWorld()
    before = time()

    made = await registered(world)

    assert time() - before < 0.1
    assert made.view.registration.state is RegistrationState.ACTIVE
    assert (made.view.mailbox.server, made.view.mailbox.user) == ("head-office", "ann@example.com")
    assert world.open(made.view.registration.id) == ("ann@example.com", GOOD)


async def test_ids_and_secret_are_random_and_only_the_hash_is_kept() -> None:
    world = ApiWorld()

    made = await registered(world)

    own = made.view.registration
    assert own.id.endswith("-18")
    assert made.secret.endswith("-32")
    assert own.secret_hash == hash_secret(made.secret)
    assert made.secret not in repr(world.store.registrations)
    assert made.secret not in repr(made)


async def test_a_new_mailbox_gets_its_lasting_shard_and_device() -> None:
    world = ApiWorld()

    mailbox = (await registered(world)).view.mailbox

    assert mailbox.shard == shard_of(mailbox.id)
    assert mailbox.device_id == derive_device_id(world.key.public_key(), "head-office", "ann@example.com")


async def test_a_silent_server_leaves_the_registration_verifying_after_six_seconds() -> None:
    world = ApiWorld()
    before = time()

    made = await registered(world, SILENT)

    assert time() - before == pytest.approx(6.0)
    assert made.view.registration.state is RegistrationState.VERIFYING
    assert made.view.candidate_pending


async def test_a_verdict_is_found_within_a_second_though_its_wakeup_is_lost() -> None:
    world = ApiWorld()
    before = time()

    async with asyncio.TaskGroup() as tasks:
        register = tasks.create_task(world.service.register(request()))
        await asyncio.sleep(2.5)
        tell, world.store.wakeups = world.store.wakeups, ApiWorld().wakeups
        world.judge()
        world.store.wakeups = tell

    assert register.result().view.registration.state is RegistrationState.ACTIVE
    assert time() - before == pytest.approx(3.0, abs=0.1)


async def test_a_refused_registration_leaves_nothing_behind() -> None:
    world = ApiWorld()

    with pytest.raises(CredentialRefused):
        await registered(world, "wrong")

    assert not world.store.registrations
    assert not world.store.candidates


async def test_a_refusal_is_reported_even_when_the_registration_cannot_be_removed() -> None:
    world = ApiWorld()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(expect(CredentialRefused, world.service.register(request("wrong"))))
        await asyncio.sleep(0.5)
        world.judge()
        world.store.failing.add("withdraw")

    (left,) = world.store.registrations.values()
    assert left.state is RegistrationState.REFUSED


async def expect(error: type[Exception], doing: Awaitable[object]) -> None:
    with pytest.raises(error):
        await doing


async def test_a_mailbox_belongs_to_the_login_user_whatever_address_the_app_sends() -> None:
    world = ApiWorld()
    ben = await registered(world, mailbox="ben@example.com")

    async with judging(world):
        ann = await world.service.register(request(user="ann", mailbox="ben@example.com"))

    assert ann.view.mailbox.user == "ann"
    assert ann.view.mailbox.id != ben.view.mailbox.id


async def test_a_second_registration_joins_the_mailbox_but_its_own_credential_must_be_accepted() -> None:
    world = ApiWorld()
    first = await registered(world)

    second = await registered(world, SILENT, "  ann@EXAMPLE.com ")

    assert second.view.mailbox.id == first.view.mailbox.id
    assert second.view.registration.state is RegistrationState.VERIFYING
    with pytest.raises(CredentialRefused):
        await registered(world, "wrong")
    assert (await world.service.view(access(first))).registration.state is RegistrationState.ACTIVE
    assert world.open(first.view.registration.id) == ("ann@example.com", GOOD)


async def test_a_race_for_a_new_mailbox_ends_on_the_one_that_was_first() -> None:
    world = ApiWorld()
    world.store.rivals = 1

    made = await registered(world)

    assert made.view.mailbox.id == "rival-0"
    assert made.view.registration.state is RegistrationState.ACTIVE


async def test_a_race_without_end_is_given_up() -> None:
    world = ApiWorld()
    world.store.rivals = 99

    with pytest.raises(StoreUnavailable):
        await world.service.register(request())


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda w: replace(w, server="nowhere"), UnknownServer),
        (lambda w: replace(w, mailbox="ann@elsewhere.example"), UnknownServer),
        (lambda w: replace(w, device=replace(w.device, app="com.example.other")), UnknownApp),
        (lambda w: replace(w, device=replace(w.device, app=FCM_APP)), UnknownApp),
        (lambda w: replace(w, device=replace(w.device, token="not hex")), UnsupportedDevice),
        (
            lambda w: replace(w, device=Device(Platform.FCM, FCM_APP, FCM_TOKEN, Environment.SANDBOX)),
            UnsupportedDevice,
        ),
        (lambda w: replace(w, mailbox="a:b"), InvalidRequest),
        (lambda w: replace(w, login=BasicLogin(GOOD, "a\0b")), InvalidRequest),
        (lambda w: replace(w, login=BasicLogin("a\nb")), InvalidRequest),
    ],
)
async def test_an_invalid_request_is_refused_before_anything_is_stored(
    change: Callable[[RegistrationRequest], RegistrationRequest], error: type[Exception]
) -> None:
    world = ApiWorld()

    with pytest.raises(error):
        await world.service.register(change(request()))

    assert not world.store.registrations


async def test_a_registration_opens_with_its_secret_only() -> None:
    world = ApiWorld()
    ann, ben = await registered(world), await registered(world, mailbox="ben@example.com")

    assert (await world.service.view(access(ann))).registration.id == ann.view.registration.id
    for wrong in (Access(ann.view.registration.id, ben.secret), Access(ann.view.registration.id, "")):
        with pytest.raises(NotAuthorized) as known:
            await world.service.view(wrong)
    with pytest.raises(NotAuthorized) as unknown:
        await world.service.view(replace(access(ann), registration_id=RegistrationId("nobody")))
    assert str(known.value) == str(unknown.value)


async def test_every_use_case_wants_the_secret() -> None:
    world = ApiWorld()
    made = await registered(world)
    wrong = replace(access(made), secret="wrong")
    service = world.service

    for use in (service.view(wrong), service.change(wrong, RegistrationChange()), service.remove(wrong)):
        with pytest.raises(NotAuthorized):
            await use
    with pytest.raises(NotAuthorized):
        await service.test_push(wrong)
    assert made.view.registration.id in world.store.registrations
    assert not world.store.marks


async def test_a_change_is_kept_without_asking_the_server() -> None:
    world = ApiWorld()
    made = await registered(world)
    world.time.forward(hours=1)
    asked = RegistrationChange(
        device_token="ab" * 32,
        environment=Environment.SANDBOX,
        classes=frozenset({CollectionClass.CALENDAR}),
        mode=Mode.BACKGROUND,
        locale="de",
    )

    own = (await world.service.change(access(made), asked)).registration

    assert (own.device_token, own.environment, own.mode, own.locale) == ("ab" * 32, "sandbox", "background", "de")
    assert own.classes == {CollectionClass.CALENDAR}
    assert own.token_since == world.time()
    assert not world.store.candidates


async def test_a_new_credential_replaces_the_old_one_once_it_is_accepted() -> None:
    world = ApiWorld()
    made = await registered(world, SILENT)
    world.store.accept(made.view.registration.id, world.time())
    assert world.open(made.view.registration.id)[1] == SILENT

    async with judging(world):
        view = await world.service.change(access(made), RegistrationChange(), BasicLogin(GOOD, "ann@EXAMPLE.com"))

    assert not view.candidate_pending
    assert world.open(made.view.registration.id) == ("ann@example.com", GOOD)


async def test_a_refused_new_credential_changes_nothing_and_leaves_the_old_one_in_use() -> None:
    world = ApiWorld()
    made = await registered(world)
    rest = RegistrationChange("ab" * 32, Environment.SANDBOX, mode=Mode.BACKGROUND, locale="fr")

    async with judging(world):
        with pytest.raises(CredentialRefused, match="nothing was changed"):
            await world.service.change(access(made), rest, BasicLogin("wrong"))

    view = await world.service.view(access(made))
    assert view.candidate_refused
    proof = view.registration.credential_proof
    assert view.registration == replace(made.view.registration, credential_proof=proof)
    assert world.open(made.view.registration.id) == ("ann@example.com", GOOD)


async def test_an_accepted_new_credential_brings_the_rest_of_its_change_with_it() -> None:
    world = ApiWorld()
    made = await registered(world)

    async with judging(world):
        view = await world.service.change(access(made), RegistrationChange(locale="fr"), BasicLogin(GOOD))

    assert (view.registration.locale, view.candidate_pending) == ("fr", False)


async def test_the_rest_of_a_change_does_not_wait_for_a_server_that_is_silent() -> None:
    world = ApiWorld()
    made = await registered(world)

    view = await world.service.change(access(made), RegistrationChange(locale="fr"), BasicLogin(SILENT))

    assert (view.registration.locale, view.candidate_pending) == ("fr", True)


async def test_a_registration_that_is_removed_while_its_credential_is_tried_changes_no_more() -> None:
    world = ApiWorld()
    made = await registered(world)
    world.store.goes_at_change = True

    async with judging(world):
        with pytest.raises(Replaced):
            await world.service.change(access(made), RegistrationChange(locale="fr"), BasicLogin(GOOD))


async def test_a_new_credential_that_the_server_does_not_judge_stays_pending() -> None:
    world = ApiWorld()
    made = await registered(world)
    before = time()

    view = await world.service.change(access(made), RegistrationChange(), BasicLogin(SILENT))

    assert view.candidate_pending
    assert time() - before == pytest.approx(6.0)


async def test_a_credential_of_another_user_is_refused() -> None:
    world = ApiWorld()
    made = await registered(world)

    with pytest.raises(OtherMailbox):
        await world.service.change(access(made), RegistrationChange(), BasicLogin(GOOD, "ben@example.com"))

    assert not world.store.candidates


async def test_a_changed_device_token_must_look_like_one() -> None:
    world = ApiWorld()
    made = await registered(world)

    with pytest.raises(UnsupportedDevice):
        await world.service.change(access(made), RegistrationChange(device_token="not hex"))


async def test_a_registration_removed_while_its_new_credential_waits_is_reported() -> None:
    world = ApiWorld()
    made = await registered(world)

    async with asyncio.TaskGroup() as tasks:
        changing = world.service.change(access(made), RegistrationChange(), BasicLogin(SILENT))
        tasks.create_task(expect(Replaced, changing))
        await asyncio.sleep(2)
        await world.service.remove(access(made))


async def test_removal_leaves_nothing() -> None:
    world = ApiWorld()
    made = await registered(world)

    await world.service.remove(access(made))

    assert not world.store.registrations
    with pytest.raises(Gone, match="removed"):
        await world.service.view(access(made))


async def test_a_test_push_marks_an_active_registration_only() -> None:
    world = ApiWorld()
    made, silent = await registered(world), await registered(world, SILENT, "ben@example.com")

    _, test = await world.service.test_push(access(made))
    assert await world.service.push_test(access(made), test.id) == test
    with pytest.raises(NoSuchTest):
        await world.service.push_test(access(silent), test.id)
    with pytest.raises(NotActive):
        await world.service.test_push(access(silent))

    assert world.store.marks == [(made.view.registration.id, Mark.TEST)]


async def test_the_third_wrong_password_within_a_window_is_never_taken() -> None:
    world = ApiWorld()
    for password in ("wrong-1", "wrong-2"):
        world.time.forward(minutes=1)
        with pytest.raises(CredentialRefused):
            await registered(world, password)
    world.store.forget_unused()
    assert not world.store.mailboxes  # the watch role forgot it, and not the tries

    world.time.forward(minutes=2)
    with pytest.raises(TooManyRefusals) as refusal:
        await registered(world, "wrong-3", "ANN@example.com")

    assert refusal.value.retry_after == 28 * 60
    assert world.judged == ["wrong-1", "wrong-2"]
    world.time.forward(minutes=28)
    assert (await registered(world)).view.registration.state is RegistrationState.ACTIVE


async def test_wrong_passwords_of_strangers_do_not_keep_a_user_from_a_new_one() -> None:
    world = ApiWorld()
    made = await registered(world)
    for password in ("wrong-1", "wrong-2"):
        with pytest.raises(CredentialRefused):
            await registered(world, password)
    with pytest.raises(TooManyRefusals):
        await registered(world, "wrong-3")

    async with judging(world):
        view = await world.service.change(access(made), RegistrationChange(), BasicLogin(GOOD))

    assert (view.registration.state, view.candidate_refused) == (RegistrationState.ACTIVE, False)


async def test_a_user_has_three_tries_too() -> None:
    world = ApiWorld()
    made = await registered(world)
    for password in ("wrong-1", "wrong-2", "wrong-3"):
        async with judging(world):
            with pytest.raises(CredentialRefused):
                await world.service.change(access(made), RegistrationChange(), BasicLogin(password))

    with pytest.raises(TooManyRefusals) as refusal:
        await world.service.change(access(made), RegistrationChange(), BasicLogin(GOOD))

    assert refusal.value.retry_after == 30 * 60


async def test_many_tries_at_the_same_moment_reach_the_server_twice_at_most() -> None:
    world = ApiWorld()
    refused: list[type[Exception]] = []

    async def attempt(number: int) -> None:
        device = Device(Platform.APNS, APNS_APP, f"{number:064x}")
        try:
            await world.service.register(replace(request(f"wrong-{number}"), device=device))
        except (CredentialRefused, TooManyRefusals) as error:
            refused.append(type(error))

    async with judging(world, seconds=0.5), asyncio.TaskGroup() as tasks:
        for number in range(20):
            tasks.create_task(attempt(number))

    assert len(world.judged) == 2
    assert refused.count(TooManyRefusals) == 18


async def test_who_is_registered_cannot_be_told_from_how_many_tries_are_left() -> None:
    world = ApiWorld()
    await registered(world, GOOD, "ann@example.com")
    await registered(world, SILENT, "ben@example.com")
    world.store.candidates.clear()  # Ben's was dropped: nobody could check it in time
    answers: dict[str, list[tuple[str, int]]] = {}
    for user in ("ann@example.com", "ben@example.com", "eve@example.com"):
        for number in range(4):
            try:
                await registered(world, f"wrong-{number}", user)
            except CredentialRefused:
                answers.setdefault(user, []).append(("refused", 0))
            except TooManyRefusals as error:
                answers.setdefault(user, []).append(("too many", error.retry_after))

    first, *others = answers.values()
    assert first == [("refused", 0)] * 2 + [("too many", 30 * 60)] * 2
    assert others == [first] * 2


async def test_candidates_that_wait_for_a_server_that_is_away_count_too() -> None:
    world = ApiWorld()
    for user in ("ann", "EXAMPLE\\ann"):
        await world.service.register(request(SILENT, user))

    with pytest.raises(TooManyRefusals) as refusal:
        await registered(world, SILENT, "ANN@example.com")
    assert refusal.value.retry_after == 10


async def test_the_wait_for_a_verdict_outlives_a_lost_database() -> None:
    world = ApiWorld()

    async with asyncio.TaskGroup() as tasks:
        register = tasks.create_task(world.service.register(request()))
        await asyncio.sleep(0.5)
        world.store.down = True
        await asyncio.sleep(2)
        world.store.down = False
        world.judge()

    assert register.result().view.registration.state is RegistrationState.ACTIVE


async def test_a_database_that_stays_away_is_reported() -> None:
    world = ApiWorld()
    world.store.down = True

    with pytest.raises(StoreUnavailable):
        await world.service.register(request())


async def test_a_database_lost_right_after_the_registration_is_reported_after_the_wait() -> None:
    world = ApiWorld()
    world.store.falls_after_create = True
    before = time()

    with pytest.raises(StoreUnavailable):
        await world.service.register(request())
    assert time() - before == pytest.approx(6.0)


async def test_a_wiped_mailbox_is_shown_as_it_is() -> None:
    world = ApiWorld()
    made = await registered(world)
    world.store.mailboxes[made.view.mailbox.id] = replace(made.view.mailbox, state=WatchState.WIPED)

    assert (await world.service.view(access(made))).mailbox.state is WatchState.WIPED


async def wiped(world: ApiWorld) -> Registered:
    """Return a registration whose mailbox an administrator has just wiped."""
    made = await registered(world)
    gone = replace(made.view.registration, state=RegistrationState.WIPED)
    world.store.registrations[gone.id] = gone
    return made


def uses(world: ApiWorld, made: Registered) -> list[Coroutine[Any, Any, object]]:
    """Return every use of a registration by its app."""
    mine, service = access(made), world.service
    return [
        service.view(mine),
        service.change(mine, RegistrationChange(device_token=APNS_TOKEN), BasicLogin(GOOD)),
        service.test_push(mine),
        service.remove(mine),
    ]


async def test_every_use_of_a_wiped_registration_says_so_before_and_after_its_end() -> None:
    world = ApiWorld()
    made = await wiped(world)

    for use in uses(world, made):
        with pytest.raises(Wiped):
            await use
    assert made.view.registration.id not in world.store.candidates
    assert await world.store.sweep(world.time()) == {Ending.WIPED: 1}
    for use in uses(world, made):
        with pytest.raises(Wiped):
            await use


async def test_an_app_that_shows_its_secret_is_noted_once_a_day() -> None:
    world = ApiWorld()
    made = await registered(world)
    id_ = made.view.registration.id

    await world.service.view(access(made))
    assert world.store.seen == {}
    world.time.forward(days=1)
    await world.service.view(access(made))
    first = world.time()
    assert world.store.seen == {id_: first}
    world.time.forward(hours=23)
    await world.service.view(access(made))
    assert world.store.seen == {id_: first}
    world.time.forward(hours=1)
    world.store.failing.add("saw")
    assert (await world.service.view(access(made))).registration.id == id_


async def test_a_registration_is_removed_once_and_stays_removed() -> None:
    world = ApiWorld()
    made = await registered(world)
    await world.service.remove(access(made))

    await world.service.remove(access(made))

    *others, remove = uses(world, made)
    for use in others:
        with pytest.raises(Gone, match="removed"):
            await use
    await remove


async def test_only_the_secret_of_a_registration_that_ended_tells_how() -> None:
    world = ApiWorld()
    made = await registered(world)
    await world.service.remove(access(made))

    for guess in (Access(made.view.registration.id, "guess"), Access(RegistrationId("none"), made.secret)):
        for use in (world.service.view(guess), world.service.remove(guess)):
            with pytest.raises(NotAuthorized):
                await use


async def test_a_wipe_while_a_new_registration_waits_ends_it_and_says_so() -> None:
    world = ApiWorld()
    register = asyncio.ensure_future(world.service.register(request(SILENT)))
    await asyncio.sleep(1)
    (id_,) = world.store.registrations
    world.store.wipe(id_)

    with pytest.raises(MailboxWiped):
        await register
    assert world.store.registrations == {}
    assert world.store.tombstones == {}  # nobody was given its secret


async def test_a_wipe_while_a_new_credential_waits_says_so() -> None:
    world = ApiWorld()
    made = await registered(world)
    change = asyncio.ensure_future(world.service.change(access(made), RegistrationChange(), BasicLogin(SILENT)))
    await asyncio.sleep(1)
    world.store.wipe(made.view.registration.id)

    with pytest.raises(Wiped):
        await change


async def test_the_seal_opens_for_its_own_mailbox_only() -> None:
    world = ApiWorld()
    made = await registered(world, SILENT)
    sealed = world.store.candidates[made.view.registration.id]

    assert world.key.open(made.view.mailbox, sealed) == BasicCredential("ann@example.com", SILENT)


async def test_a_device_that_registers_again_has_one_registration() -> None:
    world = ApiWorld()
    first = await registered(world)

    second = await registered(world)

    assert list(world.store.registrations) == [second.view.registration.id]
    with pytest.raises(NotAuthorized):
        await world.service.view(access(first))


async def test_a_request_that_is_repeated_while_it_waits_gives_way_to_the_later_one() -> None:
    world = ApiWorld()
    loop = asyncio.get_running_loop()
    earlier = loop.create_task(world.service.register(request()))
    await asyncio.sleep(0.1)

    later = await registered(world)

    with pytest.raises(Replaced):
        await earlier
    assert list(world.store.registrations) == [later.view.registration.id]


async def test_a_subscription_is_taken_at_a_listed_push_service_only_and_changes_as_a_whole() -> None:
    world = ApiWorld()
    listed, stranger = (subscribed(f"https://{host}/canary") for host in (SERVICE, "10.0.0.1"))

    async with judging(world):
        with pytest.raises(UnsupportedDevice):
            await world.service.register(replace(request(), device=Device(Platform.WEBPUSH, WEB_APP, stranger)))
        made = await world.service.register(replace(request(), device=Device(Platform.WEBPUSH, WEB_APP, listed)))
        changed = subscribed(f"https://{SERVICE}/other")
        await world.service.change(access(made), RegistrationChange(device_token=changed))
        for wrong in (stranger, APNS_TOKEN):
            with pytest.raises(UnsupportedDevice) as refusal:
                await world.service.change(access(made), RegistrationChange(device_token=wrong))
            assert "canary" not in str(refusal.value)

    assert world.store.registrations[made.view.registration.id].device_token == changed
    assert "canary" not in repr(made)


async def test_without_an_invitation_nobody_registers_where_one_is_demanded() -> None:
    world = ApiWorld(invites=True)

    with pytest.raises(InvalidRequest, match="invitation: is missing"):
        await world.service.register(request())
    with pytest.raises(InvalidRequest, match="invitation: is no invitation"):
        await world.service.register(replace(request(), invitation="made up"))

    assert (world.store.registrations, world.judged) == ({}, [])


async def test_an_invitation_is_for_its_own_user_and_server() -> None:
    world = ApiWorld(invites=True)
    until = world.time.now + timedelta(days=1)

    for server, user in (("head-office", "ben@example.com"), ("branch", "ann@example.com")):
        other = invite(world.inviting, server, user, until)
        with pytest.raises(InvalidRequest, match="another user or server"):
            await world.service.register(replace(request(), invitation=other))
    late = invite(world.inviting, "head-office", "ann@example.com", world.time.now)
    with pytest.raises(InvalidRequest, match="has expired"):
        await world.service.register(replace(request(), invitation=late))


async def test_an_invited_user_registers_and_needs_no_invitation_for_a_new_password() -> None:
    world = ApiWorld(invites=True)
    invitation = invite(world.inviting, "head-office", "ann@example.com", world.time.now + timedelta(days=1))
    async with judging(world):
        made = await world.service.register(replace(request(), invitation=invitation))
        changed = await world.service.change(access(made), RegistrationChange(), BasicLogin(GOOD))

    assert changed.registration.state is RegistrationState.ACTIVE


async def test_a_device_is_proved_by_the_nonce_of_its_challenge() -> None:
    world = ApiWorld(proving=frozenset({Platform.APNS}))
    made = await registered(world)
    id_ = made.view.registration.id
    assert made.view.registration.state is RegistrationState.PROVING
    world.store.nonces[id_] = "nonce"

    with pytest.raises(NotActive):
        await world.service.test_push(access(made))
    with pytest.raises(WrongProof):
        await world.service.prove(access(made), "guess")
    world.store.nonces[id_] = "nonce"
    view = await world.service.prove(access(made), "nonce")

    assert view.registration.state is RegistrationState.ACTIVE
    again = await world.service.prove(access(made), "nonce")
    assert again == view, "the answer to the first proof may have been lost"
    assert await world.service.challenge(access(made)) == view
    with pytest.raises(NotAuthorized):
        await world.service.prove(Access(id_, "guess"), "nonce")


async def test_another_challenge_may_be_asked_for_once_in_a_while() -> None:
    world = ApiWorld(proving=frozenset({Platform.APNS}))
    made = await registered(world)

    await world.service.challenge(access(made))
    with pytest.raises(TooManyChallenges) as refused:
        await world.service.challenge(access(made))
    world.time.forward(seconds=30)
    await world.service.challenge(access(made))

    assert refused.value.retry_after == 30
    assert world.store.marks == [(made.view.registration.id, Mark.CHALLENGE)] * 2


async def test_without_an_accepted_credential_there_is_no_challenge() -> None:
    world = ApiWorld(proving=frozenset({Platform.APNS}))
    made = await registered(world, SILENT)

    with pytest.raises(NotActive):
        await world.service.challenge(access(made))
    with pytest.raises(NotActive):
        await world.service.prove(access(made), "nonce")
    assert world.store.marks == []


async def test_a_new_token_is_to_be_proved_again_where_proofs_are_asked_for() -> None:
    for proving, state in ((frozenset({Platform.APNS}), RegistrationState.PROVING), (frozenset(), None)):
        world = ApiWorld(proving=frozenset(proving))
        made = await registered(world)
        if state is not None:
            world.store.nonces[made.view.registration.id] = "nonce"
            await world.service.prove(access(made), "nonce")

        view = await world.service.change(access(made), RegistrationChange(device_token="cd" * 32))

        assert view.registration.state is (state or RegistrationState.ACTIVE)


async def test_a_registration_that_proves_is_active_at_once_when_proofs_are_switched_off() -> None:
    world = ApiWorld(proving=frozenset({Platform.APNS}))
    made = await registered(world)
    world.service.rules = replace(world.service.rules, proving=frozenset())

    view = await world.service.challenge(access(made))

    assert view.registration.state is RegistrationState.ACTIVE
    assert world.store.marks == []


def signed_in(code: str = GOOD, redirect: str = REDIRECT, verifier: str = "v" * 43) -> RegistrationRequest:
    login = OAuthCodeLogin(code.replace(" ", "-"), verifier, redirect)
    return replace(request(mailbox="ann@branch.example.com"), login=login)


async def test_a_code_registers_where_the_settings_let_an_app_get_it() -> None:
    world = ApiWorld()
    async with judging(world):
        with pytest.raises(InvalidRequest) as refused:
            await world.service.register(signed_in(redirect="com.example.other:/signed-in"))
        assert [field for field, _ in refused.value.faults] == ["credential.redirect_uri"]
        with pytest.raises(InvalidRequest) as refused:
            await world.service.register(signed_in(verifier="v" * 42 + "+"))
        assert [field for field, _ in refused.value.faults] == ["credential.code"]
    assert world.store.registrations == {}


async def test_a_refused_code_says_to_sign_in_again_and_not_that_a_password_is_wrong() -> None:
    world = ApiWorld()
    async with judging(world):
        with pytest.raises(CredentialRefused, match=r"no registration was made: let the user sign in again") as refused:
            await world.service.register(signed_in("refused"))
    assert "password" not in str(refused.value)
    assert world.judged == ["refused"]
