"""The cookies of one mailbox, in which servers keep load-balancer and back-end affinity [MS-ASHTTP 2.2.1.2.2.4].

They are read as browsers do [RFC 6265 5]: values are kept as they are, whatever quotes or JSON they hold. They belong
to one user, so they are never shared between mailboxes and never stored. The input is not trusted: every length and
number is bounded, and all work is linear.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address
from math import inf
from re import ASCII, IGNORECASE
from re import compile as pattern
from sys import intern
from typing import Final
from urllib.parse import SplitResult, urlsplit

READ: Final = 50  # Set-Cookie headers of one answer; the rest is ignored
LARGEST: Final = 4096  # octets of name and value; a larger cookie is ignored [RFC 6265 6.1]
ATTRIBUTE: Final = 1024  # characters; a longer value of an attribute is ignored [RFC 6265bis 5.6]
KEPT: Final = 20  # cookies; Exchange sets three, a balancer before it one or two more
OCTETS: Final = 8192  # of all names and values: servers refuse a longer Cookie header
LONGEST: Final = 400 * 86_400.0  # seconds; a later expiry is moved to this [RFC 6265bis 5.5]
PLACES: Final = 256  # URLs that are kept; a fleet asks a few servers
FAILURES: Final = 3  # in a row, with cookies sent, until they are suspected and forgotten

BLAMED: Final = frozenset({301, 302, 303, 307, 308, 400, 401, 403, 431, 440, 441})
"""Answers after which cookies are forgotten at once: a login form, a refusal or a header that is
too long may be due to a cookie, and without cookies a server chooses another back end."""
FAILED: Final = range(500, 600)

_CONTROL: Final = pattern(r"[\x00-\x08\x0a-\x1f\x7f]")
_SECONDS: Final = pattern(r"-?[0-9]+")
_DELIMITER: Final = pattern(r"[\t -/;-@\[-`{-~]+")  # [RFC 6265 5.1.1]
_TIME: Final = pattern(r"([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})(?![0-9])", ASCII)
_DAY: Final = pattern(r"([0-9]{1,2})(?![0-9])", ASCII)
_MONTH: Final = pattern(r"jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec", IGNORECASE)
_YEAR: Final = pattern(r"([0-9]{2,4})(?![0-9])", ASCII)
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_FIRST_YEAR: Final = 1601


@dataclass(frozen=True, slots=True)
class Cookie:
    """One cookie as a user agent stores it [RFC 6265 5.3]; moments are seconds since 1970."""

    name: str
    value: str = field(repr=False)
    domain: str
    """Lower-case, without a leading dot."""
    path: str
    host_only: bool
    secure: bool
    created: float
    expires: float = inf
    """inf: with the session, which ends with the process or when the cookies are forgotten."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells cookies apart."""
        return self.name, self.domain, self.path

    @property
    def octets(self) -> int:
        """The length of name and value."""
        return len(self.name.encode()) + len(self.value.encode())


class CookieJar:
    """The cookies of one mailbox at one server; forgotten when they may be what makes its requests fail."""

    __slots__ = ("_failures", "_kept")

    def __init__(self) -> None:
        """Start without any."""
        self._kept: tuple[Cookie, ...] = ()
        self._failures = 0

    def header(self, url: str, now: Callable[[], datetime]) -> str:
        """Return the value of the Cookie header of a request; empty without cookies for it."""
        expiring = [cookie for cookie in self._kept if cookie.expires != inf]  # most are of the session
        return header(self._kept, url, now().timestamp() if expiring else 0.0) if self._kept else ""

    def answered(self, status: int, set_cookies: Iterable[str], url: str, now: Callable[[], datetime]) -> None:
        """Keep the cookies of an answer; forget the earlier ones if they are suspected."""
        if status in BLAMED:
            self.forget()
        elif status in FAILED:
            self.unanswered()
        if set_cookies:
            self._kept = merge(self._kept, set_cookies, url, now().timestamp())

    def worked(self) -> None:
        """Note that an answer was a good one."""
        self._failures = 0

    def unanswered(self) -> None:
        """Note that a request failed at the server; the cookies are forgotten after a few of them in a row."""
        if self._kept:
            self._failures += 1
            if self._failures >= FAILURES:
                self.forget()

    def forget(self) -> None:
        """Drop all cookies."""
        self._kept, self._failures = (), 0


def merge(kept: tuple[Cookie, ...], set_cookies: Iterable[str], url: str, now: float) -> tuple[Cookie, ...]:
    """Return the cookies after an answer from a URL that set some; the one that was set last stands last."""
    cookies = {cookie.key: cookie for cookie in kept if cookie.expires > now}
    parts = urlsplit(url)
    for line in list(set_cookies)[:READ]:
        cookie = read(line, parts, now)
        if cookie is None:
            continue
        old = cookies.pop(cookie.key, None)
        if cookie.expires > now:
            cookies[cookie.key] = (
                cookie if old is None else replace(cookie, created=old.created)
            )  # [RFC 6265 5.3, step 11]
    return _bounded(list(cookies.values()))


