import pytest

from eas_watcher.breaker import Away, Breaker, Failure, Returning, Rules, Serving, State, Turn
from relay.domain.model import DuePush, Environment, Lane
from relay.domain.ports.outbox import Capacity
from relay.push.breaker import (
    CHANNEL,
    FIRST_SLOTS,
    IN_A_ROW,
    LASTING,
    REMEMBERED,
    SERVICE,
    LaneBreaker,
    Plan,
    ProviderBreakers,
    Witnesses,
    environment_rules,
)
from tests.unit.relay.push.pushes import due_push
from tests.unit.relay.push.test_backoff import MIDDLE

APP = "com.example.mail"
PRODUCTION = Lane(Environment.PRODUCTION)
MAIL = Lane(Environment.PRODUCTION, APP)
LOST = Failure("timed-out")
FAULT = Failure("TopicDisallowed", certain=True)
SLOTS = 10


@pytest.mark.parametrize(
    ("rules", "failures", "after"),
    [
        pytest.param(environment_rules(SLOTS), [(0.0, None)] * IN_A_ROW, Away("timed-out", 2.0, 1), id="in a row"),
        pytest.param(
            environment_rules(SLOTS),
            [(0.0, None), (LASTING, None)],
            Away("timed-out", 12.0, 1),
            id="two that take their time",
        ),
        pytest.param(CHANNEL, [(0.0, None)], Away("timed-out", 30.0, 1), id="a channel"),
        pytest.param(SERVICE, [(0.0, "ann"), (9.0, "ben"), (99.0, "eve")], Away("timed-out", 101.0, 1), id="a service"),
    ],
)
def test_each_kind_of_lane_has_its_rules(rules: Rules, failures: list[tuple[float, str | None]], after: State) -> None:
    breaker = Breaker(rules)
    for now, source in failures:
        assert isinstance(breaker.state, Serving)
        breaker = breaker.failed(source, LOST, now, MIDDLE)

    assert breaker.state == after


def test_a_lane_is_calm_unless_it_has_a_failure_or_a_probe() -> None:
    lane, probe = LaneBreaker(environment_rules(2), MIDDLE), due_push(9)
    assert lane.calm
    lane.failed(due_push(1), None, LOST, 0.0)
    assert not lane.calm
    lane.answered(due_push(2), 0.0)
    assert lane.calm

    lane.failed(due_push(1), None, Failure(certain=True), 0.0)
    assert not lane.calm
    assert lane.began(probe, 100.0) is Turn.PROBES
    lane.answered(due_push(2), 100.0)
    assert lane.serves
    assert not lane.calm  # the probe is still under way
    lane.answered(probe, 100.0)
    assert lane.calm


@pytest.mark.parametrize(
    ("rules", "after"),
    [(environment_rules(SLOTS), Returning(1, slots=FIRST_SLOTS)), (CHANNEL, Serving()), (SERVICE, Serving())],
)
def test_any_answer_ends_the_absence_of_a_lane(rules: Rules, after: State) -> None:
    assert Breaker(rules, Away("x", 1000.0, 1)).answered(1.0).state == after


def absent(now: float = 100.0, rules: Rules = CHANNEL) -> LaneBreaker:
    """Return the breaker of a lane that has just gone away."""
    lane = LaneBreaker(rules, MIDDLE)
    assert lane.failed("first", None, FAULT, now)
    return lane


def test_a_lane_without_a_failure_serves() -> None:
    lane = LaneBreaker(CHANNEL, MIDDLE)

    assert lane.began("push", 0.0) is Turn.PASSES
    lane.undecided("push", 0.0)
    assert not lane.answered("push", 0.0)
    assert (lane.away, lane.detail, lane.due(), lane.capacity(0, 0.0)) == (False, "", None, None)


def test_one_push_probes_a_lane_while_the_others_wait() -> None:
    lane = absent(100.0)
    assert (lane.away, lane.detail, lane.due(), lane.capacity(0, 129.9)) == (True, "TopicDisallowed", 130.0, 0)
    assert lane.began("early", 129.9) is Turn.WAITS

    assert lane.capacity(0, 130.0) == 1
    assert lane.began("probe", 130.0) is Turn.PROBES
    assert (lane.capacity(0, 130.0), lane.due()) == (0, None)
    assert lane.began("other", 130.0) is Turn.WAITS


def test_a_probe_that_fails_makes_the_next_one_wait_longer() -> None:
    lane = absent(100.0)
    lane.began("probe", 130.0)

    assert lane.failed("probe", None, FAULT, 131.0)

    assert (lane.due(), lane.capacity(0, 190.0), lane.capacity(0, 191.0)) == (191.0, 0, 1)


def test_pushes_that_were_under_way_delay_no_probe_and_take_no_turn_of_it() -> None:
    lane = absent(100.0)
    lane.began("late", 100.5)  # claimed before the fault was known

    assert not lane.failed("late", "ann", FAULT, 110.0)
    lane.undecided("later", 110.0)
    assert lane.due() == 130.0

    lane.began("probe", 130.0)
    assert not lane.failed("latest", "ann", FAULT, 130.5)
    lane.undecided("latest", 130.5)
    assert lane.capacity(0, 131.0) == 0, "the probe is still under way"


