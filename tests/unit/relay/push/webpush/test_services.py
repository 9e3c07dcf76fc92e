from relay.domain.model import Environment, Lane
from relay.domain.ports.outbox import Capacity
from relay.push import backoff
from relay.push.webpush.services import BUSY_WAIT, FEW, MOST, PROBE_WAIT, SILENCE, Rest, Services

A, B = "a.example.com", "b.example.com"
ANN, BEN, EVE, DAN = (name.encode() for name in ("ann", "ben", "eve", "dan"))


def services(places: int = 100) -> Services:
    """Make services of which both were asked once."""
    known = Services(places)
    for service in (A, B):
        assert known.wait(service, 0.0) == (0.0, "")
        known.ended(service)
    return known


def fail(known: Services, *devices: bytes, service: str = A, now: float = 0.0, after: float | None = None) -> None:
    for device in devices:
        known.failed(service, device, "timed-out", now, remedy="look at it", after=after)


def test_a_service_rests_when_several_phones_pushes_fail_and_the_others_go_on() -> None:
    known = services()

    fail(known, ANN, BEN, EVE)

    assert known.wait(A, 1.0) == (backoff.pause(1) - 1.0, "push-service-rests: timed-out")
    assert known.wait(B, 1.0) == (0.0, "")
    assert known.resting == [Rest(A, "timed-out", "look at it")]
    assert known.known == 2


def test_one_phone_alone_never_silences_its_service() -> None:
    known = services()

    fail(known, *[ANN] * 50, BEN)

    assert known.wait(A, 1.0) == (0.0, "")
    assert known.resting == []


def test_a_fault_that_only_somebody_mends_rests_its_service_at_once() -> None:
    known = services()

    known.failed(A, ANN, "certificate-not-trusted", 0.0, remedy="set webpush.ca_file", lasting=True)

    assert known.resting == [Rest(A, "certificate-not-trusted", "set webpush.ca_file")]
    assert known.wait(A, 1.0)[0] == backoff.pause(1) - 1.0
    assert known.wait(B, 1.0) == (0.0, "")


def test_failures_count_only_without_an_answer_between() -> None:
    known = services()

    for status in (201, 404, 403, 410):
        fail(known, ANN, BEN)
        known.told(A, DAN, status, 0.0)

    assert known.wait(A, 1.0) == (0.0, "")


def test_an_answer_that_it_cannot_now_is_no_sign_of_health() -> None:
    known = services()

    for device in (ANN, BEN, EVE):
        assert not known.told(A, device, 503, 0.0)
        fail(known, device)

    assert known.resting


def test_a_rest_lasts_as_long_as_the_service_said() -> None:
    known = services()

    fail(known, ANN, BEN, EVE, after=500.0)

    assert known.wait(A, 0.0)[0] == 500.0


def test_failures_of_pushes_already_under_way_lengthen_no_rest() -> None:
    known = services()

    fail(known, ANN, BEN, EVE, DAN, *(str(number).encode() for number in range(100)))

    assert known.wait(A, 0.0)[0] == backoff.pause(1)


def test_a_resting_service_is_tried_by_one_push_at_a_time_with_longer_rests() -> None:
    known = services()
    fail(known, ANN, BEN, EVE)
    later = backoff.pause(1)

    assert known.wait(A, later) == (0.0, "")
    assert known.wait(A, later) == (PROBE_WAIT, "push-service-rests: timed-out")
    fail(known, DAN, now=later)
    known.ended(A)

    assert known.wait(A, later)[0] == backoff.pause(2)


def test_the_first_push_that_passes_ends_the_rest() -> None:
    known = services()
    fail(known, ANN, BEN, EVE)
    later = backoff.pause(1)
    assert known.wait(A, later) == (0.0, "")

    known.told(A, DAN, 201, later)
    known.ended(A)

    assert known.resting == []
    assert [known.wait(A, later)[0] for _ in range(3)] == [0.0, 0.0, 0.0]


