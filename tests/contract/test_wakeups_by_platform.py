"""Test that each transaction that sets or frees marks wakes the dispatchers of their platforms, and no others."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random

import pytest

from eas_watcher.machine.memory import Condition, Progress, WatchState
from eas_watcher.names import CollectionClass
from eas_watcher.reasons import Reason
from relay.domain.model import DuePush, Environment, Mark, Platform, Registration, RegistrationChange
from relay.domain.outcome import Delivered, RetryLater
from relay.domain.ports.outbox import Settlement
from relay.domain.ports.wakeups import Topic
from relay.push.dispatch import Dispatcher
from relay.store.engine import Database
from relay.store.outbox import SqlOutboxStore
from relay.store.registrations import SqlRegistrationStore
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import LATER, NEW_MAIL, NOW, activate, entry, marks, own_all
from tests.transactions import quiet, recorded, touching
from tests.unit.relay.push.dispatching import Provider, running
from tests.waiting import until

NEWS = Progress(changes=(NEW_MAIL,))

each_platform = pytest.mark.parametrize("platform", list(Platform))


@contextmanager
def woken(wakeups: LocalWakeups) -> Iterator[set[Platform]]:
    """Listen as every dispatcher does; after the block the set names the platforms that were woken."""
    waiters = {platform: wakeups.waiter(Topic.outbox(platform)) for platform in Platform}
    found: set[Platform] = set()
    yield found
    found.update(platform for platform, waiter in waiters.items() if waiter.woken)


async def phones(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, platforms: Sequence[Platform]
) -> list[Registration]:
    """Register one phone of each platform for the same mailbox."""
    return [await activate(registrations, watches, device=each.value, platform=each) for each in platforms]


async def claimed(outbox: SqlOutboxStore, platform: Platform) -> DuePush:
    (push,) = (await outbox.claim(platform, 10, f"push-1/{platform}", LATER, NOW)).pushes
    return push


@pytest.mark.parametrize(
    "platforms", [[each] for each in Platform] + [[Platform.APNS, Platform.FCM], list(Platform)], ids="-".join
)
async def test_a_change_wakes_the_platforms_of_the_phones_that_hear_of_it(
    registrations: SqlRegistrationStore,
    watches: SqlWatchStore,
    wakeups: LocalWakeups,
    platforms: list[Platform],
) -> None:
    await phones(registrations, watches, platforms)
    others = [each for each in Platform if each not in platforms]
    for each in others:  # same mailbox, but another class
        calendar = frozenset({CollectionClass.CALENDAR})
        await activate(registrations, watches, device=f"other-{each.value}", platform=each, classes=calendar)
    epoch = await own_all(watches)

    with woken(wakeups) as found:
        await watches.commit([entry(epoch, NEWS)], NOW)

    assert found == set(platforms)


async def test_one_commit_of_two_mailboxes_wakes_the_platforms_of_both(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, wakeups: LocalWakeups
) -> None:
    await activate(registrations, watches, "ann", platform=Platform.APNS)
    await activate(registrations, watches, "ben", platform=Platform.WEBPUSH)
    epoch = await own_all(watches)

    with woken(wakeups) as found:
        await watches.commit([entry(epoch, NEWS, "ann"), entry(epoch, NEWS, "ben")], NOW)

    assert found == {Platform.APNS, Platform.WEBPUSH}


@each_platform
async def test_attention_and_a_wipe_wake_the_platform_too(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, wakeups: LocalWakeups, platform: Platform
) -> None:
    await phones(registrations, watches, [platform])
    epoch = await own_all(watches)

    for progress in (Progress(attention=True), Progress(condition=Condition(WatchState.WIPED, Reason.REMOTE_WIPE))):
        with woken(wakeups) as found:
            await watches.commit([entry(epoch, progress)], NOW)

        assert found == {platform}


@each_platform
async def test_a_test_push_wakes_its_platform(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, wakeups: LocalWakeups, platform: Platform
) -> None:
    (phone,) = await phones(registrations, watches, [platform])

    with woken(wakeups) as found:
        await registrations.mark(phone.id, Mark.TEST, NOW)

    assert found == {platform}


@each_platform
async def test_another_token_or_environment_wakes_its_platform_and_other_changes_none(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, wakeups: LocalWakeups, platform: Platform
) -> None:
    (phone,) = await phones(registrations, watches, [platform])
    for change, expected in (
        (RegistrationChange(device_token="fresh"), {platform}),
        (RegistrationChange(environment=Environment.SANDBOX), {platform}),
        (RegistrationChange(locale="fr"), set()),
        (RegistrationChange(sealed_candidate=b"new"), set()),
    ):
        with woken(wakeups) as found:
            await registrations.change(phone.id, change, NOW)

        assert found == expected


@each_platform
async def test_a_mark_that_grew_under_way_wakes_its_platform(
    registrations: SqlRegistrationStore,
    watches: SqlWatchStore,
    outbox: SqlOutboxStore,
    wakeups: LocalWakeups,
    platform: Platform,
) -> None:
    await phones(registrations, watches, list(Platform))
    epoch = await own_all(watches)
    await watches.commit([entry(epoch, NEWS)], NOW)
    settlements = [Settlement(await claimed(outbox, each), Delivered()) for each in Platform if each is not platform]
    push = await claimed(outbox, platform)

    with woken(wakeups) as found:
        await outbox.settle([*settlements, Settlement(push, RetryLater("busy"), LATER)], NOW)
    assert found == set()

    (again,) = (await outbox.claim(platform, 10, "push-1", LATER + (LATER - NOW), LATER)).pushes
    await watches.commit([entry(epoch, NEWS)], LATER)
    with woken(wakeups) as found:
        await outbox.settle([Settlement(again, Delivered())], LATER)
    assert found == {platform}


async def test_released_claims_wake_the_platforms_of_their_marks(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore, wakeups: LocalWakeups
) -> None:
    await phones(registrations, watches, list(Platform))
    await watches.commit([entry(await own_all(watches), NEWS)], NOW)
    for platform in Platform:
        await claimed(outbox, platform)

    with woken(wakeups) as found:
        await outbox.release("push-1/fcm")
    assert found == {Platform.FCM}

    with woken(wakeups) as found:
        await outbox.release(None)
    assert found == {Platform.APNS, Platform.WEBPUSH}


@pytest.mark.parametrize("platforms", [[Platform.APNS], [Platform.APNS, Platform.FCM]], ids="-".join)
async def test_a_change_costs_a_commit_and_a_claim_and_a_settlement_for_each_platform_that_has_marks(
    registrations: SqlRegistrationStore,
    watches: SqlWatchStore,
    outbox: SqlOutboxStore,
    engine: Database,
    wakeups: LocalWakeups,
    platforms: list[Platform],
) -> None:
    providers = {platform: Provider(0.0) for platform in Platform}
    dispatchers = [Dispatcher(outbox, p, providers[p], wakeups, lambda: NOW, Random(1), "push-1") for p in Platform]
    await phones(registrations, watches, platforms)
    epoch = await own_all(watches)
    with recorded(engine) as committed:
        async with running(*dispatchers):
            await quiet(committed)
            committed.clear()

            await watches.commit([entry(epoch, NEWS)], NOW)
            await until(lambda: all(providers[platform].sent for platform in platforms))
            await quiet(committed)

            commit, *others = list(committed)
    assert any("INSERT INTO outbox" in statement for statement in commit)
    # SQLite may commit those of two dispatchers together.
    assert len(others) == len(touching(others, "outbox")) <= 2 * len(platforms)
    done = [statement for transaction in others for statement in transaction]
    assert len([each for each in done if each.startswith("UPDATE outbox SET claimed_by")]) == len(platforms)
    assert len([each for each in done if "DELETE FROM outbox" in each]) == len(platforms)
    assert {platform for platform, provider in providers.items() if provider.sent} == set(platforms)
    assert await marks(engine) == {}
