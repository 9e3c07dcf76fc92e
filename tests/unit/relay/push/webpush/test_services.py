import pytest

from eas_watcher.breaker import Failure
from relay.domain.model import Environment, Lane
from relay.domain.ports.outbox import Capacity
from relay.push.breaker import OWN, SERVICE
from relay.push.webpush.services import BUSY_WAIT, FEW, MOST, PROBE_WAIT, PROVED, SILENCE, AwayService, Held, Services
from tests.unit.relay.push.test_backoff import MIDDLE

A, B = "a.example.com", "b.example.com"
ANN, BEN, EVE, DAN, FAY = (name.encode() for name in ("ann", "ben", "eve", "dan", "fay"))
FIRST = SERVICE.first
RESTS = "push-service-rests: timed-out"


def services(slots: int = 100) -> Services:
    """Return two services, each of which was asked once."""
    known = Services(slots, MIDDLE)
    for service in (A, B):
        assert known.admit(service, b"first", b"first", 0.0) is None
        known.ended(service, b"first", 0.0)
    return known


def fail(
    known: Services,
    *devices: bytes,
    service: str = A,
    now: float = 0.0,
    after: float | None = None,
    certain: bool = False,
) -> None:
    """Let a push to each device fail; a push is named after its device."""
    for device in devices:
        known.failed(service, device, device, Failure("timed-out", certain, after), now, remedy="look at it")


def answer(known: Services, service: str, device: bytes, status: int, now: float) -> bool:
    return known.answered(service, device, device, status, now)


def test_a_service_is_away_when_several_phones_pushes_fail_and_the_others_go_on() -> None:
    known = services()

    fail(known, ANN, BEN, EVE)

    assert known.admit(A, DAN, DAN, 1.0) == Held(FIRST - 1.0, RESTS)
    assert known.admit(B, DAN, DAN, 1.0) is None
    assert known.away == [AwayService(A, "timed-out", "look at it")]
    assert known.known == 2


def test_failures_of_one_phone_alone_never_make_its_service_away() -> None:
    known = services()

    fail(known, *[ANN] * 50, BEN)

    assert known.admit(A, DAN, DAN, 1.0) is None
    assert known.away == []


def test_a_fault_that_no_retry_mends_makes_its_service_away_at_once() -> None:
    known = services()

    fail(known, ANN, certain=True)

    assert known.away == [AwayService(A, "timed-out", "look at it")]
    assert known.admit(A, DAN, DAN, 1.0) == Held(FIRST - 1.0, RESTS)
    assert known.admit(B, DAN, DAN, 1.0) is None


def test_failures_count_only_without_an_answer_between() -> None:
    known = services()

    for status in (201, 404, 403, 410):
        fail(known, ANN, BEN)
        answer(known, A, DAN, status, 0.0)

    assert known.admit(A, DAN, DAN, 1.0) is None


def test_an_answer_that_the_service_cannot_now_ends_no_absence() -> None:
    known = services()

    for device in (ANN, BEN, EVE):
        assert not answer(known, A, device, 503, 0.0)
        fail(known, device)

    assert known.away


def test_a_service_is_left_alone_as_long_as_it_asked_even_if_it_asks_while_it_is_away() -> None:
    known = services()
    fail(known, ANN, BEN, EVE, after=500.0)
    assert known.admit(A, DAN, DAN, 0.0) == Held(525.0, RESTS)

    fail(known, DAN, after=900.0)

    assert known.admit(A, DAN, DAN, 0.0) == Held(945.0, RESTS)
    assert known.admit(A, FAY, FAY, 0.0) == Held(525.0, RESTS), "what one phone more says holds for those that fail"


def test_failures_of_pushes_already_under_way_delay_no_probe() -> None:
    known = services()

    fail(known, ANN, BEN, EVE, DAN, *(str(number).encode() for number in range(100)))

    assert known.admit(A, DAN, DAN, 0.0) == Held(FIRST, RESTS)


def test_a_service_that_is_away_is_probed_by_one_push_at_a_time_less_and_less_often() -> None:
    known = services()
    assert known.admit(A, FAY, FAY, 0.0) is None
    fail(known, ANN, BEN, EVE)

    assert known.admit(A, DAN, DAN, FIRST) is None
    known.ended(A, FAY, FIRST)
    assert known.admit(A, FAY, FAY, FIRST) == Held(PROBE_WAIT, RESTS), "the end of an older push is no probe's"
    known.failed(A, DAN, DAN, Failure("http-503"), FIRST, remedy="look there")
    known.ended(A, DAN, FIRST)

    assert known.admit(A, FAY, FAY, FIRST) == Held(2 * FIRST, "push-service-rests: http-503")
    assert known.away == [AwayService(A, "http-503", "look there")]


