import pytest

from eas_watcher.proxy import faults
from eas_watcher.proxy.faults import NotConnected
from eas_watcher.proxy.proxy import Proxy

PROXY = Proxy("proxy.example.com", 3128, user="relay", password="hunter2")
TICKETS = Proxy("p", 1, setting="servers.main.proxy", user="relay@EXAMPLE.COM", negotiates=True)
TARGET = "api.push.apple.com:443"


@pytest.mark.parametrize(
    ("fault", "reason", "lasting", "remedy"),
    [
        (faults.proxy_away(PROXY, OSError(-2, "unknown"), name_unknown=True), "proxy-name-not-resolved", False, "DNS"),
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
        (faults.proxy_wants_login(PROXY), "proxy-authentication-required", True, "refuses relay"),
        (faults.proxy_withheld(PROXY, 59.6), "proxy-authentication-required", True, "not shown for 60 s"),
        (faults.proxy_not_socks(PROXY, "it sings"), "proxy-speaks-no-socks", False, "it sings"),
        (faults.proxy_replies(PROXY, TARGET, "no", denied=True), "proxy-denied", True, TARGET),
        (faults.proxy_replies(PROXY, TARGET, "it is far", denied=False), "proxy-cannot-reach", False, "it is far"),
        (faults.proxy_ticket_missing(PROXY, "it is late"), "proxy-ticket-missing", False, "HTTP/proxy.example.com"),
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
        (PROXY, ("Negotiate", "NTLM"), 'takes Negotiate, NTLM only: set network.proxy_auth = "negotiate"'),
        (PROXY, ("NTLM", "Digest"), "takes NTLM, Digest only, the relay knows Basic"),
        (TICKETS, ("Basic",), 'set servers.main.proxy_auth = "basic"'),
        (TICKETS, ("Negotiate",), "refuses relay@EXAMPLE.COM: check servers.main.proxy_user"),
        (Proxy("p", 1, negotiates=True), (), "refuses the ticket of this process"),
        (PROXY, ("NTLM", "BASIC"), "refuses relay"),
        (Proxy("p", 1), ("Basic",), "set network.proxy_user and network.proxy_password_file"),
        (Proxy("p", 1, setting="apns.proxy", takes_user=False), ("Basic",), "move apns.proxy there"),
    ],
)
def test_the_remedy_for_a_407_says_what_is_missing(proxy: Proxy, schemes: tuple[str, ...], remedy: str) -> None:
    assert remedy in faults.proxy_refuses(proxy, TARGET, 407, schemes).remedy


def test_a_provider_of_its_own_proxy_has_no_key_for_its_ca() -> None:
    proxy = Proxy("proxy.example.com", 3128, setting="fcm.proxy", tls=True, takes_user=False)

    assert "move fcm.proxy to network.proxy" in faults.proxy_not_trusted(proxy, "self-signed").remedy


def test_the_key_that_names_the_proxy_is_the_one_to_correct() -> None:
    proxy = Proxy("proxy.example.com", 3128, setting="fcm.proxy")

    assert "fcm.proxy" in faults.proxy_away(proxy, ConnectionRefusedError()).remedy


def test_a_fault_that_is_known_already_is_not_blamed_on_the_proxy() -> None:
    fault = NotConnected("source-address-unusable", "set it")

    assert faults.proxy_away(PROXY, fault) is fault


def test_a_name_that_this_host_must_look_up_may_be_left_to_the_proxy() -> None:
    fault = faults.target_not_found(PROXY, "mail.example.com", OSError(-2, "unknown"))

    assert (fault.reason, fault.one_host) == ("target-name-not-resolved", True)
    assert "mail.example.com is not found here (unknown)" in fault.remedy
    assert "socks5h://" in fault.remedy
