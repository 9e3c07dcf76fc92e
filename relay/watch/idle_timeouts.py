"""Stores what a process learns about mail servers and the paths to them, for itself and other processes.

Otherwise every restart would have to learn the timeout of each firewall again, by thousands of cut Pings, and how many
Pings each server holds, by requests that wait for a minute.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Final

from eas_watcher.server.admission import ServerAdmission
from eas_watcher.server.idle_timeout import Lesson
from relay.domain.clock import Clock
from relay.domain.errors import StoreUnavailable
from relay.domain.ports.watch import IdleTimeoutStore

log = logging.getLogger(__name__)

KEEP: Final = 600.0  # seconds between two writes of what was learnt; heartbeats change slowly
STALE: Final = timedelta(days=7)
"""Older lessons are ignored: the path may have been repaired, and only longer Pings can show it."""


async def recall(store: IdleTimeoutStore, clock: Clock) -> dict[str, Lesson]:
    """Return what is stored about each path, by the URL of the server; raises StoreUnavailable."""
    return dict(await store.lessons(clock() - STALE))


class IdleTimeoutKeeper:
    """Stores what the admissions learn about the paths to their servers."""

    def __init__(
        self,
        store: IdleTimeoutStore,
        servers: Callable[[], Iterable[tuple[str, ServerAdmission]]],
        known: Mapping[str, Lesson],
        clock: Clock,
    ) -> None:
        """Store in `store`; `servers` returns the admissions with their URLs, `known` is what is stored already."""
        self._store = store
        self._servers = servers
        self._kept = dict(known)
        self._clock = clock

    async def run(self) -> None:
        """Store what was learnt from time to time, until cancelled."""
        while True:
            await asyncio.sleep(KEEP)
            await self.keep()

    async def keep(self) -> None:
        """Store what was learnt since the last time; what cannot be stored now is stored later."""
        for url, admission in self._servers():
            lesson = admission.lesson
            if lesson is None or lesson == self._kept.get(url):
                continue
            try:
                await self._store.keep_lesson(url, lesson, self._clock())
            except StoreUnavailable:
                log.warning("what was learnt of paths is not kept: the database is away")
                return
            self._kept[url] = lesson