def test_a_probe_that_shows_nothing_hands_its_turn_on() -> None:
    known = services()
    fail(known, ANN, BEN, EVE)
    assert known.admit(A, DAN, DAN, FIRST) is None

    known.ended(A, DAN, FIRST)

    assert known.admit(A, FAY, FAY, FIRST) is None
    assert known.admit(A, DAN, DAN, FIRST) == Held(PROBE_WAIT, RESTS)


def test_the_first_push_that_is_answered_ends_the_absence() -> None:
    known = services()
    fail(known, ANN, BEN, EVE)
    assert known.admit(A, DAN, DAN, FIRST) is None

    answer(known, A, DAN, 201, FIRST)
    known.ended(A, DAN, FIRST)

    assert known.away == []
    assert [known.admit(A, device, device, FIRST) for device in (ANN, BEN, EVE)] == [None] * 3


def test_a_slow_service_holds_no_more_than_its_slots() -> None:
    known = services(slots=2)

    held = [known.admit(A, device, device, 0.0) for device in (ANN, BEN, EVE)]

    assert held == [None, None, Held(BUSY_WAIT, "push-service-busy")]
    assert known.admit(B, EVE, EVE, 0.0) is None
    known.ended(A, ANN, 0.0)
    assert known.admit(A, EVE, EVE, 0.0) is None


def test_404_is_proved_by_time_and_by_a_push_that_was_accepted_meanwhile() -> None:
    known = services()

    assert not answer(known, A, ANN, 404, 0.0)
    answer(known, A, BEN, 201, 10.0)
    assert not answer(known, A, ANN, 404, SILENCE - 1.0), "too soon"
    assert answer(known, A, ANN, 404, SILENCE)


def test_404_of_all_subscriptions_proves_nothing_however_long_it_lasts() -> None:
    known = services()
    answer(known, A, ANN, 201, 0.0)
    answer(known, B, DAN, 201, 5 * SILENCE)

    answers = [answer(known, A, device, 404, now * SILENCE) for now in range(1, 50) for device in (ANN, BEN, EVE)]

    assert not any(answers)


def test_an_accepted_push_discards_the_earlier_404_of_its_subscription() -> None:
    known = services()
    answer(known, A, ANN, 404, 0.0)
    answer(known, A, ANN, 201, 10.0)
    answer(known, A, BEN, 201, 20.0)

    assert not answer(known, A, ANN, 404, 2 * SILENCE)


def test_the_number_of_remembered_subscriptions_is_limited() -> None:
    known = services()

    for number in range(MOST + 5):
        answer(known, A, str(number).encode(), 404, 0.0)

    assert len(known._services[A].missing) == MOST


def test_refusals_of_one_subscription_alone_do_not_blame_the_key() -> None:
    known = services()
    answer(known, B, DAN, 403, 0.0)

    assert not any(answer(known, A, ANN, 403, 0.0) for _ in range(50))


def test_several_refusals_and_no_accepted_push_anywhere_blame_the_key() -> None:
    known = services()
    answer(known, B, DAN, 403, 0.0)

    assert [answer(known, A, device, 401, 0.0) for device in (ANN, BEN, EVE)] == [False] * (FEW - 1) + [True]


def test_the_key_is_good_while_another_service_accepts_it() -> None:
    known = services()
    answer(known, B, DAN, 201, 0.0)

    assert not any(answer(known, A, device, 403, 0.0) for device in (ANN, BEN, EVE, DAN))


def test_an_accepted_push_in_between_proves_the_key() -> None:
    known = services()
    answer(known, B, DAN, 403, 0.0)
    for device in (ANN, BEN):
        answer(known, A, device, 403, 0.0)

    answer(known, A, DAN, 201, 0.0)

    assert not answer(known, A, EVE, 403, 0.0)


def test_subscriptions_that_never_took_the_key_do_not_blame_it_where_others_did() -> None:
    known = services()
    answer(known, B, DAN, 403, 0.0)
    answer(known, A, FAY, 201, 0.0)

    assert not any(answer(known, A, str(number).encode(), 403, 0.0) for number in range(50))


def test_a_key_that_is_taken_no_longer_is_blamed() -> None:
    known = services()
    answer(known, B, DAN, 403, 0.0)
    for device in (ANN, BEN, EVE):
        answer(known, A, device, 201, 0.0)

    assert [answer(known, A, device, 403, 1.0) for device in (ANN, BEN, EVE)] == [False] * (FEW - 1) + [True]


def test_what_took_the_old_key_says_nothing_of_a_new_one() -> None:
    known = services()
    answer(known, B, DAN, 403, 0.0)
    answer(known, A, FAY, 201, 0.0)

    known.key_changed()

    assert not answer(known, B, DAN, 403, 0.0)
    assert [answer(known, A, device, 403, 1.0) for device in (ANN, BEN, EVE)] == [False] * (FEW - 1) + [True]


