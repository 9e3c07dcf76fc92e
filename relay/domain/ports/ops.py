"""What health and metrics need from the store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from eas_watcher.machine.memory import WatchState
from eas_watcher.reasons import Reason
from relay.domain.model import Environment, Platform, RegistrationState


@dataclass(frozen=True, slots=True)
class OutboxLevel:
    """How many marks wait for one platform, and how old the oldest is."""

    pending: int
    oldest_at: datetime | None
    failing: int
    """How many of them failed at least once."""
    parked: int = 0
    """How many more are parked since they break the relay."""


@dataclass(frozen=True, slots=True)
class TokenLevel:
    """How many active registrations of one app in one environment have the same trouble with their device tokens."""

    platform: Platform
    app: str
    environment: Environment
    reason: str
    """Why the device tokens are refused; empty: they are not."""
    remedy: str
    registrations: int


@dataclass(frozen=True, slots=True)
class RefusedLogins:
    """The credentials of apps that one mail server refused lately, over all accounts."""

    refused: int
    most: int
    """So many may be refused in a lock-out window, by the settings."""
    minutes: int
    """The length of that window."""
    wait: bool
    """Whether others wait, since too many were refused."""


@dataclass(frozen=True, slots=True)
class WatchNode:
    """A watch process that is registered in the database."""

    id: str
    version: str
    shards: int
    left: float
    """Seconds until its lease ends; not positive: it counts as dead."""
    leaving: bool


class OpsStore(Protocol):
    """Counts for health and metrics."""

    async def reachable(self) -> None:
        """Raise StoreUnavailable when the database does not answer."""

    async def mailboxes_by_state(self) -> Mapping[tuple[WatchState, Reason | None], int]:
        """Count mailboxes by state and reason."""

    async def registrations_by_state(self) -> Mapping[tuple[Platform, RegistrationState], int]:
        """Count registrations."""

    async def outbox(self) -> Mapping[Platform, OutboxLevel]:
        """Measure the outbox of each platform, without marks of registrations in quarantine."""

    async def refused_logins(self, now: datetime) -> Mapping[str, RefusedLogins]:
        """Count by server the credentials of apps that were refused; empty for a role that shows none."""

    async def maintained(self) -> Mapping[str, datetime]:
        """Return the mail servers in maintenance, and since when."""

    async def tokens(self) -> Sequence[TokenLevel]:
        """Count active registrations by app, environment and the reason why their device tokens are refused."""
