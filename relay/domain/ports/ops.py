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
    """Tell how many marks wait for one platform and how old the oldest is."""

    pending: int
    oldest_at: datetime | None
    failing: int
    """How many of them have failed at least once."""
    parked: int = 0
    """How many more are set aside, for they break what they meet."""


@dataclass(frozen=True, slots=True)
class TokenLevel:
    """Count the active registrations of one app in one environment whose provider says the same of their tokens."""

    platform: Platform
    app: str
    environment: Environment
    reason: str
    """Why the tokens are refused; empty: they are not."""
    remedy: str
    registrations: int


class OpsStore(Protocol):
    """Count, for health and metrics."""

    async def reachable(self) -> None:
        """Raise StoreUnavailable when the database does not answer."""

    async def mailboxes_by_state(self) -> Mapping[tuple[WatchState, Reason | None], int]:
        """Count mailboxes by state and reason."""

    async def registrations_by_state(self) -> Mapping[tuple[Platform, RegistrationState], int]:
        """Count registrations."""

    async def outbox(self) -> Mapping[Platform, OutboxLevel]:
        """Measure the outbox of each platform; marks of registrations in quarantine are not among it."""

    async def tokens(self) -> Sequence[TokenLevel]:
        """Count active registrations by app, environment and what their provider says of their tokens."""