def header(kept: Iterable[Cookie], url: str, now: float) -> str:
    """Return the value of the Cookie header of a request [RFC 6265 5.4]; empty without cookies for it."""
    host, path, secure = _place(url)
    sent = [
        cookie
        for cookie in kept
        if cookie.expires > now
        and (host == cookie.domain or (not cookie.host_only and domain_matches(host, cookie.domain)))
        and path_matches(path, cookie.path)
        and (secure or not cookie.secure)
    ]
    if len(sent) > 1:
        sent.sort(key=lambda cookie: (-len(cookie.path), cookie.created))
    return "; ".join([f"{cookie.name}={cookie.value}" for cookie in sent])


def read(line: str, url: SplitResult, now: float) -> Cookie | None:
    """Read one Set-Cookie header of an answer from a URL [RFC 6265 5.2, 5.3]; None if it is to be ignored.

    A cookie whose expiry is past is one to delete.
    """
    pair, *given = line.split(";")
    name, equals, value = (part.strip(" \t") for part in pair.partition("="))
    if not equals or not name or _CONTROL.search(line) or not _sendable(name + value):
        return None
    attributes: dict[str, str] = {}
    for attribute in given:
        key, _, said = attribute.partition("=")
        if len(said) <= ATTRIBUTE:
            attributes[key.strip(" \t").lower()] = said.strip(" \t")
    host = _host(url)
    domain = attributes.get("domain", "").removeprefix(".").lower()
    if domain and not domain_matches(host, domain):
        return None
    secure = "secure" in attributes
    if secure and url.scheme != "https":
        return None
    path = attributes.get("path", "")
    return Cookie(
        # One object for the mailboxes of a server, which differ in values alone.
        intern(name),
        value,
        intern(domain or host),
        intern(path if path.startswith("/") else default_path(url.path)),
        host_only=not domain,
        secure=secure,
        created=now,
        expires=_expiry(attributes, now),
    )


def domain_matches(host: str, domain: str) -> bool:
    """Return True if a host is a domain or below it [RFC 6265 5.1.3]; both are lower-case."""
    if host == domain:
        return True
    return host.endswith(f".{domain}") and "." in domain and not _is_address(host)


def default_path(path: str) -> str:
    """Return the path of a cookie that names none [RFC 6265 5.1.4]."""
    return path[: path.rfind("/")] or "/" if path.startswith("/") else "/"


def path_matches(path: str, cookie_path: str) -> bool:
    """Return True if a request's path is a cookie's or below it [RFC 6265 5.1.4]."""
    if path == cookie_path:
        return True
    return path.startswith(cookie_path) and (cookie_path.endswith("/") or path[len(cookie_path)] == "/")


def read_date(text: str) -> float | None:
    """Return the moment that the Expires attribute names, in seconds since 1970; None if none [RFC 6265 5.1.1]."""
    time: tuple[int, int, int] | None = None
    day = month = year = None
    for token in _DELIMITER.split(text):
        if time is None and (found := _TIME.match(token)):
            time = int(found[1]), int(found[2]), int(found[3])
        elif day is None and (found := _DAY.match(token)):
            day = int(found[1])
        elif month is None and (found := _MONTH.match(token)):
            month = _MONTHS.index(found[0].lower()) + 1
        elif year is None and (found := _YEAR.match(token)):
            year = _century(int(found[1]))
    if time is None or day is None or month is None or year is None or year < _FIRST_YEAR:
        return None
    try:
        hour, minute, second = time
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _century(year: int) -> int:
    if 70 <= year <= 99:  # noqa: PLR2004 -- [RFC 6265 5.1.1]
        return year + 1900
    return year + 2000 if year <= 69 else year  # noqa: PLR2004 -- [RFC 6265 5.1.1]


def _expiry(attributes: dict[str, str], now: float) -> float:
    """Return when a cookie ends: Max-Age comes before Expires, and what cannot be read is as if it were missing."""
    seconds = attributes.get("max-age", "")
    if _SECONDS.fullmatch(seconds):
        return -inf if float(seconds) <= 0 else now + min(float(seconds), LONGEST)
    moment = read_date(attributes.get("expires", ""))
    return inf if moment is None else min(moment, now + LONGEST)


def _bounded(cookies: list[Cookie]) -> tuple[Cookie, ...]:
    """Return the cookies that were set last, as many as are kept."""
    octets = 0
    for place, cookie in enumerate(reversed(cookies)):
        octets += cookie.octets
        if octets > OCTETS or place >= KEPT:
            return tuple(cookies[len(cookies) - place :])
    return tuple(cookies)


def _sendable(text: str) -> bool:
    """Return True if a request can carry a text: its octets are UTF-8, and few enough."""
    try:
        return len(text.encode()) <= LARGEST
    except UnicodeEncodeError:
        return False


@lru_cache(maxsize=PLACES)
def _place(url: str) -> tuple[str, str, bool]:
    """Return the host and the path of a URL, and whether it is one of https."""
    parts = urlsplit(url)
    return _host(parts), parts.path or "/", parts.scheme == "https"


def _host(url: SplitResult) -> str:
    return (url.hostname or "").lower()


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
