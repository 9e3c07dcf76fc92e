"""What an answer of a push service means [RFC 8030 5, 7.3, 8.4; RFC 8292 4.2]."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from eas_watcher.retry_after import retry_after
from relay.domain.outcome import Delivered, Outcome, Refused, RetryLater, TokenGone

TAKEN: Final = frozenset({200, 201, 202, 204})
"""201 is the usual answer [RFC 8030 5]; 202 promises a receipt, and services in closed networks answer 200 or 204."""
NOT_FOUND: Final = 404
GONE: Final = 410
TOO_LARGE: Final = 413
TOO_MANY: Final = 429
REDIRECT: Final = range(300, 400)
KEY_REFUSALS: Final = frozenset({400, 401, 403})
"""Answers to a VAPID token that a service does not accept; all three are in use."""
PASSING: Final = frozenset({408, 425, TOO_MANY})
SERVER_ERRORS: Final = range(500, 600)

QUOTA_PAUSE: Final = 60.0  # seconds that a push waits after a 429 that names no time; its service need not rest for it

ONE_KEY: Final = (
    "the push service refuses our VAPID key for this subscription: it was made for another key, or is read-only there; "
    "let the app subscribe with the key that `relay vapid` prints, and register again"
)
ALL_KEYS: Final = (
    "the push service refuses our VAPID key for every subscription: put back the key of webpush.vapid_key_file that "
    "apps subscribed with, check webpush.subject and the clock of this host"
)
MISSING: Final = (
    "the push service knows no such subscription: if it is the same for all, its path or a proxy before it is set up "
    "wrongly; else the app must subscribe again. A subscription that stays unknown is given up by itself"
)
REDIRECTED: Final = "the push service sends elsewhere, which is not followed: let the app subscribe again"
LARGE: Final = "the push service takes no messages of this size; WebPush wants 4096 bytes taken: look at its limits"
STRANGER: Final = "what answers is no push service: check the endpoint's host, and proxies before it"
OWN_FAULT: Final = (
    "the push service takes pushes to others and none to this subscription: open the app there, and the app that "
    "its pushes come through (e.g. ntfy); if it lasts, the app must subscribe again"
)
NOBODY_LISTENS: Final = (
    "the push service keeps nothing for this subscription, for no phone has listened to it for long: open the app that "
    "the phone's pushes come through (e.g. ntfy) there; if it lasts, the app must subscribe again"
)
PAGE: Final = RetryLater(
    "not-a-push-service", remedy="a page answers in the push service's place: check proxies that open TLS, and its host"
)
"""The outcome for a web page, whatever its status: no push service has accepted the push."""

NO_STORAGE: Final = 507
"""An answer of ntfy: the topic of a subscription has had no listener lately [observed: ntfy 2.11]."""

REMEDIES: Final[Mapping[int, str]] = {NOT_FOUND: MISSING, TOO_LARGE: LARGE}


def read_webpush(status: int, headers: Mapping[str, str], now: datetime, *, proved: bool = False) -> Outcome:
    """Return the outcome of an answer; header names are lower-case.

    410 ends a subscription, for only a push service answers so. 404 is the answer for an expired subscription, but also
    that of a reverse proxy with a wrong path. So 404 ends one only if other subscriptions prove it (`proved`; see
    services.py), and a refused key is the channel's fault only with the same proof.
    """
    name = f"http-{status}"
    if status in TAKEN:
        return Delivered()
    if status == GONE or (status == NOT_FOUND and proved):
        return TokenGone(name)
    if passes(status):
        after = named_wait(headers, now)
        return RetryLater(name, QUOTA_PAUSE if after is None and status == TOO_MANY else after)
    if status in KEY_REFUSALS:
        return Refused(name, ALL_KEYS if proved else ONE_KEY, channel=proved)
    return Refused(name, REDIRECTED if status in REDIRECT else REMEDIES.get(status, STRANGER))


def named_wait(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return how many seconds a service asks to be left alone; None: it names no time."""
    return retry_after(headers.get("retry-after", ""), now)


def own_fault(outcome: RetryLater) -> RetryLater | Refused:
    """Return what it means that a subscription fails again and again while others of its service are answered.

    A time that the service named is waited for; all else is the fault of this subscription, and may pass by itself.
    """
    if outcome.after is not None:
        return outcome
    remedy = NOBODY_LISTENS if outcome.reason == f"http-{NO_STORAGE}" else OWN_FAULT
    return Refused(outcome.reason, remedy, passing=True)


def is_page(body: bytes) -> bool:
    """Return whether a body starts like a web page: that of a proxy, a portal, or the web server of a wrong path."""
    return body[:64].lstrip().lower().startswith((b"<!doctype html", b"<html"))


def passes(status: int) -> bool:
    """Return whether an answer says only that the service cannot take the push now."""
    return status in PASSING or status in SERVER_ERRORS
