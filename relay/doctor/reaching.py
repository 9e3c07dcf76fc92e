"""The way to a server, step by step: its name, its addresses, its TLS. Nothing is sent but handshakes."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from eas_watcher.proxy.faults import NotConnected
from eas_watcher.proxy.proxy import Proxy, authority
from eas_watcher.transport.connecting import connect_socket
from eas_watcher.transport.http2_pool import ALPN, HTTP_2
from eas_watcher.transport.lookups import AddressInfo, LookUp, look_up
from eas_watcher.transport.sources import Sources
from eas_watcher.transport.tls import client_context
from relay.doctor.certificates import Shown, describe, judge_failure, judge_shown
from relay.doctor.examination import Once
from relay.doctor.finding import Finding, Subject
from relay.domain.clock import Clock
from relay.http.addresses import read_address
from relay.network.dialling import Dialler
from relay.network.route import DIRECT, Route

LOOKUP: Final = 4.0  # seconds for a name; a dead name server costs 5 s of an answer [resolv.conf(5)]
CONNECT: Final = 3.0  # seconds for TCP to one address
HANDSHAKE: Final = 4.0  # seconds for TLS, through a proxy with its tunnel
MOST: Final = 8  # addresses of a name that are tried
HTTPS: Final = 443
UNREACHABLE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})

NO_NAME: Final = "check the name, and the name servers in /etc/resolv.conf of this host"
NO_SERVER: Final = "no name server answers: check /etc/resolv.conf of this host, and the way to its name servers"
NOT_TAKEN: Final = "check that it runs and takes connections, and that firewalls let this host through to the port"


@dataclass(frozen=True, slots=True)
class Place:
    """A server, how connections to it are made, and which CAs are trusted for it."""

    name: str
    """For findings: its table or key in relay.toml."""
    host: str
    port: int
    ca_file: Path | None = None
    ca_setting: str = ""
    """The key of relay.toml for these CAs."""
    route: Route = DIRECT
    source_setting: str = "network.source_address"
    """The key of relay.toml for the addresses of the route."""


def place_of(name: str, url: str, ca_file: Path | None, ca_setting: str, route: Route = DIRECT) -> Place:
    """Return the place of an https URL."""
    parts = urlsplit(url)
    return Place(name, parts.hostname or "", parts.port or HTTPS, ca_file, ca_setting, route)


@dataclass(frozen=True, slots=True)
class Way:
    """What was found on the way to a server."""

    findings: tuple[Finding, ...]
    open: bool
    """True if a request can be sent."""


async def reach(place: Place, now: Clock, look_up: LookUp = look_up) -> Way:
    """Look the server's name up, connect to each of its addresses, and make a TLS handshake.

    Behind a proxy the first two are the proxy's work.
    """
    if place.route.proxy is not None:
        shaken, is_open = await shake(place, now, look_up)
        return Way((shaken,), is_open)
    way, found = await approach(place, look_up)
    if not way.open:
        return way

    async def known(_host: str, _port: int) -> Sequence[AddressInfo]:
        return found

    shaken, is_open = await shake(place, now, known)
    return Way((*way.findings, shaken), is_open)


async def approach(place: Place, look_up: LookUp = look_up) -> tuple[Way, Sequence[AddressInfo]]:
    """Look the server's name up, and connect to each of its addresses; return the way, and the addresses."""
    named, found = await _look_up(place, look_up)
    if not found:
        return Way(named, open=False), ()
    connected, is_open = await _connect(place, found)
    return Way((*named, connected), is_open), found


async def _look_up(place: Place, look_up: LookUp) -> tuple[tuple[Finding, ...], Sequence[AddressInfo]]:
    """Return the addresses of a host, none if there are none; a host that is an address has no finding."""
    subject = Subject("DNS", place.name)
    clock = asyncio.get_running_loop().time
    began = clock()
    try:
        async with asyncio.timeout(LOOKUP):
            found = list(await look_up(place.host, place.port))[:MOST]
    except TimeoutError:
        return (subject.bad(f"no answer for {place.host} within {LOOKUP:g} s", NO_SERVER),), ()
    except socket.gaierror as error:
        return (subject.bad(f"{place.host} is not found: {error.strerror or error}", NO_NAME),), ()
    if read_address(place.host) is not None:
        return (), found
    text = ", ".join(dict.fromkeys(str(info[4][0]) for info in found))
    return (subject.good(f"{place.host}: {text}", clock() - began),), found


