from ipaddress import IPv6Address, ip_network

import pytest

from relay.http.addresses import NO_PROXIES, Proxies
from relay.http.admission import Admission, Pace, Refused, api_connections


def test_a_listener_has_so_many_connections_and_no_more() -> None:
    door = Admission(2, 2)
    assert [door.enter(address) for address in ("192.0.2.1", "192.0.2.2", "192.0.2.3")] == [None, None, Refused.FULL]

    door.leave("192.0.2.1")

    assert door.enter("192.0.2.3") is None
    assert (door.open, door.refused) == (2, {Refused.FULL: 1})


def test_one_address_leaves_connections_to_others() -> None:
    door = Admission(10, 2)
    assert [door.enter("192.0.2.1") for _ in range(3)] == [None, None, Refused.ADDRESS]
    assert door.enter("::ffff:192.0.2.1") is Refused.ADDRESS
    assert door.enter("192.0.2.2") is None

    door.leave("192.0.2.1")

    assert door.enter("192.0.2.1") is None


@pytest.mark.parametrize(("step", "most"), [(1, 2), (1 << 64, 8), (1 << 72, 32)])
def test_a_network_of_ipv6_has_a_few_times_as_many(step: int, most: int) -> None:
    door = Admission(1000, 2)
    first = int(IPv6Address("2001:db8:1::"))

    assert sum(door.enter(str(IPv6Address(first + number * step))) is None for number in range(100)) == most


def test_a_listed_proxy_has_as_many_as_the_listener() -> None:
    door = Admission(5, 1, Proxies((ip_network("10.0.0.0/28"),)))

    assert [door.enter("10.0.0.2") for _ in range(6)] == [None] * 5 + [Refused.FULL]
    door.leave("10.0.0.2")
    assert door.enter("192.0.2.1") is None


def test_who_has_left_is_forgotten() -> None:
    door = Admission(5, 1)
    for number in range(100):
        assert door.enter(f"192.0.2.{number}") is None
        door.leave(f"192.0.2.{number}")

    assert (door.open, len(door._clients)) == (0, 0)


@pytest.mark.parametrize(("files", "connections"), [(1024, 256), (20_000, 4096), (1_000_000, 4096)])
def test_most_files_are_for_pings_and_pushes(files: int, connections: int) -> None:
    assert api_connections(files) == connections


def test_a_pace_lets_a_burst_through_and_then_so_many_a_second() -> None:
    pace = Pace(10, 2)
    assert pace.wait(100.0) == 0
    pace.spend(1)
    pace.spend(1)
    assert pace.wait(100.0) == 0  # the last one may overdraw
    pace.spend(1)
    assert pace.wait(100.0) == pytest.approx(0.1)
    assert pace.wait(100.05) == pytest.approx(0.05)
    assert pace.wait(100.11) == 0


def test_a_pause_saves_up_a_burst_and_no_more() -> None:
    pace = Pace(10, 2)
    pace.spend(20)
    assert pace.wait(0.0) == 0
    pace.spend(2.5)
    assert pace.wait(0.0) == pytest.approx(0.05)


def test_other_limits_count_the_connections_that_are_open_already() -> None:
    door = Admission(10, 10)
    for _ in range(3):
        assert door.enter("192.0.2.1") is None
    door.allow(3, NO_PROXIES)

    assert door.enter("192.0.2.1") is Refused.ADDRESS
    door.leave("192.0.2.1")
    assert door.enter("192.0.2.1") is None


def test_an_address_becomes_a_proxy_and_a_client_again_with_its_connections() -> None:
    door = Admission(10, 1)
    assert door.enter("192.0.2.1") is None
    door.allow(1, Proxies((ip_network("192.0.2.0/24"),)))
    assert door.enter("192.0.2.1") is None
    door.allow(2, NO_PROXIES)

    assert door.enter("192.0.2.1") is Refused.ADDRESS
    door.leave("192.0.2.1")
    door.leave("192.0.2.1")
    assert door.open == 0
    assert door.enter("192.0.2.1") is None
