"""Test that a token its provider refuses is kept, tried ever more rarely, and healed; and which lanes are claimed."""

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from eas_watcher.machine.memory import Change, Progress
from eas_watcher.names import CollectionClass
from relay.domain.model import DuePush, Environment, Lane, Platform, Registration, RegistrationChange, RegistrationState
from relay.domain.outcome import Delivered, LastOutcome, Outcome, OutcomeKind, Refused, RetryLater, TokenGone
from relay.domain.ports.outbox import Settlement
from relay.domain.ports.wakeups import Topic
from relay.store.outbox import SqlOutboxStore
from relay.store.registrations import SqlRegistrationStore
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import NEW_MAIL, NOW, activate, entry, marks, own_all

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
BAD = Refused("BadDeviceToken", "compare the environment")
BOTH = Progress(changes=(NEW_MAIL, Change(CollectionClass.CALENDAR, 1)))


async def due(outbox: SqlOutboxStore, now: object = NOW, **lanes: object) -> list[DuePush]:
    return [*(await outbox.claim(Platform.APNS, 10, "push-1", now + MINUTE, now, **lanes)).pushes]  # type: ignore[operator,arg-type]


async def settle_all(outbox: SqlOutboxStore, pushes: list[DuePush], outcome: Outcome, now: object = NOW) -> None:
    await outbox.settle([Settlement(push, outcome) for push in pushes], now)  # type: ignore[arg-type]


async def registered(registrations: SqlRegistrationStore, registration: Registration) -> Registration:
    view = await registrations.view(registration.id)
    assert view is not None
    return view.registration


async def quarantined(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore, **changes: object
) -> Registration:
    """Register a phone whose token is refused when two classes are pushed at once."""
    registration = await activate(registrations, watches, **changes)  # type: ignore[arg-type]
    await watches.commit([entry(await own_all(watches), BOTH)], NOW)
    pushes = await due(outbox)
    assert len(pushes) == 2
    await settle_all(outbox, pushes, BAD)
    return registration


async def test_a_refused_token_is_kept_in_quarantine_for_about_an_hour(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore, engine: AsyncEngine
) -> None:
    registration = await quarantined(registrations, watches, outbox)

    now = await registered(registrations, registration)
    assert now.state is RegistrationState.ACTIVE
    assert now.last_outcome == LastOutcome(OutcomeKind.REFUSED, "BadDeviceToken")
    assert now.quarantine is not None
    assert (now.quarantine.since, now.quarantine.reason) == (NOW, "BadDeviceToken")
    assert now.quarantine.remedy == "compare the environment"
    assert 0.7 * HOUR <= now.quarantine.recheck_at - NOW <= 1.3 * HOUR
    assert len(await marks(engine)) == 2
    assert await outbox.next_due(Platform.APNS) == now.quarantine.recheck_at