async def _connect(place: Place, found: Sequence[AddressInfo]) -> tuple[Finding, bool]:
    """Connect to all addresses at once; return what came of it, and whether one took the connection."""
    subject = Subject("TCP", place.name)
    sources = Sources(place.route.sources)
    usable = [info for info in found if sources.serves(info[0])]
    if not usable:
        wrong = f"{place.host} has no address that {' or '.join(place.route.sources)} can reach"
        return subject.bad(wrong, f"add an address of IPv4 or IPv6 to {place.source_setting}"), False
    clock = asyncio.get_running_loop().time
    began = clock()
    failures = await asyncio.gather(*(_attempt(info, sources, place.source_setting) for info in usable))
    refused = [f"{info[4][0]} {why}" for info, why in zip(usable, failures, strict=True) if why]
    port = f"port {place.port}"
    if len(refused) == len(usable):
        return subject.bad(f"{port}: {'; '.join(refused)}", NOT_TAKEN), False
    if refused:
        taken = len(usable) - len(refused)
        remedy = "mend the address or remove it from DNS: connections to it fail or come late"
        return subject.note(f"{port}: {taken} of {len(usable)} addresses take it; {'; '.join(refused)}", remedy), True
    return subject.good(f"{port} is open", clock() - began), True


async def _attempt(info: AddressInfo, sources: Sources, setting: str) -> str:
    """Connect to one address; return why that failed, empty if it did not."""
    family, kind, protocol, _, where = info
    with socket.socket(family, kind, protocol) as sock:
        sock.setblocking(False)  # noqa: FBT003 -- the socket module's signature
        try:
            sources.bind(sock)
        except OSError as error:
            return f"cannot be reached from {setting} ({error.strerror})"
        try:
            async with asyncio.timeout(CONNECT):
                await connect_socket(sock, where)
        except TimeoutError:
            return f"does not answer within {CONNECT:g} s"
        except OSError as error:
            return in_words(error)
    return ""


def in_words(error: OSError) -> str:
    """Return what a failed connection did, for an administrator."""
    if isinstance(error, ConnectionRefusedError):
        return "refuses the connection"
    if error.errno in UNREACHABLE:
        return "cannot be reached: no route leads there"
    return f"cannot be reached ({error.strerror or type(error).__name__})"


async def shake(place: Place, now: Clock, look_up: LookUp = look_up) -> tuple[Finding, bool]:
    """Make a TLS handshake, through the proxy if there is one; return what came of it, and whether it succeeded."""
    subject = Subject("TLS", place.name)
    dialler = Dialler(place.route, limit=HANDSHAKE, look_up=look_up)
    clock = asyncio.get_running_loop().time
    began = clock()
    try:
        shown = await _shake(dialler, place, client_context(place.ca_file))
        took = clock() - began
        flaw = await _flaw(dialler, place)
    except ssl.SSLError as error:
        certified = isinstance(error, ssl.SSLCertVerificationError)
        met = await _met(dialler, place) if certified else ""
        return judge_failure(subject, error, place.ca_setting, met), False
    except NotConnected as error:
        return subject.bad(error.reason, error.remedy), False
    except TimeoutError:
        remedy = "what answers there may be no TLS server, or a firewall on the way drops what is inside"
        return subject.bad(
            f"no handshake with {authority(place.host, place.port)} within {HANDSHAKE:g} s", remedy
        ), False
    except OSError as error:
        remedy = "see whether a firewall or a proxy on the way cuts connections, and what listens on the port"
        return subject.bad(f"connection lost in the handshake: {error.strerror or type(error).__name__}", remedy), False
    until = None if shown.valid_until is None else datetime.fromtimestamp(shown.valid_until, UTC)
    return judge_shown(subject, Shown(shown.version, until, shown.http2, flaw), now(), took), True


