"""One proxy that opens tunnels: where it is, what is spoken to it, and who the relay is there."""

from base64 import b64encode
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from eas_watcher.proxy.refusals import Refusals

Speaks: TypeAlias = Literal["http", "socks5", "socks5h"]
SCHEMES: Final[Mapping[str, tuple[Speaks, bool]]] = MappingProxyType(
    {"http": ("http", False), "https": ("http", True), "socks5": ("socks5", False), "socks5h": ("socks5h", False)}
)
"""What is spoken to a proxy by the scheme of its URL, and whether over TLS."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that opens tunnels by CONNECT [RFC 9110 9.3.6] or SOCKS5 [RFC 1928]; prints as host:port."""

    host: str
    port: int
    setting: str = "network.proxy"
    """The key of relay.toml that names the proxy, for remedies; what belongs to it begins with the same words."""
    user: str = ""
    """Empty: the relay does not authenticate. With `negotiates` a principal; empty: that of the ticket cache."""
    password: str = field(default="", repr=False)
    tls: bool = False
    """True if the connection to the proxy itself uses TLS."""
    ca_file: Path | None = None
    """CA certificates to trust for that TLS instead of the system's."""
    speaks: Speaks = "http"
    """socks5: the relay looks names up; http and socks5h: the proxy does."""
    negotiates: bool = False
    """True if the relay shows Kerberos tickets instead of a password [RFC 4559]; over http alone."""
    keytab: Path | None = None
    """The key of `user` for tickets; None: the ticket cache or the client keytab of the process."""
    takes_user: bool = True
    """False if no setting belongs to this one that could name a user."""
    refusals: Refusals = field(default_factory=Refusals, repr=False, compare=False)
    """What the proxy said of the credential, for all that use this proxy."""

    def __str__(self) -> str:
        return authority(self.host, self.port)

    @property
    def authorization(self) -> str:
        """The value of Proxy-Authorization [RFC 7617 2]; empty without a user, or if it differs with each request."""
        if not self.user or self.negotiates:
            return ""
        return f"Basic {b64encode(f'{self.user}:{self.password}'.encode()).decode()}"

    @property
    def authenticates(self) -> bool:
        """True if a credential is shown to the proxy."""
        return bool(self.user) or self.negotiates


class Send(NamedTuple):
    """Bytes for the proxy, whose answer is the next value; empty: more of the answer is needed."""

    data: bytes


class Ticket(NamedTuple):
    """A token of Negotiate is needed, the next value; empty: none is left to be sent."""

    challenge: bytes
    """What the proxy said; empty: nothing yet."""


Talk: TypeAlias = Generator[Send | Ticket, bytes, None]
"""What is said to a proxy for one tunnel: it returns once the tunnel is open, and raises NotConnected."""


class NoProxy(ValueError):
    """A URL is none of a proxy; the text says why, without the URL, because the URL may contain a password."""


def proxy_at(url: str, setting: str) -> Proxy:
    """Return the proxy at a URL, without a user; raises NoProxy."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port == 0:
        raise NoProxy("is no URL with a host")
    if parts.scheme not in SCHEMES:
        raise NoProxy("begins with none of http://, https://, socks5:// and socks5h://")
    if parts.username is not None or parts.password is not None:
        raise NoProxy("holds a user, which does not belong into the URL")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise NoProxy("has more than host and port")
    if port is None:
        raise NoProxy("names no port")
    if not host.isascii():
        raise NoProxy("names a host in other letters than ASCII")
    speaks, tls = SCHEMES[parts.scheme]
    return Proxy(host, port, setting, tls=tls, speaks=speaks)


def authority(host: str, port: int) -> str:
    """Return host and port as in a URL, an IPv6 address in brackets [RFC 3986 3.2]."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
