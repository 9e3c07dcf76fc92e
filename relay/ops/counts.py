"""Own the counts of the database that health and metrics read: refreshed in the background, so a scrape never waits."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from eas_watcher.machine.memory import WatchState
from eas_watcher.reasons import Reason
from relay.domain.clock import Clock
from relay.domain.errors import StoreUnavailable
from relay.domain.model import Platform, RegistrationState
from relay.domain.ports.ops import OpsStore, OutboxLevel, TokenLevel

PERIOD: Final = 5.0  # seconds between two refreshes; a scrape every 15 s sees fresh numbers
PATIENCE: Final = 10.0  # seconds a refresh may take; a database that hangs is as good as away


@dataclass(frozen=True, slots=True)
class Counts:
    """Hold what the database counted at one moment."""

    mailboxes: Mapping[tuple[WatchState, Reason | None], int]
    registrations: Mapping[tuple[Platform, RegistrationState], int]
    outbox: Mapping[Platform, OutboxLevel]
    tokens: Sequence[TokenLevel]
    read_at: datetime


class CountsCache:
    """Keep the newest counts; every reader gets them at once."""

    def __init__(self, store: OpsStore, clock: Clock) -> None:
        """Take what counts."""
        self._store = store
        self._clock = clock
        self.newest: Counts | None = None
        """None until the database has answered once."""
        self.reachable = False
        """Whether the last refresh succeeded."""

    async def refresh(self) -> None:
        """Read the counts anew; the old ones stay when the database does not answer."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._store.reachable()
                mailboxes = await self._store.mailboxes_by_state()
                registrations = await self._store.registrations_by_state()
                outbox = await self._store.outbox()
                tokens = await self._store.tokens()
        except (StoreUnavailable, TimeoutError):
            self.reachable = False
            return
        self.newest = Counts(mailboxes, registrations, outbox, tokens, self._clock())
        self.reachable = True

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(PERIOD)
