from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from eas_watcher.machine.memory import Change, Condition, Progress, WatchState
from eas_watcher.names import CollectionClass, MailboxId
from eas_watcher.reasons import Reason
from relay.domain.model import Mark, Mode, RegistrationChange, RegistrationId, RegistrationView
from relay.domain.outcome import Delivered, Outcome, Reach, Refused, RetryLater, Shadowed, TokenGone
from relay.domain.receipts import PushId, Receipt
from relay.domain.timeline import (
    CHANNEL,
    HELD,
    LONGEST,
    MANY,
    PER_HOUR,
    STRANGERS,
    Denial,
    Event,
    EventKind,
    Timeline,
    clean,
)
from tests.fakes import records
from tests.unit.relay.push.pushes import due_push

NOW: Final = datetime(2026, 11, 29, 14, 5, tzinfo=UTC)
ANN: Final = MailboxId("mb-ann")
VIEW: Final = RegistrationView(
    records.registration(), records.mailbox(), candidate_pending=False, candidate_refused=False
)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timeline(clock: Clock) -> Timeline:
    return Timeline(clock, account_of=lambda user: f"hash of {user}")


def kinds(timeline: Timeline) -> list[str]:
    return [each.event.kind for each in timeline.take()]


def states(timeline: Timeline, *conditions: Condition) -> list[tuple[str, str]]:
    for condition in conditions:
        timeline.progressed(ANN, Progress(condition=condition))
    return [(each.event.what, each.event.code) for each in timeline.take()]


def test_it_says_once_that_many_events_wait() -> None:
    called: list[int] = []
    timeline = Timeline(lambda: NOW)
    timeline.on_many = lambda: called.append(len(called))
    for number in range(MANY - 1):
        timeline.note(Event("state", f"mb-{number}"))
    assert called == []

    timeline.note(Event("state", "mb-last"))
    timeline.note(Event("state", "mb-last"))
    timeline.note(Event("state", "mb-more"))

    assert called == [0]
    assert len(timeline.take()) == MANY + 1


def test_it_says_that_many_events_wait_if_the_last_of_them_is_the_note_that_more_came() -> None:
    called: list[int] = []
    timeline = Timeline(lambda: NOW)
    timeline.on_many = lambda: called.append(len(called))
    for number in range(PER_HOUR):
        timeline.note(Event("state", ANN, what=f"{number}"))
    for number in range(MANY - 1 - PER_HOUR):
        timeline.note(Event("state", f"mb-{number}"))

    timeline.note(Event("state", ANN, what="more"))

    assert called == [0]


def test_events_that_come_together_add_up_and_keep_the_first_moment(timeline: Timeline, clock: Clock) -> None:
    timeline.progressed(ANN, Progress(changes=(Change(CollectionClass.EMAIL, 2),)))
    clock.now += timedelta(seconds=1)
    timeline.progressed(ANN, Progress(changes=(Change(CollectionClass.EMAIL, 3), Change(CollectionClass.TASKS, 1))))

    mail, task = timeline.take()

    assert (mail.at, mail.event.what, mail.count) == (NOW, "email", 5)
    assert (task.at, task.event.what, task.count) == (clock.now, "tasks", 1)
    assert timeline.take() == []


def test_items_that_are_inferred_are_told_apart(timeline: Timeline) -> None:
    timeline.progressed(ANN, Progress(changes=(Change(CollectionClass.EMAIL, 1, certain=False),)))

    assert [each.event.result for each in timeline.take()] == ["uncertain"]


def test_only_changes_of_the_state_are_noted(timeline: Timeline) -> None:
    away = Condition(WatchState.WAITING, Reason.UNREACHABLE, detail="names a host")
    well = Condition(WatchState.WATCHING)

    assert states(timeline, well, away, away, well) == [("watching", ""), ("waiting", "unreachable")]
    assert states(timeline, away) == [("waiting", "unreachable")]
    assert states(timeline, away) == []
    timeline.left(ANN)
    assert states(timeline, away) == [("waiting", "unreachable")], "another process may have had it meanwhile"


@pytest.mark.parametrize(
    ("outcome", "result", "code"),
    [
        (Delivered("id"), "delivered", ""),
        (TokenGone("Unregistered"), "token-gone", "Unregistered"),
        (RetryLater("http-503", reach=Reach.ANSWERED), "retry-later", "http-503"),
        (Refused("BadDeviceToken", "mend it"), "refused", "BadDeviceToken"),
        (Refused("TopicDisallowed", "mend it", channel=True), CHANNEL, "TopicDisallowed"),
    ],
)
def test_the_answer_of_a_provider_is_noted(timeline: Timeline, outcome: Outcome, result: str, code: str) -> None:
    timeline.pushed(due_push(), outcome)

    (noted,) = timeline.take()
    assert noted.event == Event(
        EventKind.PUSHED, registration_id="registration-1", what="email", through="apns", result=result, code=code
    )
    assert noted.count == 2


