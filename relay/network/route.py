"""The route to a provider: the proxy that connections go through, and the address that they come from."""

from dataclasses import dataclass
from typing import Final

from eas_watcher.proxy.proxy import Proxy


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
