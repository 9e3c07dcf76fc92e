"""The EasError that an HTTP status means, before the body is read [MS-ASHTTP 2.2.2.1.1]."""

from collections.abc import Callable
from datetime import datetime
from types import MappingProxyType
from typing import Final

from eas_watcher.commands.reading import read_number
from eas_watcher.commands.request import HttpReply
from eas_watcher.commands.status import COMMON, raise_for_status
from eas_watcher.errors import (
    AccessDenied,
    EasError,
    NotProvisioned,
    ProtocolViolation,
    Redirected,
    RequestRefused,
    ServerBusy,
    Unauthorized,
    VersionRefused,
)
from eas_watcher.reasons import Reason
from eas_watcher.retry_after import retry_after
from eas_watcher.wbxml.decode import decode

FLOOR: Final = 1.0  # seconds; a shorter Retry-After counts as this
THROTTLED: Final = 60.0  # seconds; the shortest wait when the server says that it throttles us
QUOTA: Final = 900.0  # seconds; the wait for a full mailbox, which stays full until its user acts

THROTTLE: Final = "x-ms-asthrottle"

DENIED: Final = MappingProxyType(
    {
        403: (Reason.HTTP_403, "access is denied: ActiveSync is disabled for the user, or the device is blocked"),
        404: (Reason.HTTP_404, "nothing is there: the URL is not an ActiveSync server's"),
        405: (Reason.HTTP_405, "the URL does not take ActiveSync requests"),
        407: (Reason.HTTP_407, "a proxy wants authentication"),
        440: (Reason.HTTP_440, "a gateway before the server wants a login"),
        441: (Reason.HTTP_441, "a gateway before the server wants a login"),
        451: (Reason.HTTP_451, "the mailbox is served elsewhere, and the server does not say where"),
        456: (Reason.HTTP_456, "the account is blocked"),
        457: (Reason.HTTP_457, "the password has expired"),
    }
)
"""Status -> reason and text of AccessDenied. 440 and 441 come from publishing gateways, not the specification."""

REASON: Final = 4096  # octets; the body of a refusal that gives the cause has about 50
OK: Final = 200
FORBIDDEN: Final = 403
UNAUTHORIZED: Final = 401
NOT_PROVISIONED: Final = 449
ELSEWHERE: Final = 451
INSUFFICIENT_STORAGE: Final = 507
REDIRECTION: Final = range(300, 400)
SERVER_ERROR: Final = range(500, 600)
TOO_LARGE: Final = 413
VERSION: Final = frozenset({400, 505})
TURNED_AWAY: Final = frozenset({429, 503})  # the server did not process the request
GATEWAY: Final = frozenset({502, 504})  # a gateway got no answer, or none in time, from the server
GAVE_UP: Final = frozenset({*GATEWAY, 408, 524})  # a gateway's timeout, if a Ping was held [524: Cloudflare]
BUSY: Final = frozenset({408, 409, *TURNED_AWAY})
ABSENT: Final = frozenset({*TURNED_AWAY, *GATEWAY})
"""Statuses that concern all mailboxes of the server, unless the answer says that it throttles one device."""


def raise_for_http(reply: HttpReply, now: Callable[[], datetime]) -> None:
    """Raise the EasError that an answer means, unless it has status 200 and a body that is not a web page.

    `now` returns an aware datetime, because Retry-After may name a moment. Error texts have the status and fixed words
    only.
    """
    if reply.status != OK:
        if reply.status == FORBIDDEN:
            _raise_for_reason(reply)
        raise _error(reply, now())
    if reply.body and reply.headers.get("content-type", "").strip().lower().startswith("text/html"):
        raise ProtocolViolation("a web page came instead of an answer: a login form or a proxy is in between")


def _raise_for_reason(reply: HttpReply) -> None:
    """Raise for the common status in the body of a refusal, if it has one, which gives the cause [MS-ASHTTP 2.2.2.2.1].

    Nothing else is read from an answer with another status than 200.
    """
    wbxml = reply.headers.get("content-type", "").lower().startswith("application/vnd.ms-sync")
    if not wbxml or len(reply.body) > REASON:
        return
    try:
        status = read_number(decode(reply.body), "Status")
    except ProtocolViolation:
        return
    if status is not None and status in COMMON:
        raise_for_status(f"HTTP {reply.status} with", status)


def _error(reply: HttpReply, now: datetime) -> EasError:
    status = reply.status
    location = reply.headers.get("x-ms-location", "").strip()
    if status == UNAUTHORIZED:
        return Unauthorized("the server refuses the credential (HTTP 401)")
    if status == ELSEWHERE and location:
        return Redirected(location)
    if status in DENIED:
        reason, words = DENIED[status]
        return AccessDenied(f"{words} (HTTP {status})", reason)
    if status in REDIRECTION:
        # Never followed: a redirect could send a password to another host.
        return AccessDenied(f"the server redirects to elsewhere (HTTP {status})", Reason.HTTP_REDIRECT)
    return _temporary_error(reply, now)


def _temporary_error(reply: HttpReply, now: datetime) -> EasError:
    """Return the error of a status after which a retry may succeed."""
    status = reply.status
    if status == NOT_PROVISIONED:
        return NotProvisioned("the server wants its policy acknowledged (HTTP 449)")
    if status in VERSION:
        return VersionRefused(f"the server refuses the request's form or version (HTTP {status})")
    if status == TOO_LARGE:
        return RequestRefused(f"the server calls our request too large (HTTP {status})")
    if status == INSUFFICIENT_STORAGE:
        return ServerBusy("the mailbox is full (HTTP 507)", QUOTA)
    if status in BUSY or status in SERVER_ERROR:
        reached = status not in TURNED_AWAY
        shared = status in ABSENT and THROTTLE not in reply.headers
        return ServerBusy(f"the server cannot serve now (HTTP {status})", _wait(reply, now), reached, shared=shared)
    return ProtocolViolation(f"the server answered with the unexpected HTTP status {status}")


def _wait(reply: HttpReply, now: datetime) -> float | None:
    """Return how many seconds the server asks us to wait; None when it does not say."""
    seconds = retry_after(reply.headers.get("retry-after", ""), now)
    if THROTTLE in reply.headers:
        return max(seconds or 0.0, THROTTLED)
    return None if seconds is None else max(seconds, FLOOR)
