"""How FCM is reached and as whom."""

from dataclasses import dataclass
from pathlib import Path

from relay.network.route import DIRECT, Route
from relay.push.fcm.budget import PER_HOUR


@dataclass(frozen=True, slots=True)
class FcmConfig:
    """Hold how to reach FCM and as whom."""

    service_account_file: Path
    """The JSON file that Google gives for a service account; it names the project and where tokens are made."""
    endpoint: str = "https://fcm.googleapis.com"
    ca_file: Path | None = None
    """CA certificates to trust instead of the system's, for pushes and for tokens."""
    in_flight: int = 100
    """Pushes at once, each on a connection of its own: FCM's HTTP/1.1."""
    time_limit: float = 20.0
    """Seconds for one push, token and connecting included; one more may pass before it is given up."""
    high_priority_per_hour: int = PER_HOUR
    """Pushes of new items that wake one phone within an hour; more go with normal priority."""
    route: Route = DIRECT
    """How connections are made, for pushes and for tokens: through which proxy, from which address."""