def test_a_probe_that_shows_nothing_hands_its_turn_on() -> None:
    lane = absent(100.0)
    lane.began("probe", 130.0)

    lane.undecided("probe", 131.0)

    assert lane.began("next", 131.0) is Turn.PROBES


@pytest.mark.parametrize("push", ["probe", "of before"])
def test_any_push_that_is_answered_ends_an_absence_once(push: str) -> None:
    lane = absent(100.0)
    lane.began("probe", 130.0)

    assert lane.answered(push, 131.0)
    assert not lane.answered("next", 131.0)

    assert not lane.away
    assert lane.failed("next", None, FAULT, 132.0)
    assert lane.due() == 162.0, "it starts with the shortest wait again"


def test_the_end_of_an_earlier_absences_probe_is_that_of_any_push() -> None:
    lane = absent(100.0)
    lane.began("old", 130.0)
    lane.answered("of before", 131.0)
    lane.failed("next", None, FAULT, 132.0)

    lane.undecided("old", 133.0)
    assert lane.due() == 162.0

    lane.began("new", 162.0)
    assert not lane.failed("old", "ann", FAULT, 163.0)
    lane.undecided("old", 163.0)
    assert lane.capacity(0, 164.0) == 0


def test_news_of_a_remedy_ends_the_wait_but_not_its_memory() -> None:
    lane = absent(100.0)

    lane.hurry(101.0)

    assert lane.began("probe", 101.0) is Turn.PROBES
    lane.failed("probe", None, FAULT, 102.0)
    assert lane.due() == 162.0


def test_what_others_answers_contradict_is_counted_until_the_source_is_answered_itself() -> None:
    witnesses = Witnesses()
    assert [witnesses.failed("ann") for _ in range(3)] == [0, 0, 0]
    witnesses.answered("ben")
    assert [witnesses.failed("ann"), witnesses.failed("eve"), witnesses.failed("ann")] == [1, 0, 2]
    assert "ann" in witnesses

    witnesses.answered("ann")

    assert "ann" not in witnesses
    assert witnesses.failed("ann") == 0


def test_the_number_of_remembered_phones_is_limited() -> None:
    witnesses = Witnesses()
    for number in range(REMEMBERED + 1):
        witnesses.failed(number)

    assert 0 not in witnesses
    assert 1 in witnesses


def test_a_failure_that_phones_may_cause_needs_several_that_agree() -> None:
    lane = LaneBreaker(environment_rules(SLOTS), MIDDLE)

    assert not any(lane.failed(number, phone, LOST, 0.0) for number in range(20) for phone in ("ann", "ben"))
    assert lane.failed("last", "eve", LOST, 0.0)


def test_pushes_that_failed_before_have_a_turn_of_their_own() -> None:
    lane, place = LaneBreaker(SERVICE, MIDDLE), Lane(Environment.PRODUCTION, service="a")
    for phone in ("ann", "ben", "eve"):
        lane.failed(phone, phone, LOST, 0.0)
    again, others = (Lane(Environment.PRODUCTION, service="a", retried=retried) for retried in (True, False))
    assert lane.began("retry", 2.0, retried=True) is Turn.PROBES
    assert list(lane.capacities(place, 0, 2.0)) == [Capacity(others, 1), Capacity(again, 0)]

    lane.undecided("retry", 2.0)
    assert lane.began("retry", 2.0, retried=True) is Turn.PROBES
    assert lane.failed("retry", "ann", LOST, 2.0)
    assert list(lane.capacities(place, 0, 2.0)) == [Capacity(others, 1), Capacity(again, 0, 6.0)]
    lane.hurry(3.0)
    assert [each.slots for each in lane.capacities(place, 0, 3.0)] == [1, 1]

    assert lane.answered("retry", 3.0)
    assert list(lane.capacities(place, 0, 3.0)) == []


def fail(breakers: ProviderBreakers, now: float, push: DuePush | None = None) -> ProviderBreakers:
    """Let the environment of a push go away."""
    push = push or due_push()
    for _ in range(IN_A_ROW):
        breakers.environment(push).failed(push, None, LOST, now)
    return breakers


def fault(breakers: ProviderBreakers, now: float, push: DuePush | None = None) -> ProviderBreakers:
    """Let the channel of a push go away."""
    push = push or due_push()
    breakers.channel(push).failed(push, None, FAULT, now)
    return breakers


def provider() -> ProviderBreakers:
    return ProviderBreakers(SLOTS, MIDDLE)


def test_nothing_is_blocked_while_all_serve() -> None:
    assert provider().plan(0.0) == Plan(frozenset(), (), None)


