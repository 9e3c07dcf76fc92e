"""Test what each outcome changes of a mark and its registration: a table of outcomes and situations."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from relay.domain.model import DuePush, Environment, Mark, Platform, PushTestState, Quarantine, RegistrationState
from relay.domain.outcome import Delivered, LastOutcome, Outcome, PushEnd, Refused, RetryLater, Shadowed, TokenGone
from relay.domain.pacing import Pacing
from relay.domain.ports.outbox import Settlement
from relay.push.settlement import (
    FAREWELL,
    STALE_GONE,
    TEST_LASTS,
    MarkUpdate,
    PendingMark,
    PushTestResult,
    Recipient,
    RegistrationUpdate,
    Settled,
    may_end_registrations,
    settle,
)
from tests.unit.relay.push.pushes import BEGAN, due_push
from tests.unit.relay.push.test_backoff import MIDDLE

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
NOW = BEGAN + 10 * SECOND
DELIVERED = LastOutcome.of(Delivered())
LATER = NOW + HOUR
GREW_AT = BEGAN + 5 * SECOND
PACING = Pacing(coalesce=2.0, random=MIDDLE)

PUSH = due_push(count=2)
MARK = PendingMark(count=2, generation=1, first_at=BEGAN, last_at=BEGAN, attempts=3, paced=True)
GREW = replace(MARK, count=5, generation=2, last_at=GREW_AT)
ACTIVE = Recipient(
    PUSH.registration_id, PUSH.environment, PUSH.device_token, BEGAN, RegistrationState.ACTIVE, {}, quarantine=None
)
WIPED = replace(ACTIVE, state=RegistrationState.WIPED)
SENT = NOW.timestamp()

BUSY = RetryLater("busy")
BAD = Refused("BadDeviceToken", "compare the environment")
SICK = Refused("TopicDisallowed", "allow the topic", channel=True)
GONE = TokenGone("Unregistered")
EVERY_OUTCOME = [Delivered(), GONE, BUSY, BAD, SICK, Shadowed()]


def settled(
    outcome: PushEnd,
    recipient: Recipient = ACTIVE,
    mark: PendingMark | None = MARK,
    push: DuePush = PUSH,
    now: datetime = NOW,
    **how: Any,
) -> Settled:
    marks = {} if mark is None else {(push.registration_id, push.mark): mark}
    return settle([Settlement(push, outcome, **how)], {recipient.id: recipient}, marks, now, PACING)


def kept(**values: Any) -> MarkUpdate:
    """Return the update that leaves the mark as it is and due now."""
    same = MarkUpdate(PUSH.registration_id, PUSH.mark, MARK.count, BEGAN, NOW, MARK.attempts, MARK.paced, parked="")
    return replace(same, **values)


REST = {"count": 3, "first_at": GREW_AT, "due_at": NOW + 2 * SECOND, "attempts": 0, "paced": False}


@pytest.mark.parametrize(
    ("outcome", "mark", "how", "values"),
    [
        (Delivered(), GREW, {}, REST),
        (Delivered(), replace(GREW, count=1), {}, REST | {"count": 1}),
        (Shadowed(), GREW, {}, REST),
        (BUSY, MARK, {"next_try_at": LATER}, {"due_at": LATER, "attempts": 4}),
        (BUSY, GREW, {"next_try_at": LATER}, {"due_at": LATER, "attempts": 4, "count": 5}),
        (BUSY, MARK, {"next_try_at": LATER, "counted": False}, {"due_at": LATER}),
        (BUSY, MARK, {}, {"attempts": 4}),
        (BUSY, MARK, {"next_try_at": LATER, "parked": "broke"}, {"due_at": LATER, "attempts": 4, "parked": "broke"}),
        (SICK, MARK, {"next_try_at": LATER, "counted": False}, {"due_at": LATER}),
        (BAD, MARK, {"next_try_at": LATER}, {"attempts": 4}),
        (BAD, MARK, {"next_try_at": LATER, "counted": False}, {}),
        (TokenGone("410", BEGAN - SECOND), MARK, {}, {"due_at": NOW + STALE_GONE, "attempts": 4}),
        (TokenGone("410", BEGAN - SECOND), MARK, {"next_try_at": LATER}, {"due_at": LATER, "attempts": 4}),
    ],
)
def test_marks_that_stay_get_new_values(
    outcome: PushEnd, mark: PendingMark, how: Mapping[str, Any], values: Mapping[str, Any]
) -> None:
    result = settled(outcome, mark=mark, **how)

    assert result.kept == [kept(**values)]
    assert (result.done, result.gone, result.forgotten) == ([], [], [])


def test_a_delivered_mark_is_done() -> None:
    result = settled(Delivered())

    assert (result.done, result.kept, result.wake) == ([(PUSH.registration_id, Mark.EMAIL)], [], frozenset())


def test_a_mark_that_shadow_mode_held_back_is_done_whatever_the_device_token_is_now() -> None:
    for recipient in (ACTIVE, replace(ACTIVE, device_token="ff" * 32)):
        result = settled(Shadowed(), recipient)

        assert (result.done, result.kept) == ([(PUSH.registration_id, Mark.EMAIL)], [])


def test_shadow_mode_keeps_the_pace_and_the_quarantine_and_delivers_nothing() -> None:
    bad = Quarantine(BEGAN, "BadDeviceToken", "compare the environment", LATER, 1, BEGAN)

    (update,) = settled(Shadowed(), replace(ACTIVE, quarantine=bad)).updated

    assert update == RegistrationUpdate(
        PUSH.registration_id, {"email": SENT}, bad, LastOutcome.of(Shadowed()), last_push_at=None
    )


def test_a_test_push_that_was_held_back_has_no_answer() -> None:
    assert settled(Shadowed(), push=replace(PUSH, mark=Mark.TEST)).tests == []


def test_what_came_for_a_notice_during_its_push_does_not_wait() -> None:
    push = replace(PUSH, mark=Mark.TEST)

    (update,) = settled(Delivered(), mark=GREW, push=push).kept

    assert (update.due_at, update.count) == (NOW, 3)


@pytest.mark.parametrize(
    ("outcome", "mark", "how", "wakes"),
    [
        (Delivered(), GREW, {}, True),
        (Shadowed(), GREW, {}, True),
        (BUSY, MARK, {"next_try_at": LATER}, False),
        (BUSY, MARK, {"next_try_at": NOW}, True),
        (BAD, MARK, {"next_try_at": LATER}, True),
    ],
)
def test_a_platform_is_woken_for_marks_due_before_the_next_try(
    outcome: PushEnd, mark: PendingMark, how: Mapping[str, Any], *, wakes: bool
) -> None:
    assert settled(outcome, mark=mark, **how).wake == ({Platform.APNS} if wakes else set())


@pytest.mark.parametrize("outcome", EVERY_OUTCOME)
def test_a_deleted_registration_changes_nothing(outcome: PushEnd) -> None:
    assert settle([Settlement(PUSH, outcome)], {}, {}, NOW, PACING) == Settled([], [], [], [], [], frozenset())


@pytest.mark.parametrize("outcome", EVERY_OUTCOME)
@pytest.mark.parametrize("mark", [None, replace(MARK, first_at=BEGAN + SECOND)])
def test_a_mark_that_was_settled_meanwhile_stays_as_it_is(outcome: PushEnd, mark: PendingMark | None) -> None:
    result = settled(outcome, mark=mark)

    assert (result.done, result.kept) == ([], [])
    assert [update.last_outcome for update in result.updated] == [LastOutcome.of(outcome)]


# --- test pushes

TESTING = replace(PUSH, mark=Mark.TEST)


def after_test(
    outcome: PushEnd, mark: PendingMark = MARK, recipient: Recipient = ACTIVE, now: datetime = NOW
) -> Settled:
    return settled(outcome, recipient, mark, TESTING, now, next_try_at=LATER)


@pytest.mark.parametrize(
    ("outcome", "state", "reason", "channel", "tried_again"),
    [
        (Delivered(), PushTestState.DELIVERED, "", False, False),
        (GONE, PushTestState.REFUSED, "Unregistered", False, False),
        (TokenGone("410", BEGAN - SECOND), PushTestState.QUEUED, "410", False, True),
        (BAD, PushTestState.REFUSED, "BadDeviceToken", False, False),
        (SICK, PushTestState.REFUSED, "TopicDisallowed", True, False),
        (BUSY, PushTestState.QUEUED, "busy", False, True),
    ],
)
def test_the_answer_to_a_test_push_is_its_result(
    outcome: PushEnd, state: PushTestState, reason: str, channel: bool, tried_again: bool
) -> None:
    result = after_test(outcome)

    assert result.tests == [PushTestResult(PUSH.registration_id, state, reason, channel)]
    assert bool(result.kept) is tried_again


def test_a_test_push_is_tried_for_an_hour() -> None:
    young, old = (after_test(BUSY, now=BEGAN + age) for age in (TEST_LASTS - SECOND, TEST_LASTS))

    assert [result.tests[0].state for result in (young, old)] == [PushTestState.QUEUED, PushTestState.EXPIRED]
    assert (len(young.kept), old.done) == (1, [(PUSH.registration_id, Mark.TEST)])


@pytest.mark.parametrize("outcome", EVERY_OUTCOME)
def test_a_push_for_an_earlier_test_or_token_says_nothing_about_the_latest(outcome: PushEnd) -> None:
    fresh = replace(ACTIVE, device_token="fresh")

    if outcome is not GONE:
        assert (after_test(outcome, GREW).tests, len(after_test(outcome, GREW).kept)) == ([], 1)
    assert after_test(outcome, recipient=fresh).tests == []


@pytest.mark.parametrize("outcome", EVERY_OUTCOME)
def test_other_marks_have_no_results(outcome: PushEnd) -> None:
    assert settled(outcome).tests == []


@pytest.mark.parametrize(("outcome", "tried_again"), [(Delivered(), False), (BAD, False), (SICK, True), (BUSY, True)])
def test_a_challenge_ends_with_its_refusal_and_waits_for_a_faulty_channel(outcome: PushEnd, tried_again: bool) -> None:
    proving = replace(ACTIVE, state=RegistrationState.PROVING)

    result = settled(outcome, proving, push=replace(PUSH, mark=Mark.CHALLENGE), next_try_at=LATER)

    assert bool(result.kept) is tried_again
    assert (result.updated[0].quarantine is not None) is (outcome is BAD)
    assert result.tests == []


def test_a_token_that_is_gone_ends_a_proving_registration_too() -> None:
    proving = replace(ACTIVE, state=RegistrationState.PROVING)

    assert settled(GONE, proving, push=replace(PUSH, mark=Mark.CHALLENGE)).gone == [PUSH.registration_id]


def test_the_end_of_a_quarantine_wakes_the_platform_for_what_it_held_back() -> None:
    recipient = replace(ACTIVE, quarantine=Quarantine(BEGAN, "BadDeviceToken", "look", LATER))

    assert settled(Delivered(), recipient).wake == {Platform.APNS}
    assert settled(GONE, recipient).wake == set()


# --- another device token


@pytest.mark.parametrize(
    ("outcome", "other"),
    [
        *((outcome, {"device_token": "fresh"}) for outcome in (Delivered(), GONE, BAD)),
        *((outcome, {"environment": Environment.SANDBOX}) for outcome in (Delivered(), BAD)),
    ],
)
def test_a_token_replaced_during_the_push_gets_the_push_at_once(outcome: PushEnd, other: dict[str, Any]) -> None:
    quarantine = Quarantine(BEGAN, "BadDeviceToken", "look", NOW - SECOND)
    recipient = replace(ACTIVE, quarantine=quarantine, **other)

    result = settled(outcome, recipient, next_try_at=LATER)

    assert result.kept == [kept(attempts=0)]
    assert result.gone == []
    assert [update.quarantine for update in result.updated] == [quarantine]
    assert result.wake == {Platform.APNS}


@pytest.mark.parametrize("outcome", [BUSY, SICK])
def test_what_says_nothing_of_the_token_waits_whatever_the_token(outcome: PushEnd) -> None:
    result = settled(outcome, replace(ACTIVE, device_token="fresh"), next_try_at=LATER)

    assert result.kept == [kept(due_at=LATER, attempts=4)]


# --- a gone device token


@pytest.mark.parametrize("gone_since", [None, BEGAN, BEGAN + SECOND])
def test_a_gone_token_ends_the_registration_whose_it_is(gone_since: datetime | None) -> None:
    result = settled(TokenGone("Unregistered", gone_since))

    assert result.gone == [PUSH.registration_id]
    assert (result.done, result.kept) == ([], []), "all its marks go, those that were not pushed too"


@pytest.mark.parametrize("gone_since", [None, BEGAN])
def test_a_token_that_is_gone_in_one_environment_is_gone(gone_since: datetime | None) -> None:
    recipient = replace(ACTIVE, environment=Environment.SANDBOX)

    assert settled(TokenGone("Unregistered", gone_since), recipient).gone == [recipient.id]


def test_a_token_registered_after_the_410s_timestamp_is_still_good() -> None:
    assert settled(TokenGone("Unregistered", BEGAN - SECOND)).gone == []


def test_a_token_that_the_app_has_sent_again_since_the_push_was_claimed_is_still_good() -> None:
    # A FID stays the same when the app registers with FCM again.
    result = settled(GONE, replace(ACTIVE, token_since=PUSH.token_since + SECOND))

    assert result.gone == []
    assert [each.due_at for each in result.kept] == [NOW + STALE_GONE], "the mark is pushed to it again"


# --- a wiped registration


@pytest.mark.parametrize(
    ("outcome", "mark", "now", "forgotten"),
    [
        (Delivered(), Mark.ATTENTION, NOW, False),
        (Delivered(), Mark.EMAIL, NOW, False),
        (GONE, Mark.ATTENTION, NOW, True),
        (GONE, Mark.EMAIL, NOW, True),
        (BUSY, Mark.ATTENTION, BEGAN + FAREWELL - SECOND, False),
        (BUSY, Mark.ATTENTION, BEGAN + FAREWELL, True),
        (BAD, Mark.ATTENTION, BEGAN + FAREWELL - SECOND, False),
        (BAD, Mark.ATTENTION, BEGAN + FAREWELL, True),
    ],
)
def test_a_wiped_registration_gets_no_more_pushes_when_it_cannot_be_told(
    outcome: PushEnd, mark: Mark, now: datetime, *, forgotten: bool
) -> None:
    result = settled(outcome, WIPED, push=replace(PUSH, mark=mark), now=now)

    assert result.forgotten == ([WIPED.id] if forgotten else [])
    assert result.gone == []
    assert bool(result.done or result.kept) is not forgotten


def test_a_wiped_registration_whose_token_is_refused_gets_no_quarantine_but_waits() -> None:
    result = settled(BAD, WIPED, push=replace(PUSH, mark=Mark.ATTENTION), next_try_at=LATER)

    assert [update.quarantine for update in result.updated] == [None]
    assert [(update.due_at, update.attempts) for update in result.kept] == [(LATER, 4)]


# --- what the registration notes


@pytest.mark.parametrize("outcome", EVERY_OUTCOME)
def test_the_registration_notes_the_outcome(outcome: PushEnd) -> None:
    (update,) = settled(outcome).updated

    assert update.last_outcome == LastOutcome.of(outcome)


def test_a_delivery_is_noted_for_its_class() -> None:
    recipient = replace(ACTIVE, pushed={"email": 1.0, "tasks": 2.0})

    assert settled(Delivered(), recipient).updated == [
        RegistrationUpdate(ACTIVE.id, {"email": SENT, "tasks": 2.0}, None, DELIVERED, NOW)
    ]
    assert settled(BUSY, recipient).updated == [
        RegistrationUpdate(ACTIVE.id, recipient.pushed, None, LastOutcome.of(BUSY), None)
    ]


def test_several_outcomes_of_one_registration_add_up_to_one_update() -> None:
    tasks = replace(PUSH, mark=Mark.TASKS)
    other = due_push(2)
    recipients = {ACTIVE.id: ACTIVE, other.registration_id: replace(ACTIVE, id=other.registration_id)}
    ends: list[tuple[DuePush, Outcome]] = [(other, BUSY), (tasks, Delivered()), (PUSH, Delivered()), (PUSH, BUSY)]

    result = settle([Settlement(push, outcome) for push, outcome in ends], recipients, {}, NOW, PACING)

    assert result.updated == [
        RegistrationUpdate(ACTIVE.id, {"tasks": SENT, "email": SENT}, None, LastOutcome.of(BUSY), NOW),
        RegistrationUpdate(other.registration_id, {}, None, LastOutcome.of(BUSY), None),
    ]


def test_the_marks_of_a_group_are_in_the_order_of_their_keys() -> None:
    pushes = [due_push(number, mark=mark) for number in (3, 1, 2) for mark in (Mark.TASKS, Mark.EMAIL)]
    recipients = {push.registration_id: replace(ACTIVE, id=push.registration_id) for push in pushes}
    marks = {(push.registration_id, push.mark): MARK for push in pushes}

    for outcome in (BUSY, SICK):
        settlements = [Settlement(push, outcome, LATER) for push in pushes]
        found = [(each.registration_id, each.mark) for each in settle(settlements, recipients, marks, NOW, PACING).kept]
        assert found == sorted(marks)


# --- quarantine


def test_a_refused_token_begins_a_quarantine_of_an_hour() -> None:
    (update,) = settled(BAD).updated

    assert update.quarantine == Quarantine(NOW, "BadDeviceToken", "compare the environment", NOW + HOUR, 1, NOW)


@pytest.mark.parametrize(("recheck_at", "lengthened"), [(NOW, True), (NOW + SECOND, False)])
def test_only_a_refused_re_check_lengthens_a_quarantine(recheck_at: datetime, *, lengthened: bool) -> None:
    before = Quarantine(BEGAN, "Old", "old", recheck_at, rechecks=2)

    (update,) = settled(BAD, replace(ACTIVE, quarantine=before)).updated

    after = Quarantine(BEGAN, "BadDeviceToken", "compare the environment", NOW + 4 * HOUR, 3, NOW)
    assert update.quarantine == (after if lengthened else before)


def test_a_refused_trial_ends_what_a_wrong_clock_noted() -> None:
    ahead = NOW + 24 * HOUR
    before = Quarantine(ahead, "Old", "old", ahead + HOUR, 1, ahead)

    (update,) = settled(BAD, replace(ACTIVE, quarantine=before)).updated

    assert update.quarantine == Quarantine(NOW, "BadDeviceToken", "compare the environment", NOW + 2 * HOUR, 2, NOW)


@pytest.mark.parametrize(("outcome", "ends"), [(Delivered(), True), (GONE, True), (BUSY, False), (SICK, False)])
def test_a_push_that_shows_the_token_good_or_gone_ends_the_quarantine(outcome: PushEnd, *, ends: bool) -> None:
    before = Quarantine(BEGAN, "BadDeviceToken", "look", BEGAN, rechecks=5)

    (update,) = settled(outcome, replace(ACTIVE, quarantine=before)).updated

    assert update.quarantine == (None if ends else before)


def test_two_refusals_in_one_group_are_one_re_check() -> None:
    other = replace(PUSH, mark=Mark.TASKS)

    (update,) = settle([Settlement(PUSH, BAD), Settlement(other, BAD)], {ACTIVE.id: ACTIVE}, {}, NOW, PACING).updated

    assert update.quarantine is not None
    assert update.quarantine.rechecks == 1


# --- what is locked first, and expiry


def test_registrations_that_may_end_are_those_whose_token_is_gone() -> None:
    settlements = [
        Settlement(due_push(4, mark=Mark.ATTENTION), GONE),
        Settlement(due_push(5, mark=Mark.ATTENTION), BUSY),
        Settlement(due_push(3), GONE),
        Settlement(due_push(3, mark=Mark.TASKS), GONE),
        Settlement(due_push(1), Delivered()),
        Settlement(due_push(2), BAD),
    ]

    assert may_end_registrations(settlements) == ["registration-3", "registration-4"]


@pytest.mark.parametrize("state", [RegistrationState.VERIFYING, RegistrationState.REFUSED])
def test_a_registration_that_is_not_proved_does_not_lose_its_token_so_that_no_new_one_makes_it_active(
    state: RegistrationState,
) -> None:
    assert settled(GONE, replace(ACTIVE, state=state)).gone == []
