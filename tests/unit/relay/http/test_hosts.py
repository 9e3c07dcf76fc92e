import pytest

from relay.http.hosts import overlap, reached_at


@pytest.mark.parametrize(
    ("ones", "others"),
    [
        (["127.0.0.1"], ["127.0.0.1"]),
        (["192.0.2.5", "::1"], ["127.0.0.1", "::1"]),
        (["0.0.0.0"], ["127.0.0.1"]),
        (["::1"], ["::"]),
        (["*"], ["::1"]),
        (["*"], ["::"]),
        (["127.0.0.1"], ["*"]),
        (["0"], ["127.0.0.1"]),
        (["0.0.0.0"], ["0"]),
        (["localhost"], ["::"]),
        (["localhost"], ["0.0.0.0"]),
    ],
)
def test_listeners_that_want_one_address_overlap(ones: list[str], others: list[str]) -> None:
    assert overlap(ones, others)


@pytest.mark.parametrize(
    ("ones", "others"),
    [
        (["127.0.0.1"], ["127.0.0.2", "::1"]),
        (["0.0.0.0"], ["::"]),
        (["0.0.0.0"], ["::1"]),
        (["::"], ["192.0.2.5"]),
        (["::"], ["0"]),
        (["localhost"], ["relay.example.com"]),
    ],
)
def test_listeners_on_different_addresses_do_not_overlap(ones: list[str], others: list[str]) -> None:
    assert not overlap(ones, others)


@pytest.mark.parametrize(
    ("hosts", "found"),
    [
        (["127.0.0.1"], ["127.0.0.1"]),
        (["*"], ["127.0.0.1", "::1"]),
        (["0.0.0.0", "::"], ["127.0.0.1", "::1"]),
        (["::", "192.0.2.1", "::1"], ["::1", "192.0.2.1"]),
        (["relay.example.com"], ["relay.example.com"]),
    ],
)
def test_a_listener_on_all_addresses_is_reached_on_loopback(hosts: list[str], found: list[str]) -> None:
    assert reached_at(hosts) == found
