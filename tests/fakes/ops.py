"""A store with the counts that a test sets, and a clock that a test moves."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from eas_watcher.machine.memory import WatchState
from eas_watcher.reasons import Reason
from relay.domain.errors import StoreUnavailable
from relay.domain.model import Platform, RegistrationState
from relay.domain.ports.ops import OutboxLevel, RefusedLogins, TokenLevel

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


class HandClock:
    """A clock with the time that the test set."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class OpsCounts:
    """An OpsStore; `away` refuses, `hanging` never answers."""

    mailboxes: dict[tuple[WatchState, Reason | None], int] = field(default_factory=dict)
    registrations: dict[tuple[Platform, RegistrationState], int] = field(default_factory=dict)
    levels: dict[Platform, OutboxLevel] = field(default_factory=dict)
    logins: dict[str, RefusedLogins] = field(default_factory=dict)
    maintenance: dict[str, datetime] = field(default_factory=dict)
    token_levels: list[TokenLevel] = field(default_factory=list)
    away: bool = False
    hanging: bool = False
    asked: int = 0

    async def reachable(self) -> None:
        self.asked += 1
        if self.hanging:
            await asyncio.Event().wait()
        if self.away:
            raise StoreUnavailable("the database is away")

    async def mailboxes_by_state(self) -> Mapping[tuple[WatchState, Reason | None], int]:
        return dict(self.mailboxes)

    async def registrations_by_state(self) -> Mapping[tuple[Platform, RegistrationState], int]:
        return dict(self.registrations)

    async def outbox(self) -> Mapping[Platform, OutboxLevel]:
        return dict(self.levels)

    async def refused_logins(self, now: datetime) -> Mapping[str, RefusedLogins]:
        return dict(self.logins)

    async def maintained(self) -> Mapping[str, datetime]:
        return self.maintenance

    async def tokens(self) -> Sequence[TokenLevel]:
        return list(self.token_levels)
