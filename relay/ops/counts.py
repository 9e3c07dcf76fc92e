"""What health and metrics count in the database, read in the background so that a scrape never waits."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from eas_watcher.machine.memory import WatchState
from eas_watcher.reasons import Reason
from relay.domain.clock import Clock
from relay.domain.errors import StoreUnavailable
from relay.domain.model import Platform, RegistrationState
from relay.domain.ports.ops import OpsStore, OutboxLevel, RefusedLogins, TokenLevel

PERIOD: Final = 5.0  # seconds between two refreshes; a scrape every 15 s sees fresh numbers
PATIENCE: Final = 10.0  # seconds a refresh may take; after that the database counts as away


@dataclass(frozen=True, slots=True)
class Counts:
    """The numbers of one moment."""

    mailboxes: Mapping[tuple[WatchState, Reason | None], int]
    registrations: Mapping[tuple[Platform, RegistrationState], int]
    outbox: Mapping[Platform, OutboxLevel]
    tokens: Sequence[TokenLevel]
    refused_logins: Mapping[str, RefusedLogins]
    read_at: datetime
    maintained: Mapping[str, datetime] = field(default_factory=dict)
    """The mail servers in maintenance, and since when."""


class CountsCache:
    """The newest counts; readers never wait."""

    def __init__(self, store: OpsStore, clock: Clock) -> None:
        """Set up without counts; `run` reads them from the store."""
        self._store = store
        self._clock = clock
        self.newest: Counts | None = None
        """None until the database has answered once."""
        self.reachable = False
        """Whether the last refresh succeeded."""

    def maintained(self, server: str) -> datetime | None:
        """Return since when a mail server is in maintenance; None: it is not."""
        return None if self.newest is None else self.newest.maintained.get(server)

    async def refresh(self) -> None:
        """Read the counts again; the old ones stay if the database does not answer."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._store.reachable()
                mailboxes = await self._store.mailboxes_by_state()
                registrations = await self._store.registrations_by_state()
                outbox = await self._store.outbox()
                tokens = await self._store.tokens()
                maintained = await self._store.maintained()
                refused = await self._store.refused_logins(self._clock())
        except (StoreUnavailable, TimeoutError):
            self.reachable = False
            return
        self.newest = Counts(mailboxes, registrations, outbox, tokens, refused, self._clock(), maintained)
        self.reachable = True

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(PERIOD)
