"""Which push services are used, and as whom."""

from dataclasses import dataclass
from pathlib import Path

from relay.network.route import DIRECT, Route


@dataclass(frozen=True, slots=True)
class WebPushConfig:
    """Hold which push services are used, and as whom."""

    services: frozenset[str]
    """The only ones that are ever asked: hosts, with a port unless it is 443."""
    vapid_key_file: Path
    """ECDSA P-256 key, PEM."""
    subject: str
    """Whom the operator of a push service may ask, mailto: or https: [RFC 8292 2.1]."""
    ca_file: Path | None = None
    """CA certificates to trust instead of the system's."""
    in_flight: int = 100
    """Pushes at once, each on a connection of its own; one of several services gets half of them at most."""
    time_limit: float = 20.0
    """Seconds for one push, connecting included."""
    route: Route = DIRECT
    """How connections are made: through which proxy, from which address."""
    direct: frozenset[str] = frozenset()
    """The services inside, to which no proxy leads."""
