"""Own what it means when no answer came from a provider: which failures pass, and which an operator must mend."""

import ssl
from collections.abc import Iterator
from socket import gaierror
from typing import Final

from relay.push.outcome import Refused, RetryLater

NAMES: Final = (
    (TimeoutError, "timed-out"),
    (gaierror, "name-not-resolved"),
    (ConnectionRefusedError, "connection-refused"),
    (ConnectionError, "connection-lost"),
)


def read_failure(error: BaseException, ca_setting: str) -> RetryLater | Refused:
    """Read an exception of a connection; `ca_setting` names the setting that tells whom to trust.

    A certificate that does not verify is a channel fault: trying again mends nothing.
    """
    causes = list(_causes(error))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        # aiohttp's error of this kind has no message of its own, but the one it comes from has.
        messages = (getattr(cause, "verify_message", "") for cause in causes)
        remedy = (
            f"{next(filter(None, messages), 'it does not verify')}: set {ca_setting} to the CA that signs for the "
            "provider (or for the proxy that inspects TLS), and check that nothing else answers under its name"
        )
        return Refused("certificate-not-trusted", remedy, channel=True)
    return RetryLater(_name(causes))


def _name(causes: list[BaseException]) -> str:
    # The outer ones are often the library's and say less, so an exact name anywhere wins.
    for cause in causes:
        for kind, name in NAMES:
            if isinstance(cause, kind):
                return name
        if isinstance(cause, ssl.SSLError):
            return f"tls-failed: {cause.reason or 'no reason given'}"
    network = [cause for cause in causes if isinstance(cause, OSError)]
    if network:
        return f"network-failed: {network[-1].strerror or type(network[-1]).__name__}"
    return f"connection-lost: {type(causes[0]).__name__}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk from an exception to what it was raised from, innermost last; a broken chain ends after a few."""
    cause: BaseException | None = error
    for _ in range(8):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__
