"""Test claims of dirty marks, and that no outcome loses what came meanwhile."""

from datetime import timedelta

from eas_watcher.machine.memory import Change
from eas_watcher.names import CollectionClass
from relay.domain.model import (
    DuePush,
    Environment,
    Mark,
    Mode,
    Platform,
    RegistrationChange,
    RegistrationState,
)
from relay.domain.outcome import Delivered, LastOutcome, OutcomeKind, Refused, RetryLater, TokenGone
from relay.domain.ports.outbox import Settlement
from relay.domain.ports.wakeups import Topic
from tests.contract.outbox_sites import OutboxSite
from tests.contract.samples import LATER, NOW

SECOND = timedelta(seconds=1)
UNTIL = NOW + timedelta(minutes=1)
"""When a claim made at NOW runs out."""
THREE_MAILS = Change(CollectionClass.EMAIL, 3)


async def test_a_claimed_mark_carries_all_that_its_push_needs(site: OutboxSite) -> None:
    registration = await site.activate(environment=Environment.SANDBOX, mode=Mode.BACKGROUND)
    await site.change()

    assert await site.claim() == [
        DuePush(
            registration_id=registration.id,
            mark=Mark.EMAIL,
            count=2,
            certain=True,
            generation=1,
            attempts=0,
            first_at=NOW,
            last_at=NOW,
            platform=Platform.APNS,
            app="mail",
            environment=Environment.SANDBOX,
            device_token="token-ann-phone",
            token_since=NOW,
            mode=Mode.BACKGROUND,
            locale="de",
            mailbox_id=registration.mailbox_id,
        )
    ]


async def test_a_claimed_mark_is_not_claimed_again_until_the_claim_runs_out(site: OutboxSite) -> None:
    await site.activate()
    await site.change()
    (push,) = await site.claim()

    assert await site.claim(owner="push-2") == []
    assert await site.claim(UNTIL - timedelta(microseconds=1), owner="push-2") == []
    assert await site.outbox.next_due(Platform.APNS) == UNTIL
    assert await site.claim(UNTIL, owner="push-2") == [push]


async def test_the_oldest_due_marks_of_the_platform_are_claimed_first(site: OutboxSite) -> None:
    await site.activate("ben")
    await site.activate("ann")
    await site.activate("eve", platform=Platform.FCM)
    await site.change("ann", now=NOW + SECOND)
    await site.change("ben", "eve")

    first = await site.claim(LATER, limit=1)
    second = await site.claim(LATER)

    assert [push.registration_id for push in first + second] == ["reg-ben-phone", "reg-ann-phone"]
    (other,) = await site.claim(platform=Platform.FCM)
    assert (other.registration_id, other.platform) == ("reg-eve-phone", Platform.FCM)


async def test_marks_of_registrations_that_are_not_active_wait(site: OutboxSite) -> None:
    registration = await site.activate()
    await site.change()
    await site.settle(await site.claim(), TokenGone("Unregistered"))
    await site.registrations.mark(registration.id, Mark.TEST, NOW)

    assert await site.claim(LATER) == []
    assert await site.outbox.next_due(Platform.APNS) is None


async def test_a_delivered_mark_is_gone(site: OutboxSite) -> None:
    registration = await site.activate()
    await site.change()

    await site.settle(await site.claim(), Delivered("id"), LATER)

    assert await site.marks() == {}
    assert await site.outbox.next_due(Platform.APNS) is None
    now = await site.registered(registration)
    assert (now.last_push_at, now.last_outcome) == (LATER, LastOutcome(OutcomeKind.DELIVERED))


async def test_what_came_while_a_push_was_under_way_is_due_at_once(site: OutboxSite) -> None:
    await site.activate()
    await site.change()
    pushes = await site.claim()
    await site.change(now=NOW + SECOND, changed=THREE_MAILS)
    waiter = site.wakeups.waiter(Topic.OUTBOX_APNS)

    await site.settle(pushes, Delivered(), LATER)

    assert waiter.woken
    assert await site.outbox.next_due(Platform.APNS) == LATER
    (rest,) = await site.claim(LATER)
    assert (rest.count, rest.generation, rest.attempts, rest.first_at) == (3, 2, 0, NOW + SECOND)
    await site.settle([rest], Delivered(), LATER)
    assert await site.outbox.next_due(Platform.APNS) is None


