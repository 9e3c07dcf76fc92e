import ssl
from socket import gaierror

import pytest

from relay.push.failures import read_failure
from relay.push.outcome import Refused, RetryLater

UNREACHABLE = "network-failed: Network is unreachable"


def untrusted() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "self-signed certificate"
    return error


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), "timed-out"),
        (gaierror(-2, "Name or service not known"), "name-not-resolved"),
        (ConnectionRefusedError(), "connection-refused"),
        (ConnectionResetError(), "connection-lost"),
        (OSError(113, "No route to host"), "network-failed: No route to host"),
        (OSError("Multiple exceptions"), "network-failed: OSError"),
        (caused(RuntimeError(), ConnectionRefusedError()), "connection-refused"),
        (caused(OSError("a library's words"), ConnectionRefusedError()), "connection-refused"),
        (caused(OSError("a library's words"), OSError(101, "Network is unreachable")), UNREACHABLE),
        (RuntimeError(), "connection-lost: RuntimeError"),
    ],
)
def test_network_failures_pass(error: BaseException, reason: str) -> None:
    assert read_failure(error, "apns.ca_file") == RetryLater(reason)


def test_a_failed_handshake_says_why_when_it_knows() -> None:
    told = ssl.SSLError(1, "handshake failed")
    told.reason = "WRONG_VERSION_NUMBER"

    assert read_failure(told, "apns.ca_file") == RetryLater("tls-failed: WRONG_VERSION_NUMBER")
    silent = ssl.SSLError(1, "handshake failed")
    silent.reason = ""
    assert read_failure(silent, "apns.ca_file") == RetryLater("tls-failed: no reason given")


@pytest.mark.parametrize("error", [untrusted(), caused(RuntimeError(), untrusted())])
def test_a_certificate_nobody_trusts_is_a_fault_of_the_channel_that_names_the_setting(error: BaseException) -> None:
    outcome = read_failure(error, "fcm.ca_file")

    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.channel) == ("certificate-not-trusted", True)
    assert "fcm.ca_file" in outcome.remedy
    assert "self-signed certificate" in outcome.remedy


def test_an_untrusted_certificate_without_any_message_is_still_one() -> None:
    outcome = read_failure(ssl.SSLCertVerificationError(), "fcm.ca_file")

    assert isinstance(outcome, Refused)
    assert outcome.remedy.startswith("it does not verify: set fcm.ca_file")


def test_an_error_raised_while_handling_another_is_read_to_its_origin() -> None:
    error = RuntimeError()
    error.__context__ = TimeoutError()

    assert read_failure(error, "apns.ca_file") == RetryLater("timed-out")


def test_a_chain_without_end_is_left() -> None:
    first, second = RuntimeError(), ValueError()
    first.__cause__, second.__cause__ = second, first

    assert read_failure(first, "apns.ca_file") == RetryLater("connection-lost: RuntimeError")
