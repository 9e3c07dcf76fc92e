from relay.domain.model import Environment, Lane
from relay.domain.ports.outbox import Capacity
from relay.push.circuit import IN_A_ROW
from relay.push.gates import Gates, Plan
from tests.unit.relay.push.pushes import due_push
from tests.unit.relay.push.test_backoff import MIDDLE

APP = "com.example.mail"
PRODUCTION = Lane(Environment.PRODUCTION)
MAIL = Lane(Environment.PRODUCTION, APP)


def gates() -> Gates:
    return Gates(10, MIDDLE)


def opened(now: float = 100.0) -> Gates:
    under_test = gates()
    for _ in range(IN_A_ROW):
        under_test.circuit(Environment.PRODUCTION).failed(now, None)
    return under_test


def test_all_lanes_are_open_while_all_is_well() -> None:
    assert gates().plan(0.0) == Plan(frozenset(), (), None)


def test_an_outage_shuts_its_environment_then_lets_one_try() -> None:
    under_test = opened(100.0)

    assert under_test.plan(101.0) == Plan(frozenset({PRODUCTION}), (), 102.0)
    assert under_test.plan(102.0) == Plan(frozenset(), ((PRODUCTION, 1),), None)
    under_test.began(due_push())
    assert under_test.plan(102.0) == Plan(frozenset({PRODUCTION}), (), None)


def test_a_fault_shuts_its_channel_then_lets_one_try() -> None:
    under_test = gates()
    under_test.channels.faulted((APP, Environment.PRODUCTION), 100.0)

    assert under_test.plan(101.0) == Plan(frozenset({MAIL}), (), 130.0)
    assert under_test.plan(130.0) == Plan(frozenset(), ((MAIL, 1),), None)
    under_test.began(due_push())
    assert under_test.plan(130.0) == Plan(frozenset({MAIL}), (), None)
    under_test.ended(due_push())


def test_a_channel_is_not_tried_during_an_outage() -> None:
    under_test = opened(130.0)
    under_test.channels.faulted((APP, Environment.PRODUCTION), 100.0)

    assert under_test.plan(131.0) == Plan(frozenset({PRODUCTION, MAIL}), (), 132.0)
    plan = under_test.plan(132.0)
    assert plan.trials == ((PRODUCTION, 1), (MAIL, 1))
    assert plan.without(PRODUCTION) == frozenset({MAIL})
    assert plan.without(MAIL) == frozenset()
    assert plan.special == frozenset({PRODUCTION, MAIL})


def test_news_of_a_remedy_lets_all_try() -> None:
    under_test = opened(100.0)
    under_test.channels.faulted((APP, Environment.SANDBOX), 100.0)

    under_test.hurry(100.5)

    assert under_test.plan(100.5).trials == ((PRODUCTION, 1), (Lane(Environment.SANDBOX, APP), 1))


def test_what_a_sender_cannot_take_is_not_claimed() -> None:
    away, tried, busy = (Lane(Environment.PRODUCTION, service=name) for name in ("a", "b", "c"))
    rooms = [Capacity(away, 0, 130.0), Capacity(tried, 1), Capacity(busy, 7)]
    under_test = Gates(10, MIDDLE, lambda _: rooms)

    plan = under_test.plan(100.0)

    assert plan == Plan(frozenset({away}), ((tried, 1), (busy, 7)), 130.0)
    assert plan.without(busy) == frozenset({away, tried})


def test_during_an_outage_no_lane_of_its_sender_is_tried() -> None:
    busy = Lane(Environment.PRODUCTION, service="c")
    under_test = Gates(10, MIDDLE, lambda _: [Capacity(busy, 7)])
    for _ in range(IN_A_ROW):
        under_test.circuit(Environment.PRODUCTION).failed(100.0, None)

    assert under_test.plan(101.0) == Plan(frozenset({PRODUCTION, busy}), (), 102.0)
