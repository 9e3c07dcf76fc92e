"""SOCKS5: what is said for one tunnel [RFC 1928], with a user and a password if there are any [RFC 1929]; no I/O."""

from collections.abc import Generator
from ipaddress import ip_address
from types import MappingProxyType
from typing import Final

from eas_watcher.proxy import faults
from eas_watcher.proxy.proxy import Proxy, Send, Talk, Ticket, authority

VERSION: Final = 5
LOGIN_VERSION: Final = 1
CONNECT: Final = 1
OPEN, GSSAPI, LOGIN, NONE = 0x00, 0x01, 0x02, 0xFF  # methods [RFC 1928 3]
IPV4, NAME, IPV6 = 1, 3, 4  # types of address [RFC 1928 5]
LENGTHS: Final = MappingProxyType({IPV4: 4, IPV6: 16})  # octets
LONGEST: Final = 255  # octets of a user, a password or a name: one octet has the length

NOT_ALLOWED: Final = 2
REPLIES: Final = MappingProxyType(
    {
        1: "it fails",
        NOT_ALLOWED: "its rules do not allow it",
        3: "no network leads there",
        4: "the host cannot be reached",
        5: "nothing listens there",
        6: "the way is too long",
        7: "it knows no CONNECT",
        8: "it knows no such kind of address",
    }
)
"""What a reply other than 0 says [RFC 1928 6]."""

Reading = Generator[Send | Ticket, bytes, bytes]


class _Wire:
    """The bytes of the proxy, taken in the lengths that the messages have."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._left = b""

    def ask(self, message: bytes, length: int) -> Reading:
        """Send a message, and return so many bytes of the answer; raises NotConnected if one has come already."""
        if message and self._left:
            raise faults.proxy_not_socks(self._proxy, "it answers before it is asked")
        while len(self._left) < length:
            self._left += yield Send(message)
            message = b""
        taken, self._left = self._left[:length], self._left[length:]
        return taken

    @property
    def left(self) -> bool:
        """True if more came than was asked for."""
        return bool(self._left)


def connect(proxy: Proxy, host: str, port: int) -> Talk:
    """Ask a SOCKS5 proxy for a tunnel to a host, a name or an address, and a port."""
    wire = _Wire(proxy)
    methods = bytes([OPEN, LOGIN] if proxy.user else [OPEN])
    version, method = yield from wire.ask(bytes([VERSION, len(methods)]) + methods, 2)
    if version != VERSION:
        raise faults.proxy_not_socks(proxy, f"it answers with version {version}")
    if method == LOGIN and proxy.user:
        yield from _log_in(wire, proxy)
    elif method != OPEN:
        if method in {NONE, LOGIN, GSSAPI}:
            raise faults.proxy_wants_login(proxy)
        raise faults.proxy_not_socks(proxy, f"it chooses method {method}, which the relay did not offer")
    message = bytes([VERSION, CONNECT, 0]) + _address(proxy, host) + port.to_bytes(2, "big")
    version, reply, _, kind = yield from wire.ask(message, 4)
    if version != VERSION:
        raise faults.proxy_not_socks(proxy, f"it answers with version {version}")
    if reply:
        raise faults.proxy_replies(
            proxy, authority(host, port), REPLIES.get(reply, f"it replies {reply}"), denied=reply == NOT_ALLOWED
        )
    if kind == NAME:
        (length,) = yield from wire.ask(b"", 1)
    elif kind in LENGTHS:
        length = LENGTHS[kind]
    else:
        raise faults.proxy_not_socks(proxy, f"it names an address of kind {kind}")
    yield from wire.ask(b"", length + 2)
    if wire.left:
        raise faults.proxy_not_socks(proxy, "it sends bytes into the tunnel before the relay does")


def _log_in(wire: _Wire, proxy: Proxy) -> Talk:
    user, password = proxy.user.encode(), proxy.password.encode()
    message = bytes([LOGIN_VERSION, len(user)]) + user + bytes([len(password)]) + password
    _, status = yield from wire.ask(message, 2)
    if status:
        raise faults.proxy_wants_login(proxy)


def _address(proxy: Proxy, host: str) -> bytes:
    """Return a host as SOCKS5 has it: an address, or a name that the proxy looks up; raises NotConnected."""
    try:
        packed = ip_address(host).packed
    except ValueError:
        name = _name(host)
        if not 0 < len(name) <= LONGEST:
            raise faults.target_not_found(proxy, host, OSError("it is no name of DNS")) from None
        return bytes([NAME, len(name)]) + name
    return bytes([IPV4 if len(packed) == LENGTHS[IPV4] else IPV6]) + packed


def _name(host: str) -> bytes:
    """Return a name as DNS has it; empty: it has none."""
    try:
        return host.encode("idna")
    except UnicodeError:
        return b""
