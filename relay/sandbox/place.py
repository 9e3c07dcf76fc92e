"""Where a sandbox listens, and the names under which phones and the relay reach it; no I/O."""

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Place:
    """An address to listen on and the names that the certificates have besides; raises ValueError."""

    host: str = LOOPBACK
    """An IP address of this machine; 0.0.0.0 and :: are all of them."""
    names: tuple[str, ...] = ()
    """Host names and addresses by which phones and simulators reach this machine."""

    def __post_init__(self) -> None:
        ip_address(self.host)
        if any(not name or (set(name) & set("/: @") and not _is_address(name)) for name in self.names):
            raise ValueError("a name is a host name or an IP address, without a port")

    @property
    def address(self) -> str:
        """The address by which a relay on this machine reaches the simulators."""
        address = ip_address(self.host)
        if not address.is_unspecified:
            return self.host
        return LOOPBACK if address.version == 4 else "::1"  # noqa: PLR2004 -- IPv4

    @property
    def reached(self) -> str:
        """The same address as URLs have it."""
        return in_url(self.address)

    @property
    def shown(self) -> str:
        """What phones use in URLs: the first name, or else the address."""
        return in_url(self.names[0]) if self.names else self.reached

    @property
    def certified(self) -> tuple[str, ...]:
        """The names in the certificates, besides those of loopback."""
        return tuple(dict.fromkeys((*self.names, self.address)))

    @property
    def public(self) -> bool:
        """Whether other machines may reach the sandbox."""
        return not ip_address(self.host).is_loopback


def in_url(host: str) -> str:
    """Return a host as URLs have it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
