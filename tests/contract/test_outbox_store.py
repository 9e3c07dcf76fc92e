"""Test claims of dirty marks, and that no outcome loses what came meanwhile."""

from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from eas_watcher.machine.memory import Change, Progress
from eas_watcher.names import CollectionClass
from relay.domain.model import (
    DuePush,
    Environment,
    Mark,
    Mode,
    Platform,
    Registration,
    RegistrationChange,
    RegistrationState,
)
from relay.domain.outcome import Delivered, LastOutcome, Outcome, OutcomeKind, Refused, RetryLater, TokenGone
from relay.domain.ports.outbox import Settlement
from relay.domain.ports.wakeups import Topic
from relay.store.outbox import SqlOutboxStore
from relay.store.registrations import SqlRegistrationStore
from relay.store.wakeups import LocalWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import LATER, NEW_MAIL, NOW, activate, entry, marks, own_all

UNTIL = NOW + timedelta(seconds=60)
SECOND = timedelta(seconds=1)


async def change(watches: SqlWatchStore, now: datetime = NOW, changed: Change = NEW_MAIL, name: str = "ann") -> None:
    epoch = await own_all(watches)
    await watches.commit([entry(epoch, Progress(changes=(changed,)), name)], now)


async def claim(outbox: SqlOutboxStore, now: datetime = NOW, owner: str = "push-1") -> DuePush:
    (push,) = (await outbox.claim(Platform.APNS, 10, owner, now + timedelta(seconds=60), now)).pushes
    return push


async def settle(
    outbox: SqlOutboxStore, push: DuePush, outcome: Outcome, now: datetime = NOW, next_try_at: datetime | None = None
) -> None:
    await outbox.settle([Settlement(push, outcome, next_try_at)], now)


async def registered(registrations: SqlRegistrationStore, registration: Registration) -> Registration:
    view = await registrations.view(registration.id)
    assert view is not None
    return view.registration


