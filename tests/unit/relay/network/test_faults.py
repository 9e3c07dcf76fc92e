import socket

import pytest

from relay.network import faults
from relay.network.faults import NotConnected
from relay.network.route import Proxy

PROXY = Proxy("proxy.example.com", 3128, user="relay", password="hunter2")
TARGET = "api.push.apple.com:443"


@pytest.mark.parametrize(
    ("fault", "reason", "lasting", "remedy"),
    [
        (faults.proxy_away(PROXY, socket.gaierror(-2, "unknown")), "proxy-name-not-resolved", False, "DNS"),
        (faults.proxy_away(PROXY, ConnectionRefusedError(111, "refused")), "proxy-refused", False, "that it runs"),
        (faults.proxy_away(PROXY, OSError(113, "No route to host")), "proxy-unreachable", False, "No route to host"),
        (faults.proxy_away(PROXY, OSError("Multiple exceptions")), "proxy-unreachable", False, "Multiple exceptions"),
        (faults.proxy_timed_out(PROXY, "connection"), "proxy-timed-out", False, "no connection in time"),
        (
            faults.proxy_not_trusted(PROXY, "self-signed"),
            "proxy-certificate-not-trusted",
            True,
            "network.proxy_ca_file",
        ),
        (faults.proxy_not_trusted(PROXY, ""), "proxy-certificate-not-trusted", True, "does not verify"),
        (faults.proxy_without_tls(PROXY, "WRONG_VERSION_NUMBER"), "proxy-tls-failed", False, "http://"),
        (faults.proxy_not_http(PROXY, "it sings"), "proxy-speaks-no-http", False, "it sings"),
        (faults.proxy_hangs_up(PROXY), "proxy-hangs-up", False, "its log"),
        (faults.proxy_refuses(PROXY, TARGET, 403, ()), "proxy-denied", True, TARGET),
        (faults.proxy_refuses(PROXY, TARGET, 405, ()), "proxy-denied", True, "405"),
        (faults.proxy_refuses(PROXY, TARGET, 302, ()), "proxy-denied", True, "302"),
        (faults.proxy_refuses(PROXY, TARGET, 502, ()), "proxy-cannot-reach", False, "502"),
        (faults.proxy_refuses(PROXY, TARGET, 504, ()), "proxy-cannot-reach", False, TARGET),
        (faults.proxy_refuses(PROXY, TARGET, 407, ()), "proxy-authentication-required", True, "refuses relay"),
        (faults.proxy_refuses(PROXY, TARGET, 401, ()), "proxy-authentication-required", True, "refuses relay"),
    ],
)
def test_each_fault_of_a_proxy_has_a_name_and_says_what_to_do(
    fault: NotConnected, reason: str, lasting: bool, remedy: str
) -> None:
    assert (fault.reason, fault.lasting) == (reason, lasting)
    assert remedy in fault.remedy
    assert "proxy.example.com:3128" in fault.remedy
    assert "hunter2" not in fault.remedy
    assert str(fault) == reason


@pytest.mark.parametrize(
    ("proxy", "schemes", "remedy"),
    [
        (PROXY, ("Basic",), "refuses relay: check network.proxy_user and network.proxy_password_file"),
        (PROXY, ("Negotiate", "NTLM"), "takes Negotiate, NTLM only"),
        (PROXY, ("NTLM", "BASIC"), "refuses relay"),
        (Proxy("p", 1), ("Basic",), "set network.proxy_user and network.proxy_password_file"),
        (Proxy("p", 1, setting="apns.proxy"), ("Basic",), "move apns.proxy there"),
    ],
)
def test_the_remedy_for_a_407_says_what_is_missing(proxy: Proxy, schemes: tuple[str, ...], remedy: str) -> None:
    assert remedy in faults.proxy_refuses(proxy, TARGET, 407, schemes).remedy


def test_the_key_that_names_the_proxy_is_the_one_to_correct() -> None:
    proxy = Proxy("proxy.example.com", 3128, setting="fcm.proxy")

    assert "fcm.proxy" in faults.proxy_away(proxy, ConnectionRefusedError()).remedy


def test_a_fault_with_the_source_address_is_not_blamed_on_the_proxy() -> None:
    fault = faults.source_unusable(OSError(99, "Cannot assign requested address: 192.0.2.1"))

    assert faults.proxy_away(PROXY, fault) is fault
    assert (fault.reason, fault.lasting) == ("source-address-unusable", True)
    assert "(Cannot assign requested address: 192.0.2.1)" in fault.remedy


def test_the_remedy_for_hanging_name_servers_names_the_host() -> None:
    fault = faults.lookup_hangs("api.push.apple.com")

    assert (fault.reason, fault.lasting) == ("name-lookup-timed-out", False)
    assert "api.push.apple.com" in fault.remedy
    assert faults.proxy_away(PROXY, fault) is fault


def test_the_remedy_for_a_source_address_of_another_kind_names_host_and_addresses() -> None:
    fault = faults.no_source("ipv6.example.com", ("192.0.2.1",))

    assert (fault.reason, fault.lasting) == ("source-address-of-another-kind", True)
    assert "ipv6.example.com has no address that 192.0.2.1 can reach" in fault.remedy
