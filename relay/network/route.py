"""Own the values that say by which way a provider is reached: through which proxy, from which address."""

from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True)
class Proxy:
    """Hold one HTTP proxy that opens tunnels by CONNECT [RFC 9110 9.3.6]; prints as host:port."""

    host: str
    port: int
    setting: str = "network.proxy"
    """The key of relay.toml that names it, for remedies."""
    user: str = ""
    """Empty: no authentication is offered."""
    password: str = field(default="", repr=False)
    tls: bool = False
    """Whether the proxy itself is spoken to over TLS."""
    ca_file: Path | None = None
    """CA certificates to trust for that instead of the system's."""

    def __str__(self) -> str:
        return authority(self.host, self.port)

    @property
    def authorization(self) -> str:
        """Write the value of Proxy-Authorization [RFC 7617 2], empty without a user."""
        if not self.user:
            return ""
        return f"Basic {b64encode(f'{self.user}:{self.password}'.encode()).decode()}"


@dataclass(frozen=True, slots=True)
class Route:
    """Hold how connections to one provider are made."""

    proxy: Proxy | None = None
    """None: straight."""
    sources: tuple[str, ...] = ()
    """The addresses to come from, at most one of IPv4 and one of IPv6; a kind without one is not used at all.

    Empty: whatever the host chooses.
    """


DIRECT: Final = Route()


def authority(host: str, port: int) -> str:
    """Write host and port as a URL has them, an IPv6 address in brackets [RFC 3986 3.2]."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