async def test_a_claimed_mark_carries_all_that_its_push_needs(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    registration = await activate(registrations, watches, environment=Environment.SANDBOX, mode=Mode.BACKGROUND)
    await change(watches)

    assert await claim(outbox) == DuePush(
        registration_id=registration.id,
        mark=Mark.EMAIL,
        count=2,
        certain=True,
        generation=1,
        attempts=0,
        first_at=NOW,
        platform=Platform.APNS,
        app="mail",
        environment=Environment.SANDBOX,
        device_token="token-ann-phone",
        token_since=NOW,
        mode=Mode.BACKGROUND,
        locale="de",
    )


async def test_a_claimed_mark_is_nobody_elses_until_the_claim_runs_out(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    await activate(registrations, watches)
    await change(watches)
    push = await claim(outbox)

    assert (await outbox.claim(Platform.APNS, 10, "push-2", UNTIL, NOW)).pushes == ()
    assert (await outbox.claim(Platform.APNS, 10, "push-2", UNTIL, UNTIL - timedelta(microseconds=1))).pushes == ()
    assert await outbox.next_due(Platform.APNS) == UNTIL
    assert (await outbox.claim(Platform.APNS, 10, "push-2", UNTIL + SECOND, UNTIL)).pushes == (push,)


async def test_the_oldest_due_marks_of_the_platform_are_claimed_first(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    await activate(registrations, watches, "ben")
    await activate(registrations, watches, "ann")
    await activate(registrations, watches, "eve", platform=Platform.FCM)
    await change(watches, NOW + SECOND, name="ann")
    await change(watches, NOW, name="ben")
    await change(watches, NOW, name="eve")

    until = LATER + SECOND
    first = (await outbox.claim(Platform.APNS, 1, "push-1", until, LATER)).pushes
    second = (await outbox.claim(Platform.APNS, 10, "push-1", until, LATER)).pushes

    assert [push.registration_id for push in first + second] == ["reg-ben-phone", "reg-ann-phone"]
    (other,) = (await outbox.claim(Platform.FCM, 10, "push-1", UNTIL, NOW)).pushes
    assert (other.registration_id, other.platform) == ("reg-eve-phone", Platform.FCM)


async def test_marks_of_registrations_that_are_not_active_wait(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    registration = await activate(registrations, watches)
    await change(watches)
    await settle(outbox, await claim(outbox), TokenGone("Unregistered"))
    await registrations.mark(registration.id, Mark.TEST, NOW)

    assert (await outbox.claim(Platform.APNS, 10, "push-1", UNTIL, LATER)).pushes == ()
    assert await outbox.next_due(Platform.APNS) is None


async def test_a_delivered_mark_is_gone(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore, engine: AsyncEngine
) -> None:
    registration = await activate(registrations, watches)
    await change(watches)

    await settle(outbox, await claim(outbox), Delivered("id"), LATER)

    assert await marks(engine) == {}
    assert await outbox.next_due(Platform.APNS) is None
    now = await registered(registrations, registration)
    assert (now.last_push_at, now.last_outcome) == (LATER, LastOutcome(OutcomeKind.DELIVERED))


async def test_what_came_while_a_push_was_under_way_is_due_at_once(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore, wakeups: LocalWakeups
) -> None:
    await activate(registrations, watches)
    await change(watches)
    push = await claim(outbox)
    await change(watches, NOW + SECOND, Change(CollectionClass.EMAIL, 3))
    waiter = wakeups.waiter(Topic.OUTBOX_APNS)

    await settle(outbox, push, Delivered(), LATER)

    assert waiter.woken
    assert await outbox.next_due(Platform.APNS) == LATER
    rest = await claim(outbox, LATER)
    assert (rest.count, rest.generation, rest.attempts, rest.first_at) == (3, 2, 0, NOW + SECOND)
    await settle(outbox, rest, Delivered(), LATER)
    assert await outbox.next_due(Platform.APNS) is None


async def test_a_late_delivery_does_not_delete_a_mark_that_began_afterwards(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    await activate(registrations, watches)
    await change(watches)
    slow = await claim(outbox, owner="push-1")
    fast = await claim(outbox, UNTIL, owner="push-2")
    await settle(outbox, fast, Delivered(), UNTIL)
    await change(watches, UNTIL + SECOND)

    await settle(outbox, slow, Delivered(), UNTIL + SECOND)

    fresh = await claim(outbox, UNTIL + SECOND)
    assert (fresh.count, fresh.first_at) == (2, UNTIL + SECOND)


async def test_a_failed_push_is_due_again_when_told(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    registration = await activate(registrations, watches)
    await change(watches)

    await settle(outbox, await claim(outbox), RetryLater("503"), next_try_at=LATER)

    assert (await registered(registrations, registration)).last_outcome == LastOutcome(OutcomeKind.RETRY_LATER, "503")
    assert await outbox.next_due(Platform.APNS) == LATER
    again = await claim(outbox, LATER)
    assert (again.attempts, again.count, again.generation) == (1, 2, 1)
    await settle(outbox, again, Refused("BadTopic", "fix the topic", channel=True), next_try_at=LATER + SECOND)
    now = await registered(registrations, registration)
    assert (now.last_outcome, now.last_push_at) == (LastOutcome(OutcomeKind.REFUSED, "BadTopic"), None)
    assert (await claim(outbox, LATER + SECOND)).attempts == 2


async def test_a_gone_token_ends_the_registration_and_its_marks(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore, engine: AsyncEngine
) -> None:
    registration = await activate(registrations, watches)
    await activate(registrations, watches, "ben")
    await change(watches)
    push = await claim(outbox)
    await registrations.mark(registration.id, Mark.TEST, NOW)
    await change(watches, name="ben")

    await settle(outbox, push, TokenGone("Unregistered", NOW))

    now = await registered(registrations, registration)
    assert (now.state, now.last_outcome) == (
        RegistrationState.TOKEN_GONE,
        LastOutcome(OutcomeKind.TOKEN_GONE, "Unregistered"),
    )
    assert set(await marks(engine)) == {("reg-ben-phone", "email")}


async def test_a_token_younger_than_its_end_is_still_good(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    registration = await activate(registrations, watches)
    await change(watches)

    await settle(outbox, await claim(outbox), TokenGone("Unregistered", NOW - SECOND))

    assert (await registered(registrations, registration)).state is RegistrationState.ACTIVE
    due = await outbox.next_due(Platform.APNS)
    assert due is not None
    assert due > LATER  # the provider is not asked the same again at once
    assert (await claim(outbox, due)).attempts == 1


async def test_a_token_replaced_during_the_push_is_tried_at_once(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    registration = await activate(registrations, watches)
    await change(watches)
    push = await claim(outbox)
    await registrations.change(registration.id, RegistrationChange(device_token="fresh"), NOW)

    await settle(outbox, push, TokenGone("UNREGISTERED"), LATER)

    assert (await registered(registrations, registration)).state is RegistrationState.ACTIVE
    again = await claim(outbox, LATER)
    assert (again.device_token, again.attempts) == ("fresh", 0)


async def test_many_outcomes_are_recorded_together(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore, engine: AsyncEngine
) -> None:
    ann = await activate(registrations, watches, "ann")
    ben = await activate(registrations, watches, "ben")
    eve = await activate(registrations, watches, "eve")
    for name in ("ann", "ben", "eve"):
        await change(watches, name=name)
    await registrations.mark(ann.id, Mark.TEST, NOW)
    pushes = {
        (push.registration_id, push.mark): push
        for push in (await outbox.claim(Platform.APNS, 10, "p", UNTIL, NOW)).pushes
    }

    await outbox.settle(
        [
            Settlement(pushes[eve.id, Mark.EMAIL], Delivered()),
            Settlement(pushes[ben.id, Mark.EMAIL], RetryLater("busy"), LATER),
            Settlement(pushes[ann.id, Mark.TEST], Delivered()),
            Settlement(pushes[ann.id, Mark.EMAIL], Refused("BadDeviceToken", "look"), LATER),
        ],
        NOW,
    )
    await outbox.settle([], NOW)

    assert set(await marks(engine)) == {("reg-ann-phone", "email"), ("reg-ben-phone", "email")}
    now = await registered(registrations, ann)
    assert (now.last_push_at, now.last_outcome) == (NOW, LastOutcome(OutcomeKind.REFUSED, "BadDeviceToken"))
    assert (await registered(registrations, ben)).last_outcome == LastOutcome(OutcomeKind.RETRY_LATER, "busy")


async def test_one_group_may_hold_marks_that_grew_and_marks_that_failed(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore, engine: AsyncEngine
) -> None:
    names = ["ann", "ben", "eve"]
    for name in names:
        await activate(registrations, watches, name)
        await change(watches, name=name)
    ann, ben, eve = (await outbox.claim(Platform.APNS, 10, "push-1", UNTIL, NOW)).pushes
    for name in names:
        await change(watches, NOW + SECOND, Change(CollectionClass.EMAIL, 5), name)

    await outbox.settle(
        [Settlement(eve, Delivered()), Settlement(ben, Delivered()), Settlement(ann, RetryLater("busy"), LATER)], NOW
    )

    found = [(row.changes, row.attempts, row.first_at, row.due_at) for _, row in sorted((await marks(engine)).items())]
    assert found == [(7, 1, NOW, LATER), (5, 0, NOW + SECOND, NOW), (5, 0, NOW + SECOND, NOW)]


async def test_an_outcome_of_a_removed_registration_changes_nothing(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore, engine: AsyncEngine
) -> None:
    registration = await activate(registrations, watches)
    await change(watches)
    push = await claim(outbox)
    await registrations.remove(registration.id)

    for outcome in (Delivered(), TokenGone("Unregistered"), RetryLater("busy")):
        await settle(outbox, push, outcome)

    assert await marks(engine) == {}


async def test_released_claims_are_free_at_once(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore, wakeups: LocalWakeups
) -> None:
    await activate(registrations, watches, "ann")
    await change(watches, name="ann")
    await claim(outbox, owner="push-1")
    await activate(registrations, watches, "ben")
    await change(watches, name="ben")
    await claim(outbox, owner="push-2")
    waiter = wakeups.waiter(Topic.OUTBOX_APNS)

    await outbox.release("push-3")
    assert not waiter.woken
    await outbox.release("push-1")
    assert waiter.woken
    assert (await claim(outbox, owner="push-4")).registration_id == "reg-ann-phone"

    await outbox.release(None)
    assert len((await outbox.claim(Platform.APNS, 10, "push-5", UNTIL, NOW)).pushes) == 2


async def test_the_next_mark_to_fall_due_is_told_by_platform(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    await activate(registrations, watches, "ann")
    await activate(registrations, watches, "ben", platform=Platform.FCM)
    await change(watches, LATER, name="ann")
    await change(watches, NOW, name="ben")

    assert await outbox.next_due(Platform.APNS) == LATER
    assert await outbox.next_due(Platform.FCM) == NOW


async def test_a_push_to_a_token_that_was_replaced_meanwhile_is_sent_to_the_new_one(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    ann = await activate(registrations, watches)
    await change(watches)
    push = await claim(outbox)
    await registrations.change(ann.id, RegistrationChange(device_token="new"), NOW)

    await settle(outbox, push, Delivered(), NOW)
    again = await claim(outbox)

    assert (again.device_token, again.count) == ("new", 2)


async def test_a_clock_set_back_by_far_keeps_no_mark_waiting(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    await activate(registrations, watches)
    ahead = NOW + timedelta(days=1)
    await change(watches, ahead)

    push = await claim(outbox)  # claimed by a process that ended without a word
    later = await claim(outbox, NOW - timedelta(days=1), "push-2")

    assert (push.first_at, later.first_at) == (ahead, ahead)


async def test_a_clock_set_back_a_little_keeps_no_change_waiting(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    await activate(registrations, watches)
    await change(watches, NOW + timedelta(hours=1))
    assert (await outbox.claim(Platform.APNS, 10, "push-1", UNTIL, NOW)).pushes == ()

    await change(watches, NOW)

    assert (await claim(outbox)).count == 4


async def test_a_change_does_not_hurry_a_push_that_failed(
    registrations: SqlRegistrationStore, watches: SqlWatchStore, outbox: SqlOutboxStore
) -> None:
    await activate(registrations, watches)
    await change(watches)
    await settle(outbox, await claim(outbox), RetryLater("busy"), NOW, LATER)

    await change(watches, NOW + SECOND)

    assert (await outbox.claim(Platform.APNS, 10, "push-1", UNTIL, LATER - SECOND)).pushes == ()
    assert (await claim(outbox, LATER)).count == 4