def test_a_slow_service_holds_no_more_than_its_places() -> None:
    known = services(places=2)

    waits = [known.wait(A, 0.0)[0] for _ in range(3)]

    assert waits == [0.0, 0.0, BUSY_WAIT]
    assert known.wait(B, 0.0)[0] == 0.0
    known.ended(A)
    assert known.wait(A, 0.0)[0] == 0.0


def test_404_is_proved_by_time_and_by_a_push_that_was_taken_between() -> None:
    known = services()

    assert not known.told(A, ANN, 404, 0.0)
    known.told(A, BEN, 201, 10.0)
    assert not known.told(A, ANN, 404, SILENCE - 1.0), "too soon"
    assert known.told(A, ANN, 404, SILENCE)


def test_404_of_all_subscriptions_proves_nothing_however_long_it_lasts() -> None:
    known = services()
    known.told(A, ANN, 201, 0.0)
    known.told(B, DAN, 201, 5 * SILENCE)

    answers = [known.told(A, device, 404, now * SILENCE) for now in range(1, 50) for device in (ANN, BEN, EVE)]

    assert not any(answers)


def test_a_subscription_that_was_taken_again_starts_from_nothing() -> None:
    known = services()
    known.told(A, ANN, 404, 0.0)
    known.told(A, ANN, 201, 10.0)
    known.told(A, BEN, 201, 20.0)

    assert not known.told(A, ANN, 404, 2 * SILENCE)


def test_no_more_than_so_many_subscriptions_are_remembered() -> None:
    known = services()

    for number in range(MOST + 5):
        known.told(A, str(number).encode(), 404, 0.0)

    assert len(known._services[A].missing) == MOST


def test_one_subscription_that_is_refused_again_and_again_is_not_our_key() -> None:
    known = services()
    known.told(B, DAN, 403, 0.0)

    assert not any(known.told(A, ANN, 403, 0.0) for _ in range(50))


def test_several_refused_and_none_taken_anywhere_is_our_key() -> None:
    known = services()
    known.told(B, DAN, 403, 0.0)

    assert [known.told(A, device, 401, 0.0) for device in (ANN, BEN, EVE)] == [False] * (FEW - 1) + [True]


def test_our_key_is_good_while_another_service_takes_it() -> None:
    known = services()
    known.told(B, DAN, 201, 0.0)

    assert not any(known.told(A, device, 403, 0.0) for device in (ANN, BEN, EVE, DAN))


def test_a_push_that_is_taken_between_proves_our_key() -> None:
    known = services()
    known.told(B, DAN, 403, 0.0)
    for device in (ANN, BEN):
        known.told(A, device, 403, 0.0)

    known.told(A, DAN, 201, 0.0)

    assert not known.told(A, EVE, 403, 0.0)


def lane(service: str) -> Lane:
    return Lane(Environment.PRODUCTION, service=service)


def test_a_healthy_service_has_room_for_all() -> None:
    assert list(services().rooms(1.0)) == []


def test_a_resting_service_has_no_room_then_room_for_one_that_tries_it() -> None:
    known = services()
    fail(known, ANN, BEN, EVE)
    later = backoff.pause(1)

    assert list(known.rooms(1.0)) == [Capacity(lane(A), 0, later)]
    assert list(known.rooms(later)) == [Capacity(lane(A), 1)]
    known.wait(A, later)
    assert list(known.rooms(later)) == [Capacity(lane(A), 0)]

    known.told(A, DAN, 201, later)
    known.ended(A)
    assert list(known.rooms(later)) == []


def test_a_service_with_half_of_its_places_taken_says_how_many_are_left() -> None:
    known = services(places=4)
    left = []
    for _ in range(4):
        known.wait(A, 0.0)
        left.append([capacity.slots for capacity in known.rooms(0.0)])

    assert left == [[], [2], [1], [0]]


def test_a_service_without_others_takes_all_there_is() -> None:
    alone = Services(None)
    for _ in range(1000):
        assert alone.wait(A, 0.0) == (0.0, "")

    assert list(alone.rooms(0.0)) == []
