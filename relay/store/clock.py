"""The clock of the database, which all processes of a site share: what one writes, another compares with it."""

import asyncio
import logging
import time
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Final

import sqlalchemy as sa

from eas_watcher.peer_clocks import PeerClocks
from relay.domain.errors import StoreUnavailable
from relay.store.engine import Database
from relay.store.tables import Moment

log = logging.getLogger(__name__)

PERIOD: Final = 30.0  # seconds between two looks; both computers' crystals differ by less than 10 ms in an hour
ANSWER: Final = 10.0  # seconds
_NOW: Final = sa.select(sa.func.clock_timestamp(type_=Moment))


def _read(connection: sa.Connection) -> tuple[datetime, float, float]:
    """Return the database's time, when it was asked for by the clock that never jumps, and how long the answer took."""
    asked_at = time.monotonic()
    moment = connection.execute(_NOW).scalar_one()
    return moment, asked_at, time.monotonic() - asked_at


class DatabaseClock:
    """Tells the time of PostgreSQL's clock; between two looks it counts by the clock that never jumps."""

    def __init__(self, database: Database, peers: PeerClocks) -> None:
        """Take the database; `peers` compares this host's clock with it. Call `look` before the clock is used."""
        self._database = database
        self._peers = peers
        self._seen: tuple[datetime, float] | None = None

    def now(self) -> datetime:
        """Return the present time as an aware UTC datetime; in any thread."""
        if self._seen is None:
            raise AssertionError("the clock was not looked at")
        moment, at = self._seen
        return moment + timedelta(seconds=time.monotonic() - at)

    async def look(self) -> None:
        """Read the database's clock; raises StoreUnavailable."""
        moment, asked_at, took = await self._database.run(_read)
        self._seen = moment, asked_at + took / 2
        self._peers.answered("the database", format_datetime(moment, usegmt=True), took)

    async def run(self) -> None:
        """Look until cancelled; while the database is away, the clock goes on by itself."""
        while True:
            await asyncio.sleep(PERIOD)
            try:
                async with asyncio.timeout(ANSWER):
                    await self.look()
            except (StoreUnavailable, TimeoutError):
                log.debug("the database's clock was not read: it is away")