async def test_a_late_delivery_does_not_delete_a_mark_that_began_afterwards(site: OutboxSite) -> None:
    await site.activate()
    await site.change()
    slow = await site.claim(owner="push-1")
    fast = await site.claim(UNTIL, owner="push-2")
    await site.settle(fast, Delivered(), UNTIL)
    await site.change(now=UNTIL + SECOND)

    await site.settle(slow, Delivered(), UNTIL + SECOND)

    (fresh,) = await site.claim(UNTIL + SECOND)
    assert (fresh.count, fresh.first_at) == (2, UNTIL + SECOND)


async def test_a_failed_push_is_due_again_at_its_next_try(site: OutboxSite) -> None:
    registration = await site.activate()
    await site.change()

    await site.settle(await site.claim(), RetryLater("503"), next_try_at=LATER)

    assert (await site.registered(registration)).last_outcome == LastOutcome(OutcomeKind.RETRY_LATER, "503")
    assert await site.outbox.next_due(Platform.APNS) == LATER
    (again,) = await site.claim(LATER)
    assert (again.attempts, again.count, again.generation) == (1, 2, 1)
    await site.settle([again], Refused("BadTopic", "fix the topic", channel=True), next_try_at=LATER + SECOND)
    now = await site.registered(registration)
    assert (now.last_outcome, now.last_push_at) == (LastOutcome(OutcomeKind.REFUSED, "BadTopic"), None)
    assert [push.attempts for push in await site.claim(LATER + SECOND)] == [2]


async def test_a_gone_token_ends_the_registration_and_its_marks(site: OutboxSite) -> None:
    registration = await site.activate()
    await site.activate("ben")
    await site.change()
    pushes = await site.claim()
    await site.registrations.mark(registration.id, Mark.TEST, NOW)
    await site.change("ben")
    waiter = site.wakeups.waiter(Topic.MAILBOXES)

    await site.settle(pushes, TokenGone("Unregistered", NOW))

    now = await site.registered(registration)
    assert (now.state, now.last_outcome) == (
        RegistrationState.TOKEN_GONE,
        LastOutcome(OutcomeKind.TOKEN_GONE, "Unregistered"),
    )
    assert set(await site.marks()) == {("reg-ben-phone", "email")}
    assert waiter.woken, "the watch role may have a mailbox less to watch"


async def test_a_token_younger_than_its_end_is_still_good(site: OutboxSite) -> None:
    registration = await site.activate()
    await site.change()

    await site.settle(await site.claim(), TokenGone("Unregistered", NOW - SECOND))

    assert (await site.registered(registration)).state is RegistrationState.ACTIVE
    due = await site.outbox.next_due(Platform.APNS)
    assert due is not None
    assert due > LATER  # the provider is not asked the same again at once
    assert [push.attempts for push in await site.claim(due)] == [1]


async def test_a_token_replaced_during_the_push_is_tried_at_once(site: OutboxSite) -> None:
    registration = await site.activate()
    await site.change()
    pushes = await site.claim()
    await site.registrations.change(registration.id, RegistrationChange(device_token="fresh"), NOW)

    await site.settle(pushes, TokenGone("UNREGISTERED"), LATER)

    assert (await site.registered(registration)).state is RegistrationState.ACTIVE
    (again,) = await site.claim(LATER)
    assert (again.device_token, again.attempts) == ("fresh", 0)


async def test_many_outcomes_are_recorded_together(site: OutboxSite) -> None:
    ann, ben, eve = [await site.activate(name) for name in ("ann", "ben", "eve")]
    await site.change("ann", "ben", "eve")
    await site.registrations.mark(ann.id, Mark.TEST, NOW)
    pushes = {(push.registration_id, push.mark): push for push in await site.claim()}

    await site.outbox.settle(
        [
            Settlement(pushes[eve.id, Mark.EMAIL], Delivered()),
            Settlement(pushes[ben.id, Mark.EMAIL], RetryLater("busy"), LATER),
            Settlement(pushes[ann.id, Mark.TEST], Delivered()),
            Settlement(pushes[ann.id, Mark.EMAIL], Refused("BadDeviceToken", "look"), LATER),
        ],
        NOW,
    )
    await site.outbox.settle([], NOW)

    assert set(await site.marks()) == {("reg-ann-phone", "email"), ("reg-ben-phone", "email")}
    now = await site.registered(ann)
    assert (now.last_push_at, now.last_outcome) == (NOW, LastOutcome(OutcomeKind.REFUSED, "BadDeviceToken"))
    assert (await site.registered(ben)).last_outcome == LastOutcome(OutcomeKind.RETRY_LATER, "busy")


