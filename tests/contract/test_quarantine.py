"""Test that a token its provider refuses is kept, tried ever more rarely, and healed; and which lanes are claimed."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from eas_watcher.machine.memory import Change, Progress
from eas_watcher.names import CollectionClass
from relay.domain.model import DuePush, Environment, Lane, Platform, Registration, RegistrationChange, RegistrationState
from relay.domain.outcome import Delivered, LastOutcome, OutcomeKind, Refused, RetryLater, TokenGone
from relay.domain.ports.outbox import Settlement
from relay.domain.ports.wakeups import Topic
from relay.store.engine import Database
from relay.store.wakeups import LocalWakeups
from tests.contract.outbox_sites import OutboxSite, SqlSite
from tests.contract.samples import NEW_MAIL, NOW, leases

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
BAD = Refused("BadDeviceToken", "compare the environment")
BOTH = Progress(changes=(NEW_MAIL, Change(CollectionClass.CALENDAR, 1)))


async def quarantined(site: OutboxSite, **changes: Any) -> Registration:
    """Register a phone whose token is refused when two classes are pushed at once."""
    registration = await site.activate(**changes)
    await site.commit(BOTH)
    pushes = await site.claim()
    assert len(pushes) == 2
    await site.settle(pushes, BAD)
    return registration


async def test_a_refused_token_is_kept_in_quarantine_for_about_an_hour(site: OutboxSite) -> None:
    registration = await quarantined(site)

    now = await site.registered(registration)
    assert now.state is RegistrationState.ACTIVE
    assert now.last_outcome == LastOutcome(OutcomeKind.REFUSED, "BadDeviceToken")
    assert now.quarantine is not None
    assert (now.quarantine.since, now.quarantine.reason) == (NOW, "BadDeviceToken")
    assert (now.quarantine.remedy, now.quarantine.rechecks) == ("compare the environment", 1)
    assert 0.7 * HOUR <= now.quarantine.recheck_at - NOW <= 1.3 * HOUR
    assert len(await site.marks()) == 2
    assert await site.outbox.next_due(Platform.APNS) == now.quarantine.recheck_at


async def test_new_changes_do_not_try_it_sooner_and_one_push_is_the_trial(site: OutboxSite) -> None:
    registration = await quarantined(site)
    await site.commit(BOTH, now=NOW + MINUTE)
    assert await site.claim(NOW + MINUTE) == []

    later = NOW + 1.3 * HOUR
    trial = await site.claim(later)
    assert len(trial) == 1
    assert await site.claim(later) == []

    await site.settle(trial, BAD, later)
    now = await site.registered(registration)
    assert now.quarantine is not None
    assert (now.quarantine.since, now.quarantine.rechecks) == (NOW, 2)
    assert 2 * 0.7 * HOUR <= now.quarantine.recheck_at - later <= 2 * 1.3 * HOUR


async def test_re_checks_come_daily_in_the_end(site: OutboxSite) -> None:
    registration = await quarantined(site)
    now = NOW
    waits = []
    for _ in range(9):
        quarantine = (await site.registered(registration)).quarantine
        assert quarantine is not None
        waits.append(quarantine.recheck_at - now)
        now = quarantine.recheck_at
        await site.commit(BOTH, now=now)
        await site.settle(await site.claim(now), BAD, now)

    assert waits[-1] >= 0.7 * 24 * HOUR
    assert all(wait <= 1.3 * 24 * HOUR for wait in waits)


async def test_a_re_check_that_passes_heals(site: OutboxSite) -> None:
    registration = await quarantined(site)
    later = NOW + 2 * HOUR

    await site.settle(await site.claim(later), Delivered(), later)

    assert (await site.registered(registration)).quarantine is None
    await site.settle(await site.claim(later), Delivered(), later)
    assert await site.marks() == {}


async def test_a_trial_that_says_nothing_leaves_the_quarantine_as_it_is(site: OutboxSite) -> None:
    registration = await quarantined(site)
    before = (await site.registered(registration)).quarantine
    later = NOW + 2 * HOUR

    await site.settle(await site.claim(later), RetryLater("busy"), later, next_try_at=later + MINUTE)

    assert (await site.registered(registration)).quarantine == before
    assert len(await site.claim(later)) == 1  # by another class


async def test_another_token_or_environment_revives_at_once(site: OutboxSite) -> None:
    for change in (RegistrationChange(device_token="fresh"), RegistrationChange(environment=Environment.SANDBOX)):
        registration = await quarantined(site)
        waiter = site.wakeups.waiter(Topic.OUTBOX_APNS)

        await site.registrations.change(registration.id, change, NOW + MINUTE)

        assert waiter.woken
        assert (await site.registered(registration)).quarantine is None
        pushes = await site.claim(NOW + MINUTE)
        assert len(pushes) == 2
        await site.settle(pushes, Delivered(), NOW + MINUTE)
        await site.registrations.remove(registration.id, NOW)


async def test_a_refusal_of_a_token_replaced_meanwhile_has_no_effect(site: OutboxSite) -> None:
    registration = await site.activate()
    await site.commit(BOTH)
    pushes = await site.claim()
    await site.registrations.change(registration.id, RegistrationChange(environment=Environment.SANDBOX), NOW)

    await site.settle(pushes, BAD)

    assert (await site.registered(registration)).quarantine is None
    assert {(push.environment, push.attempts) for push in await site.claim()} == {(Environment.SANDBOX, 0)}


async def test_a_gone_token_ends_the_quarantine(site: OutboxSite) -> None:
    registration = await quarantined(site)
    later = NOW + 2 * HOUR

    await site.settle(await site.claim(later), TokenGone("Unregistered", later), later)

    now = await site.registered(registration)
    assert (now.state, now.quarantine) == (RegistrationState.TOKEN_GONE, None)


async def test_a_gone_token_has_the_watch_look_at_its_mailbox(engine: Database) -> None:
    site = SqlSite(engine, LocalWakeups())
    await site.activate()
    await site.commit(BOTH)
    await site.watches.take_dirty(await leases(site.watches, range(256)), NOW)
    push, _ = await site.claim()

    await site.settle([push], TokenGone("Unregistered"))

    (record,) = await site.watches.take_dirty(await leases(site.watches, range(256)), NOW)
    assert record.memory.classes == frozenset()
    assert record.registrations == 1


async def test_failures_that_do_not_count_leave_the_tries_as_they_are(site: OutboxSite) -> None:
    await site.activate()
    await site.change()
    (push,) = await site.claim()

    away = RetryLater("timed-out", provider=True)
    await site.outbox.settle([Settlement(push, away, NOW + MINUTE, counted=False, parked="")], NOW)

    assert [push.attempts for push in await site.claim(NOW + MINUTE)] == [0]


async def test_lanes_are_claimed_or_left_out(site: OutboxSite) -> None:
    await site.activate("ann", app="mail", environment=Environment.PRODUCTION)
    await site.activate("ben", app="mail", environment=Environment.SANDBOX)
    await site.activate("eve", app="other", environment=Environment.PRODUCTION)
    await site.change("ann", "ben", "eve")
    mail, production = Lane(Environment.PRODUCTION, "mail"), Lane(Environment.PRODUCTION)

    assert await _names(site, without=[mail]) == ["reg-ben-phone", "reg-eve-phone"]
    assert await _names(site, without=[production]) == ["reg-ben-phone"]
    assert await _names(site, only=production) == ["reg-ann-phone", "reg-eve-phone"]
    assert await _names(site, only=production, without=[mail]) == ["reg-eve-phone"]
    assert await site.outbox.next_due(Platform.APNS, [production]) == NOW
    assert await site.outbox.next_due(Platform.APNS, [production, Lane(Environment.SANDBOX)]) is None


async def test_pushes_that_failed_before_and_all_others_are_lanes_of_their_own(site: OutboxSite) -> None:
    for name in ("ann", "ben", "eve"):
        await site.activate(name)
    await site.change("eve")
    (push,) = await site.claim()
    await site.outbox.settle([Settlement(push, Delivered())], NOW)
    await site.change("ann")
    (push,) = await site.claim()
    await site.outbox.settle([Settlement(push, RetryLater("http-507"), NOW)], NOW)
    await site.change("ben", "eve")
    failed, others = (Lane(Environment.PRODUCTION, retried=retried) for retried in (True, False))

    assert await _names(site, only=failed) == ["reg-ann-phone"]
    shown = await _names(site, only=others)
    assert shown == ["reg-eve-phone", "reg-ben-phone"], "a phone that has had a push shows more"
    assert await _names(site, without=[failed]) == ["reg-ben-phone", "reg-eve-phone"]
    assert await _names(site, without=[others]) == ["reg-ann-phone"]
    assert await site.outbox.next_due(Platform.APNS, [failed, others]) is None


async def test_push_services_are_claimed_or_left_out(site: OutboxSite) -> None:
    services = {"ann": "push_1.example.com", "ben": "pushX1.example.com", "eve": "push_1.example.com:8443"}
    for name, service in services.items():
        token = f'{{"auth":"x","endpoint":"https://{service}/up/{name}","p256dh":"y"}}'
        await site.activate(name, platform=Platform.WEBPUSH, device_token=token)
    await site.change(*services)
    away = Lane(Environment.PRODUCTION, service="push_1.example.com")

    assert await _names(site, Platform.WEBPUSH, without=[away]) == ["reg-ben-phone", "reg-eve-phone"]
    assert await _names(site, Platform.WEBPUSH, only=away) == ["reg-ann-phone"]
    assert await site.outbox.next_due(Platform.WEBPUSH, [away]) == NOW
    assert await site.outbox.next_due(Platform.WEBPUSH, [Lane(Environment.PRODUCTION)]) is None


async def _names(
    site: OutboxSite, platform: Platform = Platform.APNS, only: Lane | None = None, without: Sequence[Lane] = ()
) -> list[str]:
    """Return whose marks are claimed in some lanes, and release them."""
    pushes: list[DuePush] = await site.claim(platform=platform, only=only, without=without)
    await site.outbox.release("push-1")
    return [push.registration_id for push in pushes]


async def test_a_mark_refused_beside_one_that_arrives_does_not_wait_for_the_re_check(site: OutboxSite) -> None:
    registration = await site.activate()
    await site.commit(BOTH)
    refused, accepted = await site.claim()

    await site.settle([refused], BAD, next_try_at=NOW + HOUR)
    assert await site.claim() == []
    await site.settle([accepted], Delivered())

    assert (await site.registered(registration)).quarantine is None
    assert [push.mark for push in await site.claim()] == [refused.mark]


async def test_a_quarantine_ends_with_the_wrong_clock_that_set_it(site: OutboxSite) -> None:
    """A subscription failed in a way that soon passes, while the clock was a day ahead."""
    wrong = NOW + 24 * HOUR
    registration = await site.activate()
    await site.commit(BOTH, now=wrong)
    await site.settle(await site.claim(wrong), replace(BAD, passing=True), wrong)

    trial = await site.claim(NOW)

    assert len(trial) == 1
    await site.settle(trial, replace(BAD, passing=True), NOW)
    after = (await site.registered(registration)).quarantine
    assert after is not None
    assert (after.since, after.refused_at) == (NOW, NOW)
    assert await site.claim(NOW) == [], "the trial's refusal sets the next try by the right clock"


async def test_a_claim_from_the_future_keeps_no_trial_back(site: OutboxSite) -> None:
    """A push process died while the clock was wrong by hours; the clock was set right, and then another one started."""
    wrong = NOW + 5 * HOUR
    await quarantined(site)
    (trial,) = await site.claim(wrong)

    (again,) = await site.claim(NOW + 1.3 * HOUR)

    assert again.registration_id == trial.registration_id
