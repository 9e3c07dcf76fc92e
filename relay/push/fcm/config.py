"""The address of FCM, and the relay's service accounts there: values that the settings make."""

from dataclasses import dataclass
from pathlib import Path

from relay.network.route import DIRECT, Route
from relay.push.fcm.budget import PER_HOUR


@dataclass(frozen=True, slots=True)
class FcmAccount:
    """The service account of one Firebase project, and the apps of that project."""

    apps: frozenset[str]
    service_account_file: Path
    """Google's JSON file for a service account; it names the project and the URL that makes tokens."""
    table: str = "fcm"
    """The account's table in relay.toml, for remedies, health and metrics."""

    @property
    def file_setting(self) -> str:
        """The key of relay.toml that names the file."""
        return f"{self.table}.service_account_file"


@dataclass(frozen=True, slots=True)
class FcmConfig:
    """The address of FCM, and the relay's service accounts there."""

    accounts: tuple[FcmAccount, ...]
    """No two accounts are for the same app."""
    endpoint: str = "https://fcm.googleapis.com"
    ca_file: Path | None = None
    """CA certificates to trust instead of the system's, for pushes and for tokens."""
    in_flight: int = 100
    """Pushes at once, each on a connection of its own: FCM's HTTP/1.1. One of several projects gets half of them."""
    time_limit: float = 20.0
    """Seconds for one push, token and connecting included; the push ends at most one second later."""
    high_priority_per_hour: int = PER_HOUR
    """Pushes of new items that wake one phone within an hour; more go with normal priority."""
    route: Route = DIRECT
    """The proxy that connections go through, for pushes and for tokens, and the address that they come from."""