async def test_one_group_may_hold_marks_that_grew_and_marks_that_failed(site: OutboxSite) -> None:
    names = ("ann", "ben", "eve")
    for name in names:
        await site.activate(name)
    await site.change(*names)
    ann, ben, eve = sorted(await site.claim(), key=lambda push: push.registration_id)
    await site.change(*names, now=NOW + SECOND, changed=Change(CollectionClass.EMAIL, 5))

    await site.outbox.settle(
        [Settlement(eve, Delivered()), Settlement(ben, Delivered()), Settlement(ann, RetryLater("busy"), LATER)], NOW
    )

    found = [(row.count, row.attempts, row.first_at, row.due_at) for _, row in sorted((await site.marks()).items())]
    assert found == [(7, 1, NOW, LATER), (5, 0, NOW + SECOND, NOW), (5, 0, NOW + SECOND, NOW)]


async def test_an_outcome_of_a_removed_registration_changes_nothing(site: OutboxSite) -> None:
    registration = await site.activate()
    await site.change()
    pushes = await site.claim()
    await site.registrations.remove(registration.id, NOW)

    for outcome in (Delivered(), TokenGone("Unregistered"), RetryLater("busy")):
        await site.settle(pushes, outcome)

    assert await site.marks() == {}


async def test_released_claims_are_free_at_once(site: OutboxSite) -> None:
    await site.activate("ann")
    await site.change("ann")
    await site.claim(owner="push-1")
    await site.activate("ben")
    await site.change("ben")
    await site.claim(owner="push-2")
    waiter = site.wakeups.waiter(Topic.OUTBOX_APNS)

    await site.outbox.release("push-3")
    assert not waiter.woken
    await site.outbox.release("push-1")
    assert waiter.woken
    assert [push.registration_id for push in await site.claim(owner="push-4")] == ["reg-ann-phone"]

    await site.outbox.release(None)
    assert len(await site.claim(owner="push-5")) == 2


async def test_the_next_due_mark_is_that_of_the_platform(site: OutboxSite) -> None:
    await site.activate("ann")
    await site.activate("ben", platform=Platform.FCM)
    await site.change("ann", now=LATER)
    await site.change("ben")

    assert await site.outbox.next_due(Platform.APNS) == LATER
    assert await site.outbox.next_due(Platform.FCM) == NOW


async def test_a_push_to_a_token_that_was_replaced_meanwhile_is_sent_to_the_new_one(site: OutboxSite) -> None:
    ann = await site.activate()
    await site.change()
    pushes = await site.claim()
    await site.registrations.change(ann.id, RegistrationChange(device_token="new"), NOW)

    await site.settle(pushes, Delivered())
    (again,) = await site.claim()

    assert (again.device_token, again.count) == ("new", 2)


async def test_a_clock_set_back_by_far_keeps_no_mark_waiting(site: OutboxSite) -> None:
    await site.activate()
    ahead = NOW + timedelta(days=1)
    await site.change(now=ahead)

    (push,) = await site.claim(NOW)  # by a process that was killed
    (later,) = await site.claim(NOW - timedelta(days=1), owner="push-2")

    assert (push.first_at, later.first_at) == (ahead, ahead)


async def test_a_clock_set_back_a_little_keeps_no_change_waiting(site: OutboxSite) -> None:
    await site.activate()
    await site.change(now=NOW + timedelta(hours=1))
    assert await site.claim() == []

    await site.change()

    assert [push.count for push in await site.claim()] == [4]


async def test_a_change_does_not_hurry_a_push_that_failed(site: OutboxSite) -> None:
    await site.activate()
    await site.change()
    await site.settle(await site.claim(), RetryLater("busy"), next_try_at=LATER)

    await site.change(now=NOW + SECOND)

    assert await site.claim(LATER - SECOND) == []
    assert [push.count for push in await site.claim(LATER)] == [4]
