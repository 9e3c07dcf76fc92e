"""Which client a request comes from, and with which other addresses it shares its limits."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

X_FORWARDED_FOR: Final = "X-Forwarded-For"
FORWARDED: Final = "Forwarded"
SHARES: Final = ((64, 1), (56, 4), (48, 16))
"""IPv6 prefixes in bits, and how many times the limit of one client all clients of such a prefix have together.

A provider gives one client a /64, a /56 or a whole /48 [RFC 6177]: somebody who has a /48 must not have 65,536 limits.
"""
HOPS: Final = 32  # entries of the header that are read; an honest chain has a handful
_BRACKETED: Final = re.compile(r"\[(?P<address>[^\]]*)\](?::[\w.-]*)?", re.DOTALL)
_WITH_PORT: Final = re.compile(r"(?P<address>.+):[\w.-]*", re.DOTALL)
"""Read only if the whole is no address: IPv6 without brackets may have a port, too, which is then no group of it."""
_QUOTE: Final = re.compile(r'(?<!\\)"')
_PARAMETER: Final = re.compile(r'\s*([\w-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;"]*)\s*(?:;|$)', re.DOTALL)
"""One parameter of an element of Forwarded [RFC 7239 4]."""


def read_address(text: str | None) -> Address | None:
    """Return an address without its zone, an IPv4-mapped one as IPv4; None if the text is no address."""
    try:
        address = ip_address((text or "").partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


@lru_cache(
    1024
)  # to read an address costs more than all else of a limit, and each request is counted and told its rest
def shares(address: str) -> tuple[tuple[str, int], ...]:
    """Return the keys under which one client is counted, the narrowest first, each with its multiple of the limit."""
    found = read_address(address)
    if isinstance(found, IPv6Address):
        return tuple((str(IPv6Network((int(found), bits), strict=False)), times) for bits, times in SHARES)
    return ((address if found is None else str(found), 1),)


@dataclass(frozen=True, slots=True)
class Proxies:
    """The reverse proxies before the relay, whose word about their clients counts."""

    networks: tuple[Network, ...] = ()
    header: str = X_FORWARDED_FOR
    """The header that they write, X_FORWARDED_FOR or FORWARDED; the relay ignores the other one, which clients may."""

    def __contains__(self, address: object) -> bool:
        """Return whether an address is one of a proxy."""
        found = read_address(address) if isinstance(address, str) else address
        return any(found in network for network in self.networks if found is not None)

    def client(self, peer: str | None, values: Sequence[str]) -> str:
        """Return the client of a request that came from `peer`, with these values of the header, in their order.

        Each proxy adds the address it was asked from at the end, so the list is read from there as long as the address
        before is a proxy's. What a proxy could not name ("unknown") counts as that proxy.
        """
        known = read_address(peer)
        client = peer or "unknown" if known is None else str(known)
        if client not in self:
            return client
        for entry in _entries(values, forwarded=self.header == FORWARDED):
            address = _read_entry(entry)
            if address is None:
                break
            client = str(address)
            if client not in self:
                break
        return client


NO_PROXIES: Final = Proxies()


def _entries(values: Sequence[str], *, forwarded: bool) -> Iterator[str]:
    """Return what the header says, the last proxy's word first; blank entries are left out."""
    left = HOPS
    for value in reversed(values):
        for part in _elements(value) if forwarded else reversed(value.split(",")):
            if not part.strip():
                continue
            if left == 0:
                return
            left -= 1
            yield _named(part) if forwarded else part


def _elements(value: str) -> Iterator[str]:
    """Return the elements of Forwarded from the end, where the last proxy wrote.

    A comma within quotes ends no element. Read from the end, a quote that a client left open changes no later element.
    """
    parts: list[str] = []
    quotes = 0
    for part in reversed(value.split(",")):
        parts.append(part)
        quotes += len(_QUOTE.findall(part))
        if quotes % 2 == 0:
            yield ",".join(reversed(parts))
            parts, quotes = [], 0
    if parts:
        yield ",".join(reversed(parts))


def _named(element: str) -> str:
    """Return the parameter `for` of an element of Forwarded; empty if there is none."""
    at = 0
    while (parameter := _PARAMETER.match(element, at)) is not None and parameter[0]:
        if parameter[1].lower() == "for":
            return parameter[2]
        at = parameter.end()
    return ""


def _read_entry(entry: str) -> Address | None:
    """Return the address of an entry; a proxy may write it in quotes, in brackets, and with the client's port."""
    text = entry.strip().strip('"').strip()
    if (bracketed := _BRACKETED.fullmatch(text)) is not None:
        return read_address(bracketed["address"])
    if (address := read_address(text)) is not None:
        return address
    with_port = _WITH_PORT.fullmatch(text)
    return None if with_port is None else read_address(with_port["address"])
