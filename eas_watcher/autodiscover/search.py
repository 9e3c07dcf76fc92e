"""Own the search for a mailbox's server: which hosts are asked in which order, and what is followed where.

A flow without sockets. Only hosts that the operator named are ever asked or followed to, and over https only, so that
no answer can lead a credential elsewhere. Version 2 goes first: it needs no credential.
"""

from collections.abc import Collection, Generator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from eas_watcher.autodiscover import json, pox
from eas_watcher.commands.request import HttpReply
from eas_watcher.errors import AccessDenied, EasError, ProtocolViolation, ServerBusy, Unauthorized, Unreachable
from eas_watcher.locations import authority, eas_location, followed

HOPS: Final = 5  # redirects in a row
ADDRESSES: Final = 5  # that answers may lead to, one after the other

OK: Final = 200
UNAUTHORIZED: Final = 401
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308, 451})
ACCOUNT: Final = {
    403: "the account may not be looked up (HTTP 403)",
    456: "the account is blocked (HTTP 456)",
    457: "the password has expired (HTTP 457)",
}
BUSY: Final = range(500, 600)


@dataclass(frozen=True, slots=True)
class Lookup:
    """Ask one question of Autodiscover; its answer is sent into the flow, or the EasError that came instead."""

    method: Literal["GET", "POST"]
    url: str
    body: bytes = b""
    credential: bool = False
    """Whether the user's credential belongs on it."""


Search: TypeAlias = Generator[Lookup, HttpReply, str]


def may_discover(address: str, hosts: Collection[str]) -> bool:
    """Tell whether the operator named a host that is asked for addresses of this domain."""
    return bool(_asked(address, hosts))


def discover(address: str, hosts: Collection[str]) -> Search:
    """Find the ActiveSync URL of an address at `hosts`, written as `locations` says.

    Raises Unauthorized when a host refused the credential (no other is tried with it), AccessDenied when a host denies
    the account, when all of them know nothing, or when a host that is not allowed was named; Unreachable or
    ServerBusy when one that might have known did not answer.
    """
    seen: list[str] = []
    while True:
        seen.append(address.lower())
        found = yield from _search(address, hosts)
        if found.url is not None:
            url = eas_location(found.url, hosts)
            if url is None:
                raise _foreign(found.url)
            return url
        address = found.address or ""
        if address.lower() in seen or len(seen) >= ADDRESSES or not may_discover(address, hosts):
            raise AccessDenied("Autodiscover leads to another address, and that one to no allowed host", "autodiscover")


def _search(address: str, hosts: Collection[str]) -> Generator[Lookup, HttpReply, pox.PoxReply]:
    """Ask every host for one address; return the first answer that names something."""
    trouble: EasError | None = None
    asked = _asked(address, hosts)
    for host in asked:
        try:
            reply = yield from _follow(Lookup("GET", json.question(host, address)), hosts)
        except (Unreachable, ServerBusy, ProtocolViolation) as error:
            trouble = error
            continue
        if (url := json.read_url(reply)) is not None:
            return pox.PoxReply(url)
    for host in asked:
        try:
            reply = yield from _follow(Lookup("POST", pox.question(host), pox.request(address), credential=True), hosts)
            if reply.status == OK and (found := pox.read(reply.body)) != pox.PoxReply():
                return found
        except (Unreachable, ServerBusy, ProtocolViolation) as error:
            trouble = error
    raise trouble or AccessDenied("no host of [autodiscover] knows the mailbox", "autodiscover")


def _follow(lookup: Lookup, hosts: Collection[str]) -> Generator[Lookup, HttpReply, HttpReply]:
    """Ask, and ask again where an answer points to, as long as that is an allowed host."""
    for _ in range(HOPS + 1):
        reply = yield lookup
        if reply.status == UNAUTHORIZED and lookup.credential:
            raise Unauthorized("Autodiscover refuses the credential (HTTP 401)")
        if reply.status in ACCOUNT and lookup.credential:
            raise AccessDenied(f"Autodiscover: {ACCOUNT[reply.status]}", f"http-{reply.status}")
        if reply.status in BUSY:
            raise ServerBusy(f"Autodiscover cannot answer now (HTTP {reply.status})")
        if reply.status not in REDIRECTS:
            return reply
        location = reply.headers.get("x-ms-location" if reply.status == 451 else "location", "").strip()  # noqa: PLR2004
        url = followed(location, hosts)
        if url is None:
            raise _foreign(location)
        lookup = Lookup(lookup.method, url, lookup.body, lookup.credential)
    raise ProtocolViolation("Autodiscover leads round in circles")


def _asked(address: str, hosts: Collection[str]) -> list[str]:
    """List the allowed hosts of an address's domain, the one that is made for it first."""
    domain = address.rpartition("@")[2].lower() if "@" in address else ""
    names = [f"autodiscover.{domain}", domain] if domain else []
    return [host for name in names for host in sorted(hosts) if host == name or host.rpartition(":")[0] == name]


def _foreign(location: str) -> AccessDenied:
    host = authority(location) or "a URL that is not https or not sound"
    return AccessDenied(f"Autodiscover leads to {host}, which the settings do not allow", "autodiscover")
