from ipaddress import ip_network

import pytest

from relay.http.addresses import FORWARDED, Proxies, read_address, shares

INSIDE = (ip_network("10.0.0.2"), ip_network("10.1.0.0/28"), ip_network("2001:db8:ffff::/64"))
PROXIES = Proxies(INSIDE)


@pytest.mark.parametrize(
    ("said", "client"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("203.0.113.9, 198.51.100.7", "198.51.100.7"),
        ("198.51.100.7:51234", "198.51.100.7"),  # IIS ARR, Azure Application Gateway
        ("203.0.113.9, 198.51.100.7:51234", "198.51.100.7"),
        ("203.0.113.9:1,198.51.100.7:51234", "198.51.100.7"),
        ("198.51.100.7:", "198.51.100.7"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
        ("2001:db8:0:0:0:0:0:7:443", "2001:db8::7"),  # a port that cannot be a group of the address
        ("2001:db8::7:51234", "2001:db8::7"),
        ("198.51.100.7%1", "198.51.100.7"),  # F5 with its route domain
        ("2001:DB8:0::7", "2001:db8::7"),
        ('"[2001:db8::7]:443"', "2001:db8::7"),
        ('"198.51.100.7"', "198.51.100.7"),
        ("fe80::7%eth0", "fe80::7"),
        ("[fe80::7%25eth0]:443", "fe80::7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("[::ffff:198.51.100.7]:51234", "198.51.100.7"),
        (" , 198.51.100.7 , ", "198.51.100.7"),
        ("198.51.100.7,,10.1.0.3", "198.51.100.7"),
        ("203.0.113.9, 198.51.100.7, 10.1.0.3:80, 10.1.0.4", "198.51.100.7"),  # through several of our proxies
        ("198.51.100.7, ::ffff:10.1.0.3", "198.51.100.7"),
        ("198.51.100.7, [2001:db8:ffff::1]:8080", "198.51.100.7"),
        ("10.1.0.3", "10.1.0.3"),  # one of our proxies asks for itself
        ("198.51.100.7, unknown", "10.0.0.2"),
        ("198.51.100.7, unknown, 10.1.0.3", "10.1.0.3"),
        ("198.51.100.7, nonsense", "10.0.0.2"),
        ("198.51.100.7, 1.2.3.4.5:80", "10.0.0.2"),
        ("198.51.100.7, [2001:db8::7", "10.0.0.2"),
        ("198.51.100.7, for=203.0.113.9", "10.0.0.2"),
        ("", "10.0.0.2"),
        (", ,", "10.0.0.2"),
    ],
)
def test_the_last_address_that_no_proxy_of_ours_has_is_the_client(said: str, client: str) -> None:
    assert PROXIES.client("10.0.0.2", [said]) == client


@pytest.mark.parametrize(
    ("said", "client"),
    [
        ("for=198.51.100.7", "198.51.100.7"),
        ('For="198.51.100.7:51234";proto=https', "198.51.100.7"),
        ('proto=https; for="[2001:db8::7]:443"; by=203.0.113.1', "2001:db8::7"),
        ("for=203.0.113.9, for=198.51.100.7;by=10.0.0.2", "198.51.100.7"),
        ('for=198.51.100.7, for="10.1.0.3"', "198.51.100.7"),
        ("for=198.51.100.7:_port", "198.51.100.7"),
        ('for=198.51.100.7;host="a,for=203.0.113.9"', "198.51.100.7"),
        ('for=198.51.100.7;host="a\\",for=203.0.113.9;b=\\"c"', "198.51.100.7"),
        ('host="a;for=203.0.113.9";for=198.51.100.7', "198.51.100.7"),
        ('for=203.0.113.9;b=", for="[2001:db8::7]"', "2001:db8::7"),  # a client left a quote open
        ('for="203.0.113.9, for=198.51.100.7', "198.51.100.7"),
        ("for=unknown", "10.0.0.2"),
        ("for=_hidden", "10.0.0.2"),
        ("proto=https", "10.0.0.2"),
        ("198.51.100.7", "10.0.0.2"),
        ("for", "10.0.0.2"),
        (";;=,", "10.0.0.2"),
        ("", "10.0.0.2"),
    ],
)
def test_forwarded_names_the_client_in_its_own_grammar(said: str, client: str) -> None:
    assert Proxies(INSIDE, FORWARDED).client("10.0.0.2", [said]) == client


def test_several_headers_are_one_list() -> None:
    assert PROXIES.client("10.0.0.2", ["203.0.113.9", "198.51.100.7, 10.1.0.3", "", "10.1.0.4"]) == "198.51.100.7"


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("10.1.0.16", "10.1.0.16"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        (None, "unknown"),
        ("/run/socket", "/run/socket"),
    ],
)
def test_nobody_else_is_believed(peer: str | None, client: str) -> None:
    assert PROXIES.client(peer, ["198.51.100.7"]) == client
    assert Proxies().client("10.0.0.2", ["198.51.100.7"]) == "10.0.0.2"


def test_a_proxy_may_come_over_a_socket_for_both_versions_of_ip() -> None:
    assert PROXIES.client("::ffff:10.0.0.2", ["198.51.100.7"]) == "198.51.100.7"


def test_an_endless_list_is_not_read_to_its_beginning() -> None:
    assert PROXIES.client("10.0.0.2", ["198.51.100.7," + "10.1.0.3," * 10_000]) == "10.1.0.3"


def test_the_networks_of_a_client_get_wider() -> None:
    assert shares("2001:db8:1:203::5%eth0") == (
        ("2001:db8:1:203::/64", 1),
        ("2001:db8:1:200::/56", 4),
        ("2001:db8:1::/48", 16),
    )
    assert shares("::ffff:192.0.2.1") == shares("192.0.2.1") == (("192.0.2.1", 1),)
    assert shares("unknown") == (("unknown", 1),)


@pytest.mark.parametrize("text", [None, "", "example.com", "192.0.2", "[2001:db8::1]"])
def test_what_is_no_address_is_none(text: str | None) -> None:
    assert read_address(text) is None
