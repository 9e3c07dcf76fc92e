"""The settings of WebPush."""

from dataclasses import dataclass
from pathlib import Path

from relay.network.route import DIRECT, Route
from relay.push.payload import WebAppPages


@dataclass(frozen=True, slots=True)
class WebPushConfig:
    """Which push services the relay uses, and as whom."""

    services: frozenset[str]
    """The only push services that get requests: hosts, with a port unless it is 443, and perhaps WINDOWS."""
    vapid_key_file: Path
    """ECDSA P-256 key, PEM."""
    subject: str
    """Where the operator of a push service may ask, mailto: or https: [RFC 8292 2.1]."""
    ca_file: Path | None = None
    """CA certificates to trust; None: the system's."""
    in_flight: int = 100
    """Pushes at once, each on a connection of its own; one of several services gets at most half of them."""
    time_limit: float = 20.0
    """Seconds for one push, including the connection's set-up."""
    route: Route = DIRECT
    """How connections are made: through which proxy, from which address."""
    pages: WebAppPages | None = None
    """What notifications of the relay's own web app open; None: it is off, and its pushes have no texts."""
    direct: frozenset[str] = frozenset()
    """The services inside the company, which are reached without the proxy."""
