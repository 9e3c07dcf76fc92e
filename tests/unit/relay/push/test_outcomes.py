from typing import Any

import pytest

from relay.domain.model import Platform
from relay.domain.outcome import (
    Delivered,
    Outcome,
    OutcomeKind,
    PushEnd,
    Reach,
    Refused,
    RetryLater,
    Shadowed,
    TokenGone,
)
from relay.push import backoff
from relay.push.breaker import IN_A_ROW, ProviderBreakers
from relay.push.outcomes import BROKEN, PARKED, TRIES, OutcomeHandler
from relay.push.stats import PushStats
from tests.unit.relay.push.pushes import BEGAN, due_push
from tests.unit.relay.push.test_backoff import MIDDLE

AWAY = RetryLater("timed-out", provider=True)
SICK = Refused("TopicDisallowed", "allow the topic", channel=True)
BUSY = RetryLater("TooManyRequests", reach=Reach.ANSWERED)
CUT = RetryLater("stream-reset: INTERNAL_ERROR")
RESTS = RetryLater("push-service-rests: timed-out", 30.0, reach=Reach.HERE)
BAD = Refused("BadDeviceToken", "compare the environment", reach=Reach.CHECKED)
DENIED = Refused("proxy-authentication-required", "set it", channel=True, reach=Reach.UNANSWERED)
STRANGE = Refused("NewReason", "report it")
UNKNOWN = Refused("topic-not-configured", "add it", reach=Reach.HERE)


class Handling:
    """Pushes of one app that end one after the other."""

    def __init__(self) -> None:
        self.stats = PushStats()
        self.breakers = ProviderBreakers(10, MIDDLE)
        self.now = 100.0
        self._handler = OutcomeHandler(
            Platform.APNS, self.breakers, self.stats, lambda: BEGAN, MIDDLE, lambda: self.now
        )

    def end(self, outcome: PushEnd, **changes: Any) -> float | None:
        """End one push; return how many seconds its mark waits, None if it is not tried again."""
        push = due_push(**changes)
        self.breakers.began(push, self.now)
        self.breakers.ended(push)
        self.settlement = self._handler.handle(push, outcome)
        again = self.settlement.next_try_at
        return None if again is None else (again - BEGAN).total_seconds()

    @property
    def away(self) -> bool:
        return self.breakers.environment(due_push()).away

    @property
    def sick(self) -> bool:
        return bool(self.stats.faults) and self.breakers.channel(due_push()).away


@pytest.mark.parametrize("answer", [Delivered(), TokenGone("Unregistered"), BUSY, BAD, STRANGE])
def test_any_answer_to_one_push_shows_that_the_provider_serves(answer: Outcome) -> None:
    handling = Handling()
    for _ in range(2):
        for _ in range(IN_A_ROW - 1):
            handling.end(AWAY)
        handling.end(answer)
    assert not handling.away

    for _ in range(IN_A_ROW):
        handling.end(AWAY)
    assert handling.away
    handling.now += 60.0
    handling.end(answer)
    assert not handling.away
    assert handling.stats.outage is None


@pytest.mark.parametrize("silence", [CUT, RESTS, UNKNOWN])
def test_a_push_without_an_answer_shows_nothing_of_the_provider(silence: Outcome) -> None:
    handling = Handling()
    for _ in range(IN_A_ROW - 1):
        handling.end(AWAY)
    handling.end(silence)
    handling.end(AWAY)
    assert handling.away

    handling.now += 60.0
    handling.end(silence)
    assert handling.away
    assert handling.breakers.environment(due_push()).capacity(0, handling.now) == 1, "the next push probes"


def test_a_channel_fault_in_an_answer_shows_that_the_provider_serves_and_one_on_the_way_to_it_does_not() -> None:
    handling = Handling()
    for _ in range(IN_A_ROW):
        handling.end(AWAY)
    handling.now += 60.0

    handling.end(DENIED)
    assert handling.away
    assert handling.stats.outage is not None
    assert handling.sick
    assert handling.breakers.environment(due_push()).capacity(0, handling.now) == 1, "the next push probes"

    handling.end(SICK)
    assert not handling.away


@pytest.mark.parametrize("answer", [Delivered(), TokenGone("Unregistered"), BAD])
def test_an_answer_about_the_token_shows_that_the_channel_works(answer: Outcome) -> None:
    handling = Handling()
    handling.end(SICK)
    handling.now += 60.0

    handling.end(answer)

    assert not handling.sick
    assert handling.stats.fault is None


@pytest.mark.parametrize("answer", [BUSY, CUT, RESTS, STRANGE, UNKNOWN, AWAY])
def test_other_answers_leave_the_channel_to_the_next_push(answer: Outcome) -> None:
    handling = Handling()
    handling.end(SICK)
    handling.now += 60.0

    handling.end(answer)

    assert handling.sick
    assert handling.breakers.channel(due_push()).capacity(0, handling.now) == 1


def test_what_was_held_back_waits_as_long_as_the_rest_and_counts_as_no_try() -> None:
    handling = Handling()

    assert handling.end(RESTS) == 30.0
    assert not handling.settlement.counted
    assert handling.stats.outcomes == {}


def test_what_was_tried_counts() -> None:
    handling = Handling()

    assert handling.end(RetryLater("http-429", 30.0)) == pytest.approx(32.0)  # 5 % and half a second more
    assert handling.settlement.counted
    assert handling.stats.outcomes == {OutcomeKind.RETRY_LATER: 1}


@pytest.mark.parametrize(("attempts", "parked"), [(TRIES - 2, ""), (TRIES - 1, "internal-error")])
def test_a_push_that_breaks_its_sender_at_the_fifth_try_is_parked_for_an_hour(attempts: int, parked: str) -> None:
    handling = Handling()

    seconds = handling.end(BROKEN, attempts=attempts)

    assert handling.settlement.parked == parked
    assert seconds == (PARKED if parked else backoff.retry(attempts + 1, MIDDLE))


def test_pushes_that_went_with_less_priority_are_counted() -> None:
    handling = Handling()
    for outcome in (Delivered(), Delivered("x", lowered=True), Delivered("y", lowered=True)):
        handling.end(outcome)

    assert handling.stats.lowered == 2
    assert handling.stats.outcomes == {OutcomeKind.DELIVERED: 3}


def test_a_push_that_shadow_mode_held_back_shows_nothing_of_the_provider() -> None:
    handling = Handling()
    for _ in range(IN_A_ROW):
        handling.end(AWAY)
    assert handling.end(Shadowed()) is None

    assert handling.away
    assert handling.stats.shadowed == 1
    assert OutcomeKind.SHADOWED not in handling.stats.outcomes


def test_shadow_mode_uses_no_channel() -> None:
    handling = Handling()
    handling.end(Shadowed())

    assert handling.stats.channels == set()
