from ipaddress import IPv6Address

import pytest

from relay.api.rate import Allowance, RateLimit
from relay.registration.errors import TooManyRegistrations, TooManyRequests


class Seconds:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def spend(limit: RateLimit, address: str, times: int) -> None:
    for _ in range(times):
        limit.take(address)


def test_a_burst_is_free_and_then_the_rate_holds() -> None:
    seconds = Seconds()
    limit = RateLimit(6, seconds)
    spend(limit, "192.0.2.1", 6)

    with pytest.raises(TooManyRequests) as refusal:
        limit.take("192.0.2.1")
    assert refusal.value.retry_after == 10

    seconds.now += 9.9
    with pytest.raises(TooManyRequests) as refusal:
        limit.take("192.0.2.1")
    assert refusal.value.retry_after == 1

    seconds.now += 0.2
    limit.take("192.0.2.1")
    with pytest.raises(TooManyRequests):
        limit.take("192.0.2.1")


def test_a_pause_allows_a_burst_and_no_more() -> None:
    seconds = Seconds()
    limit = RateLimit(3, seconds)
    spend(limit, "192.0.2.1", 3)
    seconds.now += 3600

    spend(limit, "192.0.2.1", 3)
    with pytest.raises(TooManyRequests):
        limit.take("192.0.2.1")


def test_addresses_have_a_share_each() -> None:
    limit = RateLimit(1, Seconds())

    for address in ("192.0.2.1", "192.0.2.2", "2001:db8:0:1::1", "2001:db8:0:2::1", "unknown"):
        limit.take(address)


@pytest.mark.parametrize(
    ("one", "other"),
    [("2001:db8:0:1::1", "2001:db8:0:1:ffff::2"), ("192.0.2.1", "::ffff:192.0.2.1")],
)
def test_addresses_of_one_client_share(one: str, other: str) -> None:
    limit = RateLimit(1, Seconds())
    limit.take(one)

    with pytest.raises(TooManyRequests):
        limit.take(other)


def test_memory_is_bounded() -> None:
    limit = RateLimit(1, Seconds(), capacity=2)
    for number in range(5):
        limit.take(f"192.0.2.{number}")

    assert len(limit._buckets) == 2
    with pytest.raises(TooManyRequests):
        limit.take("192.0.2.4")


@pytest.mark.parametrize(("bits", "clients"), [(64, 1), (56, 4), (48, 16)])
def test_a_network_of_ipv6_has_a_few_limits_and_not_one_for_each_address(bits: int, clients: int) -> None:
    limit = RateLimit(2, Seconds())
    network = int(IPv6Address("2001:db8:1::"))
    step = {64: 1, 56: 1 << 64, 48: 1 << 72}[bits]  # from one narrower network to the next

    def ask() -> int:
        taken = 0
        for number in range(40):
            try:
                limit.take(str(IPv6Address(network + number * step)))
            except TooManyRequests:
                break
            taken += 1
        return taken

    assert ask() == 2 * clients


def test_a_refused_request_counts_nowhere() -> None:
    seconds = Seconds()
    limit = RateLimit(1, seconds)
    limit.take("2001:db8:0:1::1")
    for _ in range(10):
        with pytest.raises(TooManyRequests):
            limit.take("2001:db8:0:1::1")

    for net in (2, 3, 4):
        limit.take(f"2001:db8:0:{net}::1")
    with pytest.raises(TooManyRequests):
        limit.take("2001:db8:0:5::1")  # the fifth of one /56


def test_an_allowance_tells_what_is_left_and_when_all_is_back() -> None:
    seconds = Seconds()
    limit = RateLimit(6, seconds)
    assert limit.allowance("address", "192.0.2.1") == Allowance("address", 6, 60, 6, 0)

    spend(limit, "192.0.2.1", 6)
    assert limit.allowance("address", "192.0.2.1") == Allowance("address", 6, 60, 0, 60)

    seconds.now += 15
    assert limit.allowance("address", "192.0.2.1") == Allowance("address", 6, 60, 1, 45)


def test_an_allowance_is_that_of_the_scarcest_network() -> None:
    limit = RateLimit(2, Seconds())
    for number in range(4):
        spend(limit, f"2001:db8:0:{number}::1", 2)

    assert limit.allowance("address", "2001:db8:0:5::1") == Allowance("address", 2, 60, 0, 60)


def test_a_limit_refuses_by_its_own_error() -> None:
    limit = RateLimit(1, Seconds(), refusal=TooManyRegistrations)
    limit.take("192.0.2.1")

    with pytest.raises(TooManyRegistrations):
        limit.take("192.0.2.1")


def test_another_rate_holds_at_once_and_what_was_used_stays_used() -> None:
    seconds = Seconds()
    limit = RateLimit(6, seconds)
    for _ in range(4):
        limit.take("192.0.2.1")
    limit.allow(3)

    assert limit.allowance("address", "192.0.2.1").quota == 3
    limit.take("192.0.2.1")
    limit.take("192.0.2.1")
    with pytest.raises(TooManyRequests):
        limit.take("192.0.2.1")
