import pytest

from relay.api.rate import RateLimit, client_address
from relay.registration.errors import TooManyRequests


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


@pytest.mark.parametrize(
    ("peer", "forwarded", "behind_proxy", "client"),
    [
        ("192.0.2.1", None, False, "192.0.2.1"),
        ("192.0.2.1", "198.51.100.7", False, "192.0.2.1"),
        ("192.0.2.1", "198.51.100.7", True, "198.51.100.7"),
        ("192.0.2.1", "203.0.113.9, 198.51.100.7", True, "198.51.100.7"),
        ("192.0.2.1", "203.0.113.9, nonsense", True, "192.0.2.1"),
        ("192.0.2.1", "", True, "192.0.2.1"),
        ("192.0.2.1", None, True, "192.0.2.1"),
        (None, None, False, "unknown"),
    ],
)
def test_only_the_last_address_that_a_trusted_proxy_wrote_counts(
    peer: str | None, forwarded: str | None, behind_proxy: bool, client: str
) -> None:
    assert client_address(peer, forwarded, behind_proxy=behind_proxy) == client
