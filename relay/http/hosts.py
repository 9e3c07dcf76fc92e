"""The hosts that a listener listens on: addresses and names of this machine, or all of them."""

import errno
import socket
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from ipaddress import ip_address
from typing import Final

EVERYWHERE: Final = "*"
"""All addresses of this machine, IPv4 and IPv6."""
_ABSENT: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_LOOPBACK: Final = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
_BOTH: Final = frozenset(_FAMILIES.values())


class CannotListen(OSError):
    """A listener cannot have an address; `host` is what names it."""

    def __init__(self, number: int | None, text: str, host: str) -> None:
        super().__init__(number, text)
        self.host = host


def bind(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Return a bound socket for each address of the hosts, all with one port; raises CannotListen.

    Of a name, or of all addresses, those count that this machine has: `localhost` is also an address of IPv6, which may
    be switched off. An IPv6 socket leaves the addresses of IPv4 to others. The sockets do not block.
    """
    bound: dict[tuple[int, str], socket.socket] = {}
    with ExitStack() as opened:
        for host in hosts:
            absent: OSError | None = None
            here = False
            for family, address in _addresses(host, port):
                key = family, address[0]
                try:
                    if key not in bound:
                        bound[key] = opened.enter_context(_bound(family, (address[0], port, *address[2:])))
                except OSError as error:
                    text = f"{address[0]} port {port}: {(error.strerror or str(error)).lower()}"
                    absent = CannotListen(error.errno, text, host)
                    if error.errno not in _ABSENT:
                        raise absent from error
                    continue
                here = True
                port = bound[key].getsockname()[1]
            if not here:
                raise absent or CannotListen(errno.EADDRNOTAVAIL, f"{host} has no address", host)
        opened.pop_all()
    return list(bound.values())


def overlap(ones: Iterable[str], others: Iterable[str]) -> bool:
    """Return whether two listeners would want one address, if their ports are the same."""
    others = tuple(others)
    return any(_overlap(one, other) for one in ones for other in others)


def reached_at(hosts: Iterable[str]) -> list[str]:
    """Return the hosts by which this machine reaches listeners; those on all addresses are reached on loopback."""
    found: dict[str, None] = {}
    for host in hosts:
        families = _unspecified(host)
        loopback = [address for family, address in _LOOPBACK.items() if family in families]
        found |= dict.fromkeys(loopback or [host])
    return list(found)


def _overlap(one: str, other: str) -> bool:
    if one == other:
        return True
    families = _unspecified(one), _unspecified(other)
    # A name may have addresses of both families.
    return bool(families[0] & _families(other) or families[1] & _families(one))


def _unspecified(host: str) -> frozenset[int]:
    """Return the families of which a host is all addresses."""
    if host == EVERYWHERE:
        return _BOTH
    if host == "0":
        return frozenset({socket.AF_INET})
    with suppress(ValueError):
        address = ip_address(host)
        return frozenset({_FAMILIES[address.version]} if address.is_unspecified else ())
    return frozenset()


def _families(host: str) -> frozenset[int]:
    """Return the families of which a host may have addresses."""
    with suppress(ValueError):
        return frozenset({_FAMILIES[ip_address(host).version]})
    return _unspecified(host) or _BOTH


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int, *tuple[int, ...]]]]:
    """Return family and address of each address of a host, each once; raises CannotListen for an unknown name."""
    name = None if host == EVERYWHERE else host
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "no host name"
        raise CannotListen(errno.EADDRNOTAVAIL, f"{host}: {str(words).lower()}", host) from error
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))  # type: ignore[misc]


def _bound(family: int, address: tuple[object, ...]) -> socket.socket:
    """Return a socket that is bound and does not block."""
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.settimeout(0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
    except BaseException:
        made.close()
        raise
    return made
