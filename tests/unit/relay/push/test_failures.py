import ssl
from socket import gaierror

import pytest

from eas_watcher.proxy.faults import NotConnected
from eas_watcher.proxy.faults import proxy_refuses as refuses
from eas_watcher.proxy.proxy import Proxy
from relay.domain.outcome import Reach, Refused, RetryLater
from relay.network import faults
from relay.push.failures import read_failure


def proxy_refuses(status: int) -> NotConnected:
    return refuses(Proxy("proxy.example.com", 3128), "api.push.apple.com:443", status, ("Basic",))


def untrusted() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "self-signed certificate"
    return error


def reason(error: BaseException) -> str:
    """Return the reason of a failure that passes and concerns the whole provider."""
    outcome = read_failure(error, "apns.ca_file")
    assert isinstance(outcome, RetryLater)
    assert outcome.provider
    assert outcome.after is None
    assert "check" in outcome.remedy or "see" in outcome.remedy
    return outcome.reason


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(), "timed-out"),
        (gaierror(-2, "Name or service not known"), "name-not-resolved"),
        (ConnectionRefusedError(), "connection-refused"),
        (ConnectionResetError(), "connection-lost"),
        (OSError(113, "No route to host"), "network-unreachable"),
        (OSError(1, "Operation not permitted"), "network-failed: Operation not permitted"),
        (OSError("Multiple exceptions"), "network-failed: OSError"),
        (caused(RuntimeError(), ConnectionRefusedError()), "connection-refused"),
        (caused(OSError("a library's words"), ConnectionRefusedError()), "connection-refused"),
        (caused(OSError("a library's words"), OSError(101, "Network is unreachable")), "network-unreachable"),
        (RuntimeError(), "connection-lost: RuntimeError"),
    ],
)
def test_network_failures_pass(error: BaseException, expected: str) -> None:
    assert reason(error) == expected


@pytest.mark.parametrize("error", [proxy_refuses(407), caused(OSError("a library's words"), proxy_refuses(407))])
def test_a_fault_of_the_proxy_keeps_its_name_and_remedy(error: BaseException) -> None:
    outcome = read_failure(error, "apns.ca_file")

    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.channel) == ("proxy-authentication-required", True)
    assert outcome.reach is Reach.UNANSWERED
    assert not outcome.one_host
    assert "network.proxy_user" in outcome.remedy


@pytest.mark.parametrize(
    "error", [untrusted(), proxy_refuses(403), faults.no_source("push.example.com", ("10.0.0.1",))]
)
def test_a_fault_of_the_host_that_was_asked_need_not_concern_the_others(error: BaseException) -> None:
    outcome = read_failure(error, "webpush.ca_file")

    assert isinstance(outcome, Refused)
    assert (outcome.channel, outcome.one_host) == (True, True)


def test_a_proxy_that_cannot_reach_the_provider_is_tried_again() -> None:
    assert reason(proxy_refuses(502)) == "proxy-cannot-reach"


def test_a_failed_handshake_says_why_if_it_is_known() -> None:
    named = ssl.SSLError(1, "handshake failed")
    named.reason = "WRONG_VERSION_NUMBER"

    assert reason(named) == "tls-failed: WRONG_VERSION_NUMBER"
    silent = ssl.SSLError(1, "handshake failed")
    silent.reason = ""
    assert reason(silent) == "tls-failed: no reason given"


@pytest.mark.parametrize("error", [untrusted(), caused(RuntimeError(), untrusted())])
def test_an_untrusted_certificate_is_a_fault_of_the_channel_that_names_the_setting(error: BaseException) -> None:
    outcome = read_failure(error, "fcm.ca_file")

    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.channel) == ("certificate-not-trusted", True)
    assert outcome.reach is Reach.UNANSWERED
    assert "fcm.ca_file" in outcome.remedy
    assert "self-signed certificate" in outcome.remedy


@pytest.mark.parametrize("message", ["certificate has expired", "certificate is not yet valid"])
def test_a_certificate_that_is_too_old_or_too_young_may_show_a_wrong_clock(message: str) -> None:
    error = ssl.SSLCertVerificationError()
    error.verify_message = message

    outcome = read_failure(error, "fcm.ca_file")

    assert isinstance(outcome, Refused)
    assert outcome.remedy.startswith(f"{message} by the clock of this host, which may be ahead or behind")


def test_an_untrusted_certificate_without_any_message_is_still_one() -> None:
    outcome = read_failure(ssl.SSLCertVerificationError(), "fcm.ca_file")

    assert isinstance(outcome, Refused)
    assert outcome.remedy.startswith("it does not verify: set fcm.ca_file")


def test_an_error_raised_while_handling_another_is_read_to_its_origin() -> None:
    error = RuntimeError()
    error.__context__ = TimeoutError()

    assert reason(error) == "timed-out"


def test_a_chain_of_causes_that_is_a_loop_ends() -> None:
    first, second = RuntimeError(), ValueError()
    first.__cause__, second.__cause__ = second, first

    assert reason(first) == "connection-lost: RuntimeError"
