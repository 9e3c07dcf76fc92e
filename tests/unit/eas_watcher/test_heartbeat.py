import pytest

from eas_watcher.heartbeat import JITTER, MAXIMUM, Heartbeat, deadline


def test_starts_above_the_average_that_alarms_exchange() -> None:
    assert Heartbeat().interval == 600


def test_raises_after_two_expiries_in_a_row() -> None:
    once = Heartbeat().expired()
    twice = once.expired()

    assert (once.interval, twice.interval) == (600, 900)
    assert twice.expiries == 0


def test_stops_rising_at_its_maximum() -> None:
    heartbeat = Heartbeat()
    for _ in range(50):
        heartbeat = heartbeat.expired()

    assert heartbeat.interval == MAXIMUM


def test_comes_down_to_three_quarters_of_what_survived_and_stays_there() -> None:
    cut = Heartbeat().cut(300.0)

    assert cut.interval == 225
    assert cut.expired().expired().interval == 225


def test_a_cut_never_raises_the_interval() -> None:
    assert Heartbeat(interval=120).cut(1000.0).interval == 120


def test_a_cut_stays_above_the_minimum() -> None:
    assert Heartbeat().cut(40.0).interval == 60


def test_a_connection_lost_at_once_says_nothing_about_idle_timeouts() -> None:
    assert Heartbeat(expiries=1).cut(29.0) == Heartbeat()


def test_adopts_an_upper_limit_for_good() -> None:
    adopted = Heartbeat().adopt_limit(10, 600)

    assert adopted.interval == 10
    assert adopted.expired().expired().interval == 10


def test_adopts_a_lower_limit_and_may_still_rise() -> None:
    adopted = Heartbeat(interval=60).adopt_limit(300, 60)

    assert (adopted.interval, adopted.minimum) == (300, 300)
    assert adopted.expired().expired().interval == 600


@pytest.mark.parametrize("limit", [600, 620, 900, 1000, 1200, 3540])
def test_never_asks_for_more_than_the_upper_limit_again(limit: int) -> None:
    heartbeat, refused = Heartbeat(), 0
    for _ in range(30):
        asked = heartbeat.spread(0.07)
        if asked > limit:
            heartbeat, refused = heartbeat.adopt_limit(limit, asked), refused + 1
        else:
            heartbeat = heartbeat.ended(float(asked)).expired()

    assert refused <= 1
    assert heartbeat.interval == min(limit, MAXIMUM)


def test_a_lower_limit_for_a_shortened_ping_does_not_shorten_the_interval() -> None:
    adopted = Heartbeat().adopt_limit(120, 60)

    assert (adopted.interval, adopted.minimum, adopted.maximum) == (600, 120, MAXIMUM)


def test_a_senseless_limit_becomes_one_second() -> None:
    assert Heartbeat().adopt_limit(0, 600).interval == 1


def test_deadline_leaves_room_for_servers_that_hold_longer_than_asked() -> None:
    assert deadline(660) == 660 * 1.1 + 30


def test_ignores_a_limit_beyond_the_protocol() -> None:
    adopted = Heartbeat().adopt_limit(4_000_000_000, 600)

    assert (adopted.interval, adopted.maximum) == (3540, 3540)


def test_after_a_day_without_a_cut_it_rises_again() -> None:
    heartbeat = Heartbeat().cut(120.0)
    pings = 0
    while heartbeat.cut_off is not None:
        assert heartbeat.interval == 90
        heartbeat = heartbeat.expired()
        pings += 1

    assert pings == 24 * 3600 / 90
    assert heartbeat.expired().expired().interval == 390


def test_a_cut_does_not_lift_a_limit_of_the_server() -> None:
    heartbeat = Heartbeat().cut(400.0).adopt_limit(100, 300)

    assert heartbeat.expired().expired().interval == 100


@pytest.mark.parametrize(
    ("heartbeat", "seconds"),
    [
        (Heartbeat(600), 660),
        (Heartbeat(600, maximum=620), 620),
        (Heartbeat(600, cut_off=600), 600),
        (Heartbeat(225, cut_off=225), 225),
        (Heartbeat(300, minimum=300, maximum=300), 300),
        (Heartbeat(1680), 1680),
    ],
)
def test_asks_for_up_to_a_tenth_more_within_the_bounds(heartbeat: Heartbeat, seconds: int) -> None:
    assert heartbeat.spread(JITTER) == seconds
    assert heartbeat.spread(0.0) == heartbeat.interval


def test_two_early_ends_after_the_same_time_show_the_servers_own_hold() -> None:
    once = Heartbeat().ended(60.0)
    twice = once.ended(61.0)

    assert (once.hold, twice.hold, twice.interval) == (None, 61.0, 600)
    assert [twice.explains(held) for held in (54.0, 55.0, 67.0, 68.0)] == [False, True, True, False]
    assert twice.ended(59.0).hold == 61.0


def test_other_early_ends_show_no_hold() -> None:
    assert Heartbeat().ended(60.0).ended(90.0).hold is None
    assert Heartbeat().ended(60.0).ended(600.0).ended(60.0).hold is None
    assert Heartbeat().ended(4.0).ended(4.0).hold is None, "a second client ends Pings at once"


def test_a_longer_ping_disproves_a_hold() -> None:
    held = Heartbeat().ended(60.0).ended(60.0)

    assert held.ended(40.0).hold == 60.0
    assert held.ended(90.0).hold is None
    assert held.ended(90.0).ended(90.0).hold == 90.0
    assert held.ended(600.0) == Heartbeat()
