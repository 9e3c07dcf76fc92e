import pytest

from relay.push.circuit import FIRST_ROOM, IN_A_ROW, LASTING, LONGEST, Circuit
from tests.unit.relay.push.test_backoff import MIDDLE

PLACES = 10


def circuit() -> Circuit:
    return Circuit(PLACES, MIDDLE)


def opened(now: float = 100.0) -> Circuit:
    """Give a circuit that opened just now, for two seconds."""
    under_test = circuit()
    assert [under_test.failed(now, None) for _ in range(IN_A_ROW)] == [False] * (IN_A_ROW - 1) + [True]
    return under_test


def test_a_healthy_provider_has_room_for_all() -> None:
    under_test = circuit()
    under_test.began()
    under_test.ended()

    assert not under_test.answered()
    assert under_test.room(0.0) is None
    assert not under_test.open


def test_an_answer_in_between_keeps_it_closed() -> None:
    under_test = circuit()
    for _ in range(3):
        for _ in range(IN_A_ROW - 1):
            assert not under_test.failed(0.0, None)
        under_test.answered()

    assert under_test.room(0.0) is None


def test_failures_in_a_row_open_it_and_one_push_tries_after_a_while() -> None:
    under_test = opened(100.0)

    assert under_test.open
    assert (under_test.room(101.9), under_test.opens_at(101.9)) == (0, 102.0)
    assert (under_test.room(102.0), under_test.opens_at(102.0)) == (1, None)
    under_test.began()
    assert under_test.room(102.0) == 0


def test_two_failures_open_it_when_each_takes_its_time() -> None:
    under_test = circuit()

    assert not under_test.failed(100.0, None)
    assert not under_test.failed(100.0 + LASTING - 0.1, None)
    assert under_test.failed(100.0 + LASTING, None)


def test_an_answer_begins_the_time_without_one_anew() -> None:
    under_test = circuit()
    under_test.failed(100.0, None)
    under_test.answered()

    assert not under_test.failed(200.0, None)
    assert not under_test.failed(201.0, None)


def test_pushes_under_way_when_it_opened_do_not_lengthen_the_pause() -> None:
    under_test = opened(100.0)

    assert not under_test.failed(101.0, None)

    assert under_test.opens_at(101.0) == 102.0


@pytest.mark.parametrize(("trials", "pause"), [(1, 4.0), (2, 8.0), (10, 60.0)])
def test_failed_trials_are_spaced_ever_more(trials: int, pause: float) -> None:
    under_test, now = opened(), 1000.0
    for _ in range(trials):
        now += 1000.0
        under_test.began()
        under_test.ended()
        assert not under_test.failed(now, None)

    assert under_test.opens_at(now) == now + pause


def test_a_trial_that_says_nothing_hands_over_to_the_next() -> None:
    under_test = opened(100.0)
    under_test.began()
    under_test.ended()

    under_test.undecided()

    assert under_test.room(102.0) == 1


def test_the_first_answer_closes_it_and_pushes_ramp_up() -> None:
    under_test = opened(100.0)
    under_test.began()
    under_test.ended()

    assert under_test.answered()
    assert not under_test.open
    assert under_test.room(103.0) == FIRST_ROOM
    rooms = []
    while (room := under_test.room(103.0)) is not None:
        under_test.began()
        rooms.append(room)
        under_test.ended()
        assert not under_test.answered()
    assert rooms == list(range(FIRST_ROOM, PLACES))


def test_what_is_under_way_counts_while_it_ramps_up() -> None:
    under_test = opened()
    under_test.answered()
    under_test.began()
    under_test.began()
    under_test.began()

    assert under_test.room(103.0) == 0


def test_a_relapse_while_it_ramps_up_pauses_longer() -> None:
    under_test = opened()
    under_test.answered()
    for _ in range(IN_A_ROW):
        under_test.failed(200.0, None)

    assert under_test.opens_at(200.0) == 204.0


def test_an_outage_after_recovery_starts_small_again() -> None:
    under_test = opened()
    for _ in range(PLACES):
        under_test.answered()
    for _ in range(IN_A_ROW):
        under_test.failed(200.0, None)

    assert under_test.opens_at(200.0) == 202.0


def test_a_time_the_provider_names_opens_it_at_once_until_then() -> None:
    under_test = circuit()

    assert under_test.failed(100.0, 60.0)

    opens_at = under_test.opens_at(100.0)
    assert opens_at is not None
    assert 160.0 <= opens_at <= 167.0
    assert not under_test.failed(101.0, 300.0)
    longer = under_test.opens_at(101.0)
    assert longer is not None
    assert longer >= 401.0


def test_an_absurd_time_is_not_believed() -> None:
    under_test = circuit()
    under_test.failed(0.0, 1e9)

    opens_at = under_test.opens_at(0.0)
    assert opens_at is not None
    assert opens_at <= 1.1 * LONGEST + 1.0


def test_news_of_a_remedy_ends_the_pause() -> None:
    under_test = opened(100.0)
    under_test.hurry(101.0)

    assert under_test.room(101.0) == 1
    closed = circuit()
    closed.hurry(1.0)
    assert closed.room(1.0) is None


def test_a_push_that_was_claimed_before_it_opened_and_begun_after_takes_nobodys_trial() -> None:
    under_test = opened(100.0)
    under_test.began()
    under_test.ended()
    assert not under_test.failed(100.5, None)

    assert under_test.opens_at(100.5) == 102.0
    assert under_test.room(102.0) == 1


def test_many_who_were_told_a_short_time_together_wait_for_that_and_no_longer() -> None:
    under_test = circuit()
    under_test.failed(100.0, 1.0)
    first = under_test.opens_at(100.0)
    for _ in range(50):
        under_test.failed(100.0, 1.0)

    assert under_test.opens_at(100.0) == first
    under_test.failed(110.0, None)
    assert under_test.opens_at(110.0) == 114.0
