"""Test that a registration is active once its app has shown that it is on the device, and gets nothing before."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from eas_watcher.machine.memory import Condition, Progress, WatchState
from eas_watcher.reasons import Reason
from relay.domain.challenge import LASTS, MOST, WINDOW, hash_nonce
from relay.domain.model import (
    DuePush,
    Ending,
    Environment,
    Mark,
    Registration,
    RegistrationChange,
    RegistrationState,
)
from relay.domain.outcome import Delivered, Refused, TokenGone
from relay.domain.ports.wakeups import Topic
from relay.store.challenges import SqlChallengeStore
from relay.store.engine import Database
from relay.store.tables import challenged
from relay.store.wakeups import LocalWakeups
from tests.contract.outbox_sites import SqlSite
from tests.contract.samples import NOW, candidate_of, leases, register
from tests.transactions import transaction

SECOND = timedelta(seconds=1)
TOKEN = "token"
NONCE = "o0Z3kqXb1vT9sWm2cYgRPA"
BAD = Refused("BadDeviceToken", "compare the environment")


class Site(SqlSite):
    """A site whose registrations must prove their devices."""

    def __init__(self, engine: Database) -> None:
        super().__init__(engine, LocalWakeups())
        self.challenges = SqlChallengeStore(engine)

    async def accepted(self, name: str = "ann", token: str = TOKEN) -> Registration:
        """Register a phone and accept its credential."""
        made = await register(self.registrations, name, must_prove=True, device_token=token)
        await self.watches.accept(candidate_of(made), NOW)
        return made

    async def sent(self, nonce: str = NONCE, at: int = 0) -> DuePush:
        """Claim a challenge and send it with a nonce."""
        (push,) = await self.claim(NOW + at * SECOND)
        assert push.mark is Mark.CHALLENGE
        assert await self.challenges.issue(push, hash_nonce(nonce), NOW + at * SECOND) is None
        await self.settle([push], Delivered(), NOW + at * SECOND)
        return push

    async def proves(self, registration: Registration, nonce: str = NONCE, at: int = 1) -> bool:
        return await self.registrations.prove(registration.id, nonce, NOW + at * SECOND)

    async def state(self, registration: Registration) -> RegistrationState:
        return (await self.registered(registration)).state


@pytest.fixture
def here(engine: Database) -> Site:
    return Site(engine)


async def test_an_accepted_registration_gets_a_challenge_and_nothing_else_until_its_nonce_is_returned(
    here: Site,
) -> None:
    waiter = here.wakeups.waiter(Topic.OUTBOX_APNS)
    ann = await here.accepted()
    assert waiter.woken
    assert await here.state(ann) is RegistrationState.PROVING
    await here.change()
    await here.registrations.mark(ann.id, Mark.TEST, NOW)

    await here.sent()

    assert await here.claim() == []
    (record,) = await here.watches.take_dirty(await leases(here.watches, range(256)), NOW)
    assert record.memory.classes == frozenset(), "its classes are not watched"
    assert await here.proves(ann)
    assert await here.state(ann) is RegistrationState.ACTIVE
    (record,) = await here.watches.take_dirty(await leases(here.watches, range(256)), NOW)
    assert record.memory.classes == ann.classes
    assert (await here.registered(ann)).must_prove is False


async def test_nobody_registers_the_phone_of_somebody_else(here: Site) -> None:
    ann = await here.accepted("ann", token="the token of ann's phone")
    await here.sent()
    assert await here.proves(ann)
    ben = await here.accepted("ben", token="the token of ann's phone")
    await here.sent("ann-s-phone-alone-sees", at=1)

    for guess in (NONCE, "", "guessed", hash_nonce("ann-s-phone-alone-sees").hex()):
        assert not await here.proves(ben, guess)

    await here.change("ben")
    assert await here.claim() == []
    assert await here.state(ben) is RegistrationState.PROVING
    assert await here.state(ann) is RegistrationState.ACTIVE


async def test_a_challenge_on_its_way_to_one_device_proves_no_other(here: Site) -> None:
    ben = await here.accepted("ben", token="the token of ben's phone")
    (push,) = await here.claim()
    stolen = RegistrationChange(device_token="the token of ann's phone", proves=True)
    await here.registrations.change(ben.id, stolen, NOW)

    assert await here.challenges.issue(push, hash_nonce(NONCE), NOW) is not None
    assert not await here.proves(ben)

    await here.settle([push], Delivered(), NOW)
    (again,) = await here.claim(NOW + SECOND)
    assert (again.mark, again.device_token) == (Mark.CHALLENGE, "the token of ann's phone")


async def test_a_nonce_is_good_once_and_in_time_and_the_newest_counts(here: Site) -> None:
    ann = await here.accepted()
    await here.sent("older-nonce")
    await here.registrations.mark(ann.id, Mark.CHALLENGE, NOW + SECOND)
    await here.sent(at=1)

    assert not await here.proves(ann, "older-nonce")
    assert not await here.proves(ann, at=int(LASTS.total_seconds()) + 2)
    assert await here.proves(ann)
    assert not await here.proves(ann)


async def test_a_proof_drops_a_challenge_that_waits(here: Site) -> None:
    ann = await here.accepted()
    await here.sent()
    await here.registrations.mark(ann.id, Mark.CHALLENGE, NOW)

    assert await here.proves(ann)

    assert await here.marks() == {}


async def test_a_new_token_must_be_proved_and_the_same_one_not(here: Site) -> None:
    ann = await here.accepted()
    await here.sent()
    await here.proves(ann)

    await here.registrations.change(ann.id, RegistrationChange(device_token=TOKEN, proves=True), NOW)
    assert await here.state(ann) is RegistrationState.ACTIVE
    await here.registrations.change(ann.id, RegistrationChange(device_token="another", proves=True), NOW)
    assert await here.state(ann) is RegistrationState.PROVING
    assert not await here.proves(ann), "the nonce of the token before"
    await here.sent("fresh-nonce", at=1)
    assert await here.proves(ann, "fresh-nonce")
    await here.registrations.change(ann.id, RegistrationChange(device_token="third"), NOW)
    assert await here.state(ann) is RegistrationState.ACTIVE, "where no proof is asked for"


async def test_a_challenge_holds_no_test_push_back_and_a_test_push_no_challenge(here: Site) -> None:
    ann = await here.accepted()
    await here.sent()
    pause = 30 * SECOND
    assert await here.registrations.may_test(ann.id, NOW, pause), "the app asks for another challenge"

    assert await here.proves(ann)

    assert await here.registrations.may_test(ann.id, NOW + 2 * SECOND, pause), "the app asks for a test push"
    same = RegistrationChange(device_token=TOKEN, proves=True)
    await here.registrations.change(ann.id, same, NOW + 3 * SECOND)
    assert not await here.registrations.may_test(ann.id, NOW + 3 * SECOND, pause)
    other = RegistrationChange(device_token="other", proves=True)
    await here.registrations.change(ann.id, other, NOW + 4 * SECOND)
    assert await here.registrations.may_test(ann.id, NOW + 4 * SECOND, pause), "the app asks for a challenge"
    await here.registrations.change(ann.id, other, NOW + 5 * SECOND)
    assert not await here.registrations.may_test(ann.id, NOW + 5 * SECOND, pause), "its token is the same as before"


async def test_a_refused_challenge_is_a_quarantine_and_another_environment_gets_another(here: Site) -> None:
    ann = await here.accepted()
    await here.settle(await here.claim(), BAD)

    quarantine = (await here.registered(ann)).quarantine
    assert quarantine is not None
    assert quarantine.reason == "BadDeviceToken"
    assert await here.marks() == {}, "the app asks for another one"

    await here.registrations.change(ann.id, RegistrationChange(environment=Environment.SANDBOX), NOW)
    (push,) = await here.claim()
    assert (push.mark, push.environment) == (Mark.CHALLENGE, Environment.SANDBOX)


async def test_a_challenge_is_sent_in_quarantine_when_the_app_asks(here: Site) -> None:
    ann = await here.accepted()
    await here.settle(await here.claim(), BAD)
    await here.registrations.mark(ann.id, Mark.CHALLENGE, NOW + SECOND)

    await here.sent(at=1)

    assert (await here.registered(ann)).quarantine is None
    assert await here.proves(ann)


async def test_a_token_that_is_gone_during_the_challenge_must_be_replaced_and_proved(here: Site) -> None:
    ann = await here.accepted()
    await here.settle(await here.claim(), TokenGone("Unregistered"))
    assert await here.state(ann) is RegistrationState.TOKEN_GONE

    await here.registrations.change(ann.id, RegistrationChange(device_token=TOKEN, proves=True), NOW)
    assert await here.state(ann) is RegistrationState.PROVING
    await here.sent()
    assert await here.proves(ann)


async def test_a_challenge_whose_process_died_is_sent_again_with_another_nonce(here: Site) -> None:
    ann = await here.accepted()
    (push,) = await here.claim()
    await here.challenges.issue(push, hash_nonce("of-the-dead-process"), NOW)
    await here.outbox.release("push-1")

    await here.sent()

    assert not await here.proves(ann, "of-the-dead-process")
    assert await here.proves(ann)


async def test_a_device_gets_few_challenges_whoever_registers_it(here: Site) -> None:
    for number in range(MOST):
        await here.accepted(f"user-{number}", token="one phone")
        await here.sent(f"nonce-{number}")
    await here.accepted("one-more", token="one phone")
    (push,) = await here.claim()

    assert await here.challenges.issue(push, hash_nonce(NONCE), NOW) == WINDOW.total_seconds()

    await here.accepted("other", token="another phone")
    (other,) = await here.claim()
    assert await here.challenges.issue(other, hash_nonce(NONCE), NOW) is None
    await here.challenges.sweep(NOW + WINDOW + SECOND)
    async with transaction(here.engine) as connection:
        assert await connection.scalar(sa.select(sa.func.count()).select_from(challenged)) == 0


async def test_a_phone_that_proves_nothing_is_forgotten_after_a_day_and_one_with_a_new_token_is_not(
    here: Site,
) -> None:
    ann, ben = await here.accepted("ann", token="one"), await here.accepted("ben", token="two")
    await here.registrations.change(ben.id, RegistrationChange(device_token="third", proves=True), NOW + SECOND)

    assert await here.registrations.sweep(NOW + timedelta(days=1, hours=1)) == {Ending.EXPIRED: 1}

    assert await here.registrations.view(ann.id) is None
    assert await here.state(ben) is RegistrationState.PROVING


async def test_a_wipe_is_told_to_no_phone_that_has_proved_nothing(here: Site) -> None:
    ann = await here.accepted()
    await here.sent()
    await here.proves(ann)
    await here.commit(Progress(attention=True))
    await here.registrations.change(ann.id, RegistrationChange(device_token="of somebody else", proves=True), NOW)

    await here.commit(Progress(condition=Condition(WatchState.WIPED, Reason.REMOTE_WIPE)))

    assert await here.claim(NOW + SECOND) == []


async def test_another_credential_leaves_a_proof_to_be_given(here: Site) -> None:
    ann = await here.accepted()
    await here.registrations.change(ann.id, RegistrationChange(sealed_candidate=b"newer"), NOW)
    await here.watches.accept(candidate_of(ann, b"newer"), NOW, replaces=True)

    assert await here.state(ann) is RegistrationState.PROVING


async def test_a_registration_from_before_the_upgrade_is_proved(here: Site) -> None:
    assert (await here.activate()).must_prove is False


async def test_a_registration_supersedes_its_twin_once_its_device_is_proved_and_not_before(here: Site) -> None:
    first = await here.accepted()
    await here.sent()
    assert await here.proves(first)
    again = await register(here.registrations, "ann", "again", must_prove=True, device_token=TOKEN)
    await here.watches.accept(candidate_of(again), NOW)
    assert await here.state(first) is RegistrationState.ACTIVE

    await here.sent(NONCE[::-1], at=2)
    assert await here.proves(again, NONCE[::-1], at=3)

    assert await here.state(again) is RegistrationState.ACTIVE
    assert await here.registrations.view(first.id) is None


async def test_a_token_of_another_registration_is_taken_over_once_it_is_proved_and_not_before(here: Site) -> None:
    first = await here.accepted()
    await here.sent()
    assert await here.proves(first)
    moved = await register(here.registrations, "ann", "moved", device_token="another")
    await here.watches.accept(candidate_of(moved), NOW)

    await here.registrations.change(moved.id, RegistrationChange(device_token=TOKEN, proves=True), NOW)
    assert await here.state(first) is RegistrationState.ACTIVE
    await here.sent(NONCE[::-1], at=2)
    assert await here.proves(moved, NONCE[::-1], at=3)

    assert await here.registrations.view(first.id) is None


async def test_a_mailbox_causes_few_challenges_whatever_device_tokens_it_names(here: Site) -> None:
    ben = await here.accepted("ben")
    for number in range(30):
        await here.sent(at=number)
        spelled = RegistrationChange(device_token=f"{TOKEN}?{number}", proves=True)
        await here.registrations.change(ben.id, spelled, NOW + number * SECOND)

    (push,) = await here.claim(NOW + 30 * SECOND)

    assert await here.challenges.issue(push, hash_nonce(NONCE), NOW + 30 * SECOND) is not None
    ann = await here.accepted("ann", token="the token of ann's phone")
    (other,) = [each for each in await here.claim() if each.registration_id == ann.id]
    assert await here.challenges.issue(other, hash_nonce(NONCE), NOW) is None
    assert await here.challenges.issue(push, hash_nonce(NONCE), NOW + 2 * WINDOW) is None


async def test_a_challenge_that_reached_no_device_does_not_count(here: Site) -> None:
    await here.accepted()
    (push,) = await here.claim()
    for _ in range(MOST + 1):
        assert await here.challenges.issue(push, hash_nonce(NONCE), NOW) is None
        await here.challenges.take_back(push)

    for _ in range(MOST):
        assert await here.challenges.issue(push, hash_nonce(NONCE), NOW) is None
    assert await here.challenges.issue(push, hash_nonce(NONCE), NOW) is not None


async def test_a_challenge_of_a_registration_that_is_gone_is_not_taken_back(here: Site) -> None:
    ann = await here.accepted()
    (push,) = await here.claim()
    assert await here.challenges.issue(push, hash_nonce(NONCE), NOW) is None
    await here.registrations.remove(ann.id, NOW)

    await here.challenges.take_back(push)

    async with transaction(here.engine) as connection:
        assert set(await connection.scalars(sa.select(challenged.c.number))) == {1}


@pytest.mark.parametrize("way", ["proved", "changed"])
async def test_a_twin_that_ends_leaves_a_tombstone_so_that_a_late_request_does_not_bring_it_back(
    here: Site, way: str
) -> None:
    twin = await here.accepted()
    await here.sent()
    assert await here.proves(twin)
    again = await register(here.registrations, device="again", must_prove=way == "proved", device_token="other")
    await here.watches.accept(candidate_of(again), NOW)

    await here.registrations.change(again.id, RegistrationChange(device_token=TOKEN, proves=way == "proved"), NOW)
    if way == "proved":
        await here.sent("second-nonce", at=1)
        assert await here.proves(again, "second-nonce", at=2)

    assert await here.registrations.view(twin.id) is None
    tombstone = await here.registrations.tombstone(twin.id)
    assert tombstone is not None
    assert (tombstone.secret_hash, tombstone.ending) == (twin.secret_hash, Ending.REPLACED)
