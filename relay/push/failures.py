"""What it means that a provider did not answer: which failures pass, and which an operator must correct."""

import errno
import ssl
from collections.abc import Iterator
from socket import gaierror
from typing import Final

from eas_watcher.proxy.faults import NotConnected
from eas_watcher.transport.tls import remedy_of
from relay.domain.outcome import Reach, Refused, RetryLater

WAY_OUT: Final = "routes and firewall of this host, and network.proxy if a proxy is the way out"
KINDS: Final = (
    (TimeoutError, "timed-out", f"no answer in time: check {WAY_OUT}"),
    (
        gaierror,
        "name-not-resolved",
        "its name is not found: check this host's DNS, or set network.proxy if only a proxy knows names outside",
    ),
    (ConnectionRefusedError, "connection-refused", f"nothing takes connections there: check the port, {WAY_OUT}"),
    (ConnectionError, "connection-lost", "see whether a firewall or a proxy on the way cuts connections"),
)
UNREACHABLE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})


def read_failure(error: BaseException, ca_setting: str) -> RetryLater | Refused:
    """Return the outcome for a connection's exception; `ca_setting` names the setting that holds the trusted CAs.

    A failure that no retry can mend is a channel fault: a certificate that does not verify, a proxy's 407.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, NotConnected):
            if cause.lasting:
                return _lasting(cause.reason, cause.remedy, one_host=cause.one_host)
            return _later(cause.reason, cause.remedy)
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        # aiohttp's own error has no message; the ssl error that it was raised from has.
        messages = (getattr(cause, "verify_message", "") for cause in causes)
        message = next(filter(None, messages), "it does not verify")
        if "expired" in message or "not yet valid" in message:
            message += " by the clock of this host, which may be ahead or behind"
        known = next(filter(None, map(remedy_of, causes)), "")
        to_do = known or f"set {ca_setting} to the CA that signs for the provider (or for the proxy that inspects TLS)"
        remedy = f"{message}: {to_do}, and check that nothing else answers under the provider's name"
        return _lasting("certificate-not-trusted", remedy, one_host=True)
    return _read(causes)


def _read(causes: list[BaseException]) -> RetryLater:
    # The outer exceptions are often a library's and say less, so an exact type anywhere in the chain decides.
    for cause in causes:
        for kind, reason, remedy in KINDS:
            if isinstance(cause, kind):
                return _later(reason, remedy)
        if isinstance(cause, ssl.SSLError):
            remedy = f"something on the way speaks no TLS, or an old one: check host and port, {WAY_OUT}"
            return _later(f"tls-failed: {cause.reason or 'no reason given'}", remedy)
    network = [cause for cause in causes if isinstance(cause, OSError)]
    if any(cause.errno in UNREACHABLE for cause in network):
        return _later("network-unreachable", f"no way leads there: check {WAY_OUT}")
    if network:
        detail = network[-1].strerror or type(network[-1]).__name__
        return _later(f"network-failed: {detail}", f"check {WAY_OUT}")
    return _later(f"connection-lost: {type(causes[0]).__name__}", "see whether a firewall or a proxy cuts connections")


def _lasting(reason: str, remedy: str, *, one_host: bool) -> Refused:
    return Refused(reason, remedy, channel=True, reach=Reach.UNANSWERED, one_host=one_host)


def _later(reason: str, remedy: str) -> RetryLater:
    """Return an outcome that concerns the whole provider: if it is out of reach for one push, it is for the next."""
    return RetryLater(reason, remedy=remedy, provider=True)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that it was raised from, innermost last; at most eight, as a chain may be a loop."""
    cause: BaseException | None = error
    for _ in range(8):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__