def test_the_number_of_subscriptions_that_took_the_key_is_limited() -> None:
    known = services()

    for number in range(PROVED + 5):
        answer(known, A, str(number).encode(), 201, 0.0)

    assert len(known._services[A].proved) == PROVED


def lane(service: str, *, retried: bool | None = None) -> Lane:
    return Lane(Environment.PRODUCTION, service=service, retried=retried)


def test_a_service_that_serves_limits_no_claim() -> None:
    assert list(services().capacities(1.0)) == []


def test_a_service_that_is_away_takes_nothing_then_one_push_that_probes_it() -> None:
    known = services()
    fail(known, ANN, BEN, EVE)

    new, again = lane(A, retried=False), lane(A, retried=True)
    assert list(known.capacities(1.0)) == [Capacity(new, 0, FIRST), Capacity(again, 0, FIRST)]
    assert list(known.capacities(FIRST)) == [Capacity(new, 1), Capacity(again, 1)]
    known.admit(A, DAN, DAN, FIRST)
    assert list(known.capacities(FIRST)) == [Capacity(new, 0), Capacity(again, 1)]

    answer(known, A, DAN, 201, FIRST)
    known.ended(A, DAN, FIRST)
    assert list(known.capacities(FIRST)) == []


def dead(known: Services, *devices: bytes, now: float, status: int = 507) -> list[bool]:
    """Let each device's push be answered as that of a topic that nobody listens to; return whose own fault it is."""
    found = []
    for device in devices:
        assert known.admit(A, device, device, now, retried=True) is None
        known.answered(A, device, device, status, now)
        found.append(known.failed(A, device, device, Failure(f"http-{status}"), now))
        known.ended(A, device, now)
    return found


def test_phones_that_fail_take_no_turn_of_a_living_one() -> None:
    known = services()
    fail(known, ANN, BEN, EVE)

    dead(known, ANN, now=FIRST)
    assert known.admit(A, FAY, FAY, FIRST) is None, "a phone that has not failed probes at once"

    answer(known, A, FAY, 201, FIRST)
    assert known.away == []


def test_probes_by_phones_that_fail_do_not_delay_the_next_one_by_another() -> None:
    known, now = services(), FIRST
    fail(known, ANN, BEN, EVE)
    for _ in range(8):
        dead(known, ANN, now=now)
        held = known.admit(A, BEN, BEN, now, retried=True)
        assert held is not None
        now += held.seconds

    assert now > SERVICE.ceiling
    assert known.admit(A, FAY, FAY, FIRST) is None


@pytest.mark.parametrize("status", [500, 503, 507, 429])
def test_phones_that_fail_while_others_are_answered_never_rest_their_service(status: int) -> None:
    known, dead_ones = services(), [str(number).encode() for number in range(20)]
    dead(known, ANN, BEN, now=0.0, status=status)
    for mail in range(1, 50):
        assert known.admit(A, FAY, FAY, mail) is None
        answer(known, A, FAY, 201, mail)
        known.ended(A, FAY, mail)
        dead(known, ANN, BEN, *dead_ones[: mail // 10], now=mail, status=status)

        assert known.away == []


def test_a_phone_that_fails_again_and_again_while_others_are_answered_is_the_reason_itself() -> None:
    known = services()
    found = dead(known, ANN, now=0.0)
    for now in range(1, OWN + 1):
        answer(known, A, FAY, 201, now)
        found += dead(known, ANN, now=now)

    assert found == [False] * OWN + [True]
    assert dead(known, BEN, now=9.0) == [False]
    answer(known, A, ANN, 201, 10.0)
    answer(known, A, FAY, 201, 11.0)
    assert dead(known, ANN, now=12.0) == [False], "it was answered meanwhile"


def test_failures_that_nothing_contradicts_are_nobodys_own_fault() -> None:
    known = services()

    assert not any(known.failed(A, ANN, ANN, Failure("timed-out"), now) for now in range(50))


def test_a_service_with_half_of_its_slots_taken_says_how_many_are_left() -> None:
    known = services(slots=4)
    left = []
    for device in (ANN, BEN, EVE, DAN):
        known.admit(A, device, device, 0.0)
        left.append([capacity.slots for capacity in known.capacities(0.0)])

    assert left == [[], [2], [1], [0]]


def test_a_service_without_others_has_no_limit() -> None:
    alone = Services(None, MIDDLE)
    for number in range(1000):
        assert alone.admit(A, number, str(number).encode(), 0.0) is None

    assert list(alone.capacities(0.0)) == []
