import pytest

from relay.domain.model import Platform
from relay.domain.outcome import Delivered, Outcome, OutcomeKind, Reach, Refused, RetryLater, TokenGone
from relay.push.breaker import IN_A_ROW, ProviderBreakers
from relay.push.outcomes import OutcomeHandler
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


class Court:
    """Judge pushes of one app that end one after the other."""

    def __init__(self) -> None:
        self.stats = PushStats()
        self.breakers = ProviderBreakers(10, MIDDLE)
        self.now = 100.0
        self._judge = OutcomeHandler(Platform.APNS, self.breakers, self.stats, lambda: BEGAN, MIDDLE, lambda: self.now)

    def hear(self, outcome: Outcome) -> float | None:
        """End one push; return how many seconds its mark waits, None if it is not tried again."""
        push = due_push()
        self.breakers.began(push, self.now)
        self.breakers.ended(push)
        self.settlement = self._judge.handle(push, outcome)
        again = self.settlement.next_try_at
        return None if again is None else (again - BEGAN).total_seconds()

    @property
    def away(self) -> bool:
        return self.breakers.environment(due_push()).away

    @property
    def sick(self) -> bool:
        return bool(self.stats.faults) and self.breakers.channel(due_push()).away


@pytest.mark.parametrize("answer", [Delivered(), TokenGone("Unregistered"), BUSY, BAD, STRANGE])
def test_whatever_the_provider_says_of_one_push_shows_that_it_serves(answer: Outcome) -> None:
    court = Court()
    for _ in range(2):
        for _ in range(IN_A_ROW - 1):
            court.hear(AWAY)
        court.hear(answer)
    assert not court.away

    for _ in range(IN_A_ROW):
        court.hear(AWAY)
    assert court.away
    court.now += 60.0
    court.hear(answer)
    assert not court.away
    assert court.stats.outage is None


@pytest.mark.parametrize("silence", [CUT, RESTS, UNKNOWN])
def test_what_the_provider_did_not_say_shows_nothing_of_it(silence: Outcome) -> None:
    court = Court()
    for _ in range(IN_A_ROW - 1):
        court.hear(AWAY)
    court.hear(silence)
    court.hear(AWAY)
    assert court.away

    court.now += 60.0
    court.hear(silence)
    assert court.away
    assert court.breakers.environment(due_push()).capacity(0, court.now) == 1, "the next push probes"


def test_a_channel_fault_that_the_provider_told_of_shows_that_it_serves_and_one_on_the_way_to_it_does_not() -> None:
    court = Court()
    for _ in range(IN_A_ROW):
        court.hear(AWAY)
    court.now += 60.0

    court.hear(DENIED)
    assert court.away
    assert court.stats.outage is not None
    assert court.sick
    assert court.breakers.environment(due_push()).capacity(0, court.now) == 1, "the next push probes"

    court.hear(SICK)
    assert not court.away


@pytest.mark.parametrize("answer", [Delivered(), TokenGone("Unregistered"), BAD])
def test_who_looks_at_the_token_has_taken_us_and_the_channel_works(answer: Outcome) -> None:
    court = Court()
    court.hear(SICK)
    court.now += 60.0

    court.hear(answer)

    assert not court.sick
    assert court.stats.fault is None


@pytest.mark.parametrize("answer", [BUSY, CUT, RESTS, STRANGE, UNKNOWN, AWAY])
def test_other_answers_leave_the_channel_to_the_next_push(answer: Outcome) -> None:
    court = Court()
    court.hear(SICK)
    court.now += 60.0

    court.hear(answer)

    assert court.sick
    assert court.breakers.channel(due_push()).capacity(0, court.now) == 1


def test_what_was_held_back_waits_as_long_as_the_rest_and_counts_as_no_try() -> None:
    court = Court()

    assert court.hear(RESTS) == 30.0
    assert not court.settlement.counted
    assert court.stats.outcomes == {}


def test_what_was_tried_counts() -> None:
    court = Court()

    assert court.hear(RetryLater("http-429", 30.0)) == pytest.approx(32.0)  # 5 % and half a second more
    assert court.settlement.counted
    assert court.stats.outcomes == {OutcomeKind.RETRY_LATER: 1}


def test_pushes_that_went_with_less_priority_are_counted() -> None:
    court = Court()
    for outcome in (Delivered(), Delivered("x", lowered=True), Delivered("y", lowered=True)):
        court.hear(outcome)

    assert court.stats.lowered == 2
    assert court.stats.outcomes == {OutcomeKind.DELIVERED: 3}
