from datetime import UTC, datetime, timedelta

import pytest

from eas_watcher.peer_clocks import EVERY, MOST_PEERS, PRECISE, STALE, TOLERATED, Difference, PeerClocks

NOON = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
DATE = "Sat, 28 Nov 2026 12:00:00 GMT"


class Host:
    """The clock of this host, and what it shows of peers whose clocks stand at noon."""

    def __init__(self, ahead: float = 0.0) -> None:
        self.now = NOON + timedelta(seconds=ahead)
        self.clocks = PeerClocks(lambda: self.now)


@pytest.mark.parametrize("ahead", [TOLERATED + 1, -TOLERATED - 1, 86_400.0, -7200.0])
def test_a_clock_that_is_ahead_or_behind_differs(ahead: float) -> None:
    host = Host(ahead)
    host.clocks.answered("mail", DATE, 0.1)

    assert host.clocks.difference == Difference("mail", ahead, others=0, agree=0)


@pytest.mark.parametrize("ahead", [TOLERATED, 0.0, -TOLERATED])
def test_a_minute_is_tolerated(ahead: float) -> None:
    host = Host(ahead)
    host.clocks.answered("mail", DATE, 0.1)

    assert host.clocks.difference is None
    assert host.clocks.differences() == {"mail": ahead}


def test_the_greatest_difference_is_named_and_the_others_counted() -> None:
    host = Host(100.0)
    for peer, date in (("a", DATE), ("b", "Sat, 28 Nov 2026 11:00:00 GMT"), ("c", "Sat, 28 Nov 2026 12:01:00 GMT")):
        host.clocks.answered(peer, date, 0.1)

    assert host.clocks.difference == Difference("b", 3700.0, others=1, agree=1)


@pytest.mark.parametrize("date", ["", "yesterday", "Sat, 99 Nov 2026 12:00:00 GMT", "Sat, 28 Nov 99999999999 12:00:00"])
def test_what_is_no_date_is_ignored(date: str) -> None:
    host = Host()
    host.clocks.answered("mail", date, 0.1)

    assert host.clocks.differences() == {}


def test_a_date_without_a_zone_is_in_utc() -> None:
    host = Host(7.0)
    host.clocks.answered("mail", "Sat, 28 Nov 2026 12:00:00", 0.1)

    assert host.clocks.differences() == {"mail": 7.0}


def test_an_exchange_that_took_long_shows_nothing() -> None:
    host = Host(600.0)
    host.clocks.answered("mail", DATE, PRECISE + 0.1)

    assert host.clocks.differences() == {}


def test_a_peer_is_looked_at_once_a_minute_and_forgotten_after_hours_of_silence() -> None:
    host = Host(600.0)
    host.clocks.answered("mail", DATE, 0.1)
    host.now = NOON
    host.clocks.answered("mail", DATE, 0.1)
    assert host.clocks.difference is None

    host.now += EVERY / 2
    host.clocks.answered("mail", "Sat, 28 Nov 2026 10:00:00 GMT", 0.1)
    assert host.clocks.differences() == {"mail": 0.0}
    host.now += STALE
    assert host.clocks.differences() == {}


def test_the_peers_are_few() -> None:
    host = Host()
    for number in range(MOST_PEERS + 3):
        host.clocks.answered(f"mail{number}", DATE, 0.1)

    assert len(host.clocks.differences()) == MOST_PEERS
    assert "mail0" not in host.clocks.differences()
