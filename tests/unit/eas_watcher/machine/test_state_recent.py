from eas_watcher.machine.state import HOUR, HourlyCount


def test_counts_for_an_hour_from_the_first_time_on() -> None:
    twice = HourlyCount().again().later(1000.0).again()

    assert twice == HourlyCount(2, 1000.0)
    assert twice.later(HOUR - 1001.0).times == 2
    assert twice.later(HOUR - 1000.0) == HourlyCount()


def test_time_before_the_first_time_does_not_count() -> None:
    assert HourlyCount().later(2 * HOUR).again() == HourlyCount(1, 0.0)


def test_a_count_may_be_made_to_last_longer() -> None:
    assert HourlyCount(2, -HOUR).later(HOUR) == HourlyCount(2, 0.0)