async def test_new_changes_do_not_try_it_sooner_and_one_push_is_the_trial(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    registration = await quarantined(registrations, watches, outbox)
    await watches.commit([entry(await own_all(watches), BOTH)], NOW + MINUTE)
    assert await due(outbox, NOW + MINUTE) == []

    later = NOW + 1.3 * HOUR
    trial = await due(outbox, later)
    assert len(trial) == 1
    assert await due(outbox, later) == []

    await settle_all(outbox, trial, BAD, later)
    now = await registered(registrations, registration)
    assert now.quarantine is not None
    assert now.quarantine.since == NOW
    assert 2 * 0.7 * HOUR <= now.quarantine.recheck_at - later <= 2 * 1.3 * HOUR


async def test_re_checks_come_daily_in_the_end(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    registration = await quarantined(registrations, watches, outbox)
    now = NOW
    waits = []
    for _ in range(9):
        quarantine = (await registered(registrations, registration)).quarantine
        assert quarantine is not None
        waits.append(quarantine.recheck_at - now)
        now = quarantine.recheck_at
        await watches.commit([entry(await own_all(watches), BOTH)], now)
        await settle_all(outbox, await due(outbox, now), BAD, now)

    assert waits[-1] >= 0.7 * 24 * HOUR
    assert all(wait <= 1.3 * 24 * HOUR for wait in waits)


async def test_a_re_check_that_passes_heals(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore, engine: AsyncEngine
) -> None:
    registration = await quarantined(registrations, watches, outbox)
    later = NOW + 2 * HOUR

    await settle_all(outbox, await due(outbox, later), Delivered(), later)

    assert (await registered(registrations, registration)).quarantine is None
    await settle_all(outbox, await due(outbox, later), Delivered(), later)
    assert await marks(engine) == {}


async def test_a_trial_that_says_nothing_leaves_the_quarantine_as_it_is(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    registration = await quarantined(registrations, watches, outbox)
    before = (await registered(registrations, registration)).quarantine
    later = NOW + 2 * HOUR

    trial = await due(outbox, later)
    await outbox.settle([Settlement(push, RetryLater("busy"), later + MINUTE) for push in trial], later)

    assert (await registered(registrations, registration)).quarantine == before
    assert len(await due(outbox, later)) == 1  # by another class


async def test_another_token_or_environment_revives_at_once(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore, wakeups: LocalWakeups
) -> None:
    for change in (RegistrationChange(device_token="fresh"), RegistrationChange(environment=Environment.SANDBOX)):
        registration = await quarantined(registrations, watches, outbox)
        waiter = wakeups.waiter(Topic.OUTBOX_APNS)

        await registrations.change(registration.id, change, NOW + MINUTE)

        assert waiter.woken
        assert (await registered(registrations, registration)).quarantine is None
        pushes = await due(outbox, NOW + MINUTE)
        assert len(pushes) == 2
        await settle_all(outbox, pushes, Delivered(), NOW + MINUTE)
        await registrations.remove(registration.id)


async def test_a_refusal_of_a_token_replaced_meanwhile_counts_for_nothing(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    registration = await activate(registrations, watches)
    await watches.commit([entry(await own_all(watches), BOTH)], NOW)
    pushes = await due(outbox)
    await registrations.change(registration.id, RegistrationChange(environment=Environment.SANDBOX), NOW)

    await settle_all(outbox, pushes, BAD)

    assert (await registered(registrations, registration)).quarantine is None
    assert {(push.environment, push.attempts) for push in await due(outbox)} == {(Environment.SANDBOX, 0)}


async def test_a_gone_token_ends_the_quarantine(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    registration = await quarantined(registrations, watches, outbox)
    later = NOW + 2 * HOUR

    await settle_all(outbox, await due(outbox, later), TokenGone("Unregistered", later), later)

    now = await registered(registrations, registration)
    assert (now.state, now.quarantine) == (RegistrationState.TOKEN_GONE, None)


async def test_a_gone_token_has_the_watch_look_at_its_mailbox(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore, wakeups: LocalWakeups
) -> None:
    await activate(registrations, watches)
    await watches.commit([entry(await own_all(watches), BOTH)], NOW)
    await watches.take_dirty(range(256), NOW)
    (push, _) = await due(outbox)
    waiter = wakeups.waiter(Topic.MAILBOXES)

    await settle_all(outbox, [push], TokenGone("Unregistered"))

    assert waiter.woken
    (record,) = await watches.take_dirty(range(256), NOW)
    assert record.memory.classes == frozenset()
    assert record.registrations == 1


async def test_failures_that_do_not_count_leave_the_tries_as_they_are(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    await activate(registrations, watches)
    await watches.commit([entry(await own_all(watches), Progress(changes=(NEW_MAIL,)))], NOW)
    (push,) = await due(outbox)

    away = RetryLater("timed-out", provider=True)
    await outbox.settle([Settlement(push, away, NOW + MINUTE, counted=False, parked="")], NOW)

    assert [push.attempts for push in await due(outbox, NOW + MINUTE)] == [0]


async def test_lanes_are_claimed_or_left_out(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    phones = {
        "ann": {"app": "mail", "environment": Environment.PRODUCTION},
        "ben": {"app": "mail", "environment": Environment.SANDBOX},
        "eve": {"app": "other", "environment": Environment.PRODUCTION},
    }
    for name, properties in phones.items():
        await activate(registrations, watches, name, **properties)  # type: ignore[arg-type]
    epoch = await own_all(watches)
    await watches.commit([entry(epoch, Progress(changes=(NEW_MAIL,)), name) for name in phones], NOW)
    mail, production = Lane(Environment.PRODUCTION, "mail"), Lane(Environment.PRODUCTION)

    async def names(**lanes: object) -> list[str]:
        pushes = await due(outbox, **lanes)
        await outbox.release("push-1")
        return [push.registration_id for push in pushes]

    assert await names(without=[mail]) == ["reg-ben-phone", "reg-eve-phone"]
    assert await names(without=[production]) == ["reg-ben-phone"]
    assert await names(only=production) == ["reg-ann-phone", "reg-eve-phone"]
    assert await names(only=production, without=[mail]) == ["reg-eve-phone"]
    assert await outbox.next_due(Platform.APNS, [production]) == NOW
    assert await outbox.next_due(Platform.APNS, [production, Lane(Environment.SANDBOX)]) is None


async def test_push_services_are_claimed_or_left_out(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    services = {"ann": "push_1.example.com", "ben": "pushX1.example.com", "eve": "push_1.example.com:8443"}
    for name, service in services.items():
        token = f'{{"auth":"x","endpoint":"https://{service}/up/{name}","p256dh":"y"}}'
        await activate(registrations, watches, name, platform=Platform.WEBPUSH, device_token=token)
    epoch = await own_all(watches)
    await watches.commit([entry(epoch, Progress(changes=(NEW_MAIL,)), name) for name in services], NOW)
    away = Lane(Environment.PRODUCTION, service="push_1.example.com")

    async def names(**lanes: object) -> list[str]:
        pushes = (await outbox.claim(Platform.WEBPUSH, 10, "push-1", NOW + MINUTE, NOW, **lanes)).pushes  # type: ignore[arg-type]
        await outbox.release("push-1")
        return [push.registration_id for push in pushes]

    assert await names(without=[away]) == ["reg-ben-phone", "reg-eve-phone"]
    assert await names(only=away) == ["reg-ann-phone"]
    assert await outbox.next_due(Platform.WEBPUSH, [away]) == NOW
    assert await outbox.next_due(Platform.WEBPUSH, [Lane(Environment.PRODUCTION)]) is None


async def test_a_mark_refused_beside_one_that_arrives_does_not_wait_for_the_re_check(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    registration = await activate(registrations, watches)
    await watches.commit([entry(await own_all(watches), BOTH)], NOW)
    refused, accepted = await due(outbox)

    await outbox.settle([Settlement(refused, BAD, NOW + HOUR)], NOW)
    assert await due(outbox) == []
    await outbox.settle([Settlement(accepted, Delivered())], NOW)

    assert (await registered(registrations, registration)).quarantine is None
    assert [push.mark for push in await due(outbox)] == [refused.mark]


async def test_a_claim_from_the_future_keeps_no_trial_back(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    """A push process died while the clock was wrong by hours; the clock was set right, and then another one started."""
    wrong = NOW + 5 * HOUR
    await quarantined(registrations, watches, outbox)
    (trial,) = await due(outbox, wrong)

    (again,) = await due(outbox, NOW + 1.3 * HOUR)

    assert again.registration_id == trial.registration_id