class _Handshake(asyncio.Protocol):
    """A connection that sends nothing; it keeps what the handshake showed."""

    version = ""
    valid_until: int | None = None  # seconds since 1970
    http2 = False
    der = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read what the server showed, and close."""
        agreed = transport.get_extra_info("ssl_object")
        if agreed is not None:
            self.version = agreed.version() or "TLS"
            self.http2 = agreed.selected_alpn_protocol() == HTTP_2
            self.der = agreed.getpeercert(binary_form=True) or b""
            until = (agreed.getpeercert() or {}).get("notAfter")
            self.valid_until = ssl.cert_time_to_seconds(until) if isinstance(until, str) else None
        transport.close()


async def _shake(dialler: Dialler, place: Place, tls: ssl.SSLContext) -> _Handshake:
    tls.set_alpn_protocols(ALPN)
    return await dialler.connect(_Handshake, place.host, place.port, tls)


async def _flaw(dialler: Dialler, place: Place) -> str:
    """Return why software that checks the form of certificates refuses the server's; empty: it does not."""
    with suppress(OSError):
        try:
            await _shake(dialler, place, client_context(place.ca_file, strict=True))
        except ssl.SSLCertVerificationError as error:
            return error.verify_message
    return ""


async def _met(dialler: Dialler, place: Place) -> str:
    """Return whose certificate a server shows that is not trusted: whatever that is, nothing is sent to it."""
    with suppress(OSError):
        tls = client_context(place.ca_file)
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
        return describe((await _shake(dialler, place, tls)).der)
    return ""


async def tunnel(proxy: Proxy, sources: tuple[str, ...], host: str, port: int) -> tuple[Finding, bool]:
    """Let a proxy open a tunnel; return what came of it, and whether the proxy itself is of use."""
    subject = Subject("proxy", proxy.setting)
    clock = asyncio.get_running_loop().time
    began = clock()
    target = authority(host, port)
    dialler = Dialler(Route(proxy, sources), limit=LOOKUP + CONNECT, look_up=look_up)
    try:
        await dialler.connect(_Handshake, host, port, None)
    except NotConnected as error:
        return subject.bad(error.reason, error.remedy), error.one_host or error.reason == "proxy-cannot-reach"
    except OSError as error:
        return subject.bad(f"{proxy} closes the tunnel to {target}: {error.strerror or error}", "see its log"), True
    who = f" for {proxy.user or 'the ticket of this user'}" if proxy.authenticates else ""
    return subject.good(f"{proxy} opens a tunnel to {target}{who}", clock() - began), True


@dataclass(frozen=True, slots=True)
class ProxyUse:
    """A proxy, and the first host that is reached through it."""

    proxy: Proxy
    sources: tuple[str, ...]
    host: str
    port: int


class Proxies:
    """The proxies on the ways, each asked once, no matter who wants to know: its credential is shown no second time."""

    def __init__(self, now: Clock, questions: list[Once[Any]]) -> None:
        """`questions` gets what is asked for several checks: the caller ends them."""
        self._now = now
        self._questions = questions
        self._asked: dict[Proxy, Once[tuple[Finding, bool]]] = {}

    async def look(self, use: ProxyUse) -> Sequence[Finding]:
        """Return the finding about a proxy."""
        return [(await self._tunnel(use))[0]]

    async def reach(self, place: Place) -> Way:
        """Reach a place as `reach` does, unless the proxy on the way is of no use."""
        proxy = place.route.proxy
        if proxy is not None:
            _, useful = await self._tunnel(ProxyUse(proxy, place.route.sources, place.host, place.port))
            if not useful:
                why = f"the proxy in {proxy.setting} is not of use, see above"
                return Way((Subject("TLS", place.name).skipped(why),), open=False)
        return await reach(place, self._now)

    async def _tunnel(self, use: ProxyUse) -> tuple[Finding, bool]:
        question = self._asked.get(use.proxy)
        if question is None:
            question = self._asked[use.proxy] = Once(partial(tunnel, use.proxy, use.sources, use.host, use.port))
            self._questions.append(question)
        return await question.answer()