def test_an_environment_that_is_away_is_blocked_until_one_push_may_try() -> None:
    breakers = fail(provider(), 100.0)

    assert breakers.plan(101.0) == Plan(frozenset({PRODUCTION}), (), 102.0)
    assert breakers.plan(102.0) == Plan(frozenset(), ((PRODUCTION, 1),), None)
    breakers.began(due_push(), 102.0)
    assert breakers.plan(102.0) == Plan(frozenset({PRODUCTION}), (), None)


def test_while_pushes_return_those_under_way_count() -> None:
    breakers, pushes = fail(provider(), 100.0), [due_push(number) for number in range(4)]
    breakers.began(pushes[0], 102.0)
    breakers.ended(pushes[0])
    assert breakers.environment(pushes[0]).answered(pushes[0], 103.0)
    assert breakers.plan(103.0).limited == ((PRODUCTION, FIRST_SLOTS),)

    for push in pushes[1:]:
        breakers.began(push, 103.0)
    assert breakers.plan(103.0) == Plan(frozenset({PRODUCTION}), (), None)

    for push in pushes[1:]:
        breakers.ended(push)
        breakers.environment(push).answered(push, 104.0)
    assert breakers.plan(104.0).limited == ((PRODUCTION, FIRST_SLOTS + 3),)


def test_a_channel_that_is_away_is_blocked_until_one_push_may_try() -> None:
    breakers, push = fault(provider(), 100.0), due_push()

    assert breakers.plan(101.0) == Plan(frozenset({MAIL}), (), 130.0)
    assert breakers.plan(130.0) == Plan(frozenset(), ((MAIL, 1),), None)
    breakers.began(push, 130.0)
    assert breakers.plan(130.0) == Plan(frozenset({MAIL}), (), None)
    breakers.ended(push)
    assert breakers.channel(push).answered(push, 131.0)
    assert breakers.plan(131.0) == Plan(frozenset(), (), None)


def test_a_channel_is_not_tried_while_its_environment_is_away() -> None:
    breakers = fault(fail(provider(), 130.0), 100.0)

    assert breakers.plan(131.0) == Plan(frozenset({PRODUCTION, MAIL}), (), 132.0)
    plan = breakers.plan(132.0)
    assert plan.limited == ((PRODUCTION, 1), (MAIL, 1))
    assert plan.without(PRODUCTION) == frozenset({MAIL})
    assert plan.without(MAIL) == frozenset()
    assert plan.restricted == frozenset({PRODUCTION, MAIL})


def test_news_of_a_remedy_lets_all_try() -> None:
    breakers = fault(fail(provider(), 100.0), 100.0, due_push(environment=Environment.SANDBOX))

    breakers.hurry(100.5)

    assert breakers.plan(100.5).limited == ((PRODUCTION, 1), (Lane(Environment.SANDBOX, APP), 1))


def test_what_a_sender_cannot_take_is_not_claimed() -> None:
    away, tried, busy = (Lane(Environment.PRODUCTION, service=name) for name in ("a", "b", "c"))
    capacities = [Capacity(away, 0, 130.0), Capacity(tried, 1), Capacity(busy, 7)]

    plan = ProviderBreakers(SLOTS, MIDDLE, lambda _: capacities).plan(100.0)

    assert plan == Plan(frozenset({away}), ((tried, 1), (busy, 7)), 130.0)
    assert plan.without(busy) == frozenset({away, tried})


def test_while_an_environment_is_away_no_lane_of_its_sender_is_tried() -> None:
    busy = Lane(Environment.PRODUCTION, service="c")
    breakers = fail(ProviderBreakers(SLOTS, MIDDLE, lambda _: [Capacity(busy, 7)]), 100.0)

    assert breakers.plan(101.0) == Plan(frozenset({PRODUCTION, busy}), (), 102.0)


@pytest.mark.parametrize(
    ("sender", "blocked", "limited"),
    [
        ([Capacity(MAIL, 3)], {MAIL}, ()),
        ([Capacity(Lane(Environment.PRODUCTION, APP, retried=True), 1)], {MAIL}, ()),
        ([Capacity(MAIL, 3), Capacity(MAIL, 2)], {MAIL}, ()),
        ([Capacity(Lane(Environment.PRODUCTION, "com.example.other"), 3)], {MAIL}, ("com.example.other",)),
    ],
)
def test_a_channel_with_a_fault_stays_blocked_where_its_sender_has_slots(
    sender: list[Capacity], blocked: set[Lane], limited: tuple[str, ...]
) -> None:
    breakers = ProviderBreakers(SLOTS, MIDDLE, lambda _: sender)
    breakers.channel(due_push()).failed(due_push(), None, FAULT, 0.0)

    plan = breakers.plan(1.0)

    assert plan.blocked == blocked
    assert tuple(lane.app for lane, _ in plan.limited) == limited


def test_of_two_limits_of_a_lane_the_lower_one_counts() -> None:
    breakers = ProviderBreakers(SLOTS, MIDDLE, lambda _: [Capacity(MAIL, 3), Capacity(MAIL, 2)])

    assert breakers.plan(0.0).limited == ((MAIL, 2),)