def test_a_push_that_was_not_sent_has_no_answer(timeline: Timeline) -> None:
    timeline.pushed(due_push(), RetryLater("push-service-rests", reach=Reach.HERE))

    assert timeline.take() == []


def test_a_push_that_shadow_mode_held_back_is_an_event(timeline: Timeline) -> None:
    timeline.pushed(due_push(), Shadowed())

    [held] = timeline.take()
    assert (held.event.kind, held.event.result, held.event.code) == (EventKind.PUSHED, "shadowed", "")


def test_a_push_that_an_app_showed_has_its_own_moment(timeline: Timeline, clock: Clock) -> None:
    own, push = VIEW.registration, PushId.of(Mark.EMAIL, clock(), 1)
    at = clock() - timedelta(seconds=7)
    timeline.shown(own, Receipt(push, at))

    [shown] = timeline.take()
    assert shown.at == at
    assert shown.event == Event("shown", own.mailbox_id, own.id, what="email", through="apns", code=push.text)


def test_a_code_of_a_provider_is_cut_and_has_no_strange_characters() -> None:
    assert clean("BadDeviceToken") == "BadDeviceToken"
    assert clean("a\nb<script>\x1b[2J") == "a?b?script???2J"
    assert len(clean("x" * 1000)) == LONGEST


def test_what_apps_do_is_noted_without_values(timeline: Timeline) -> None:
    own, mailbox = VIEW.registration, VIEW.mailbox
    timeline.registered(VIEW, "accepted", "hash")
    timeline.changed(own, RegistrationChange(device_token="canary", mode=Mode.BACKGROUND))
    timeline.changed(own, RegistrationChange())
    timeline.denied("hash", Denial.CREDENTIAL, VIEW, "new credential")
    timeline.denied("hash", Denial.TOO_MANY)
    timeline.of_registration(EventKind.ASKED, mailbox.id, own.id, Mark.TEST.value)
    timeline.forgotten(mailbox.id, mailbox.user)

    registered, changed, denied, stranger, asked, forgotten = (each.event for each in timeline.take())

    assert registered == Event("registered", mailbox.id, own.id, "hash", through="apns", result="accepted")
    assert changed == Event("changed", mailbox.id, own.id, what="device_token,mode")
    assert denied == Event("denied", mailbox.id, own.id, "hash", what="new credential", code="credential")
    assert stranger == Event("denied", account="hash", code="too-many-refusals")
    assert asked == Event("asked", mailbox.id, own.id, what="test")
    assert forgotten == Event("forgotten", mailbox.id, account="hash of ann@example.com")


def note_all(timeline: Timeline, events: Iterable[Event]) -> None:
    for event in events:
        timeline.note(event)


def test_one_mailbox_has_a_quota_for_each_hour(timeline: Timeline, clock: Clock) -> None:
    many = [Event("state", ANN, what=f"{number}") for number in range(PER_HOUR + 5)]
    note_all(timeline, many)
    note_all(timeline, [Event("state", MailboxId("mb-ben"))])

    noted = timeline.take()

    assert len(noted) == PER_HOUR + 2
    assert noted[PER_HOUR].event == Event(EventKind.OMITTED, ANN)
    assert noted[-1].event.mailbox_id == "mb-ben"
    clock.now += timedelta(hours=1)
    note_all(timeline, many[:1])
    assert kinds(timeline) == ["state"]


def test_a_clock_that_jumps_back_leaves_no_quota_used_up_for_long(timeline: Timeline, clock: Clock) -> None:
    note_all(timeline, (Event("state", ANN, what=f"{number}") for number in range(PER_HOUR + 5)))
    timeline.take()

    clock.now -= timedelta(days=1)
    note_all(timeline, [Event("state", ANN)])

    assert kinds(timeline) == ["state"]


def test_strangers_have_one_quota_together(timeline: Timeline) -> None:
    for number in range(STRANGERS + 5):
        timeline.denied(f"hash {number}", Denial.CREDENTIAL)
        if number % 1000 == 0:
            timeline.take()

    assert len(timeline.take()) <= STRANGERS
    timeline.denied("one more", Denial.CREDENTIAL)
    assert timeline.take() == []


def test_memory_is_bounded(timeline: Timeline) -> None:
    note_all(timeline, (Event("state", f"mb-{number}") for number in range(HELD + 3)))

    assert len(timeline.take()) == HELD
    assert timeline.dropped == 3


def test_a_timeline_that_is_off_notes_nothing() -> None:
    off = Timeline.off()
    off.progressed(ANN, Progress(changes=(Change(CollectionClass.EMAIL, 1),)))
    off.pushed(due_push(), Delivered())
    off.of_registration(EventKind.PROVED, ANN, RegistrationId("reg"))

    assert off.take() == []
    assert off.account_of("ann") == ""
