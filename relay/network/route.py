"""The route to a provider: the proxy that connections go through, and the address that they come from."""

from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True)
class Proxy:
    """One HTTP proxy that opens tunnels by CONNECT [RFC 9110 9.3.6]; prints as host:port."""

    host: str
    port: int
    setting: str = "network.proxy"
    """The key of relay.toml that names the proxy, for remedies."""
    user: str = ""
    """Empty: the relay does not authenticate."""
    password: str = field(default="", repr=False)
    tls: bool = False
    """True if the connection to the proxy itself uses TLS."""
    ca_file: Path | None = None
    """CA certificates to trust for that TLS instead of the system's."""

    def __str__(self) -> str:
        return authority(self.host, self.port)

    @property
    def authorization(self) -> str:
        """The value of Proxy-Authorization [RFC 7617 2], empty without a user."""
        if not self.user:
            return ""
        return f"Basic {b64encode(f'{self.user}:{self.password}'.encode()).decode()}"


@dataclass(frozen=True, slots=True)
class Route:
    """The route of the connections to one provider."""

    proxy: Proxy | None = None
    """None: no proxy."""
    sources: tuple[str, ...] = ()
    """The addresses that connections come from, at most one of IPv4 and one of IPv6; the other kind is not used.

    Empty: the operating system chooses.
    """


DIRECT: Final = Route()


def authority(host: str, port: int) -> str:
    """Return host and port as in a URL, an IPv6 address in brackets [RFC 3986 3.2]."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
