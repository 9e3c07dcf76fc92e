"""The search for a mailbox's server: which hosts are asked in which order, and which redirects are followed.

The search is a flow without sockets. It asks only hosts that the operator named, and sends a credential over https
only, so that no answer can lead it to another host. Version 2 is asked first, because it needs no credential. The last
question goes without TLS: many domains redirect it to the host that knows. DNS is not asked for a host (SRV), because
it could only name one that the operator has named already.
"""

from collections.abc import Collection, Generator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from eas_watcher.autodiscover import json, pox
from eas_watcher.autodiscover.urls import eas_location, followed, host_and_port, resolved
from eas_watcher.commands.request import HttpReply
from eas_watcher.errors import AccessDenied, EasError, ProtocolViolation, ServerBusy, Unauthorized, Unreachable
from eas_watcher.reasons import Reason

HOPS: Final = 5  # redirects in a row
ADDRESSES: Final = 5  # asked for in a row, each named by the answer before it

OK: Final = 200
UNAUTHORIZED: Final = 401
ELSEWHERE: Final = 451  # the mailbox is on another server, named by X-MS-Location
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308, ELSEWHERE})
ACCOUNT: Final = {
    403: (Reason.HTTP_403, "the account may not be looked up (HTTP 403)"),
    456: (Reason.HTTP_456, "the account is blocked (HTTP 456)"),
    457: (Reason.HTTP_457, "the password has expired (HTTP 457)"),
}
BUSY: Final = range(500, 600)


@dataclass(frozen=True, slots=True)
class Lookup:
    """One question to Autodiscover; the driver sends its answer into the flow, or throws the EasError."""

    method: Literal["GET", "POST"]
    url: str
    body: bytes = b""
    credential: bool = False
    """True if it carries the user's credential."""


class _LedAway(AccessDenied):
    """A host redirects to one that is not allowed, as a company's web site does: another host may know the mailbox."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Reason.AUTODISCOVER)


Search: TypeAlias = Generator[Lookup, HttpReply, str]


def may_discover(address: str, hosts: Collection[str]) -> bool:
    """Return True if the operator named a host that can be asked for addresses of this domain."""
    return bool(_asked(address, hosts))


def discover(address: str, hosts: Collection[str]) -> Search:
    """Find the ActiveSync URL of an address at `hosts`, which are written as in `urls.eas_location`.

    Raises Unauthorized when a host refuses the credential, which is then sent to no other host; AccessDenied when a
    host denies the account, when no host knows the mailbox, or when an answer names a host that is not allowed;
    Unreachable or ServerBusy when a host that might have known did not answer.
    """
    seen: list[str] = []
    while True:
        seen.append(address.lower())
        found = yield from _search(address, hosts)
        if found.url is not None:
            url = eas_location(found.url, hosts)
            if url is None:
                raise AccessDenied(_foreign(found.url), Reason.AUTODISCOVER)
            return url
        address = found.address or ""
        if address.lower() in seen or len(seen) >= ADDRESSES or not may_discover(address, hosts):
            nowhere = "Autodiscover leads to another address, and that one to no allowed host"
            raise AccessDenied(nowhere, Reason.AUTODISCOVER)


def _search(address: str, hosts: Collection[str]) -> Generator[Lookup, HttpReply, pox.PoxReply]:
    """Ask every host for one address; return the first answer that names a URL or another address."""
    troubles: list[EasError] = []
    asked = _asked(address, hosts)
    for host in asked:
        try:
            reply = yield from _follow(Lookup("GET", json.question(host, address)), hosts)
        except (Unreachable, ServerBusy, ProtocolViolation, _LedAway) as error:
            troubles.append(error)
            continue
        if (url := json.read_url(reply)) is not None:
            return pox.PoxReply(url)
    questions = [pox.question(host) for host in asked]
    answer = yield from _ask_all(questions, address, hosts)
    if not isinstance(answer, pox.PoxReply):
        pointed = yield from _pointed(address, hosts)
        if pointed is not None and pointed not in questions:
            answer = yield from _ask_all([pointed], address, hosts)
    if isinstance(answer, pox.PoxReply):
        return answer
    raise _cause([*troubles, answer])


def _ask_all(
    questions: list[str], address: str, hosts: Collection[str]
) -> Generator[Lookup, HttpReply, pox.PoxReply | EasError]:
    """Ask by version 1 with the credential; return the first answer that names something, else the cause."""
    troubles: list[EasError] = []
    said = ""
    for question in questions:
        try:
            reply = yield from _follow(Lookup("POST", question, pox.request(address), credential=True), hosts)
            found = pox.read(reply.body) if reply.status == OK else pox.PoxReply()
        except (Unreachable, ServerBusy, ProtocolViolation, _LedAway) as error:
            troubles.append(error)
            continue
        if found.url or found.address:
            return found
        said = said or (found.error and f": {found.error}")
    nowhere = AccessDenied(f"no host of [autodiscover] knows the mailbox{said}", Reason.AUTODISCOVER)
    return _cause([*troubles, nowhere])


def _cause(troubles: list[EasError]) -> EasError:
    """Return the first error that may pass by itself, or else the first error."""
    return next((error for error in troubles if not isinstance(error, AccessDenied)), troubles[0])


def _pointed(address: str, hosts: Collection[str]) -> Generator[Lookup, HttpReply, str | None]:
    """Ask without TLS and credential where to ask; even a forged answer can only choose among our hosts."""
    name = f"autodiscover.{_domain(address)}"
    if not any(host.rpartition(":")[0] == name or host == name for host in hosts):
        return None
    try:
        reply = yield Lookup("GET", pox.question(name).replace("https:", "http:", 1))
    except (Unreachable, ServerBusy, ProtocolViolation):
        return None
    return followed(reply.headers.get("location", "").strip(), hosts) if reply.status in REDIRECTS else None


def _follow(lookup: Lookup, hosts: Collection[str]) -> Generator[Lookup, HttpReply, HttpReply]:
    """Ask, and follow redirects to allowed hosts; return the first other answer. Raises _LedAway."""
    for _ in range(HOPS + 1):
        reply = yield lookup
        if reply.status == UNAUTHORIZED and lookup.credential:
            raise Unauthorized("Autodiscover refuses the credential (HTTP 401)")
        if reply.status in ACCOUNT and lookup.credential:
            reason, words = ACCOUNT[reply.status]
            raise AccessDenied(f"Autodiscover: {words}", reason)
        if reply.status in BUSY:
            raise ServerBusy(f"Autodiscover cannot answer now (HTTP {reply.status})")
        if reply.status not in REDIRECTS:
            return reply
        named_by = "x-ms-location" if reply.status == ELSEWHERE else "location"
        location = resolved(reply.headers.get(named_by, "").strip(), lookup.url)
        url = followed(location, hosts)
        if url is None:
            raise _LedAway(_foreign(location))
        lookup = Lookup(lookup.method, url, lookup.body, lookup.credential)
    raise ProtocolViolation("Autodiscover leads round in circles")


def _asked(address: str, hosts: Collection[str]) -> list[str]:
    """Return the allowed hosts of an address's domain; autodiscover.DOMAIN comes first."""
    domain = _domain(address)
    names = [f"autodiscover.{domain}", domain] if domain else []
    return [host for name in names for host in sorted(hosts) if host == name or host.rpartition(":")[0] == name]


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower() if "@" in address else ""


def _foreign(location: str) -> str:
    host = host_and_port(location) or "a URL that is not https or not sound"
    return f"Autodiscover leads to {host}, which the settings do not allow"
