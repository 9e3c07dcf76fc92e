"""Own that what a process learns of the paths to mail servers outlives it, and reaches the others.

A restart would teach every firewall's idle timeout anew, at the price of thousands of cut Pings.
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
from relay.domain.ports.watch import PathStore

log = logging.getLogger(__name__)

KEEP: Final = 600.0  # seconds between two looks at what was learnt: heartbeats change slowly
STALE: Final = timedelta(days=7)
"""What is older is learnt anew: the path may have been repaired, and only longer Pings would tell."""


async def recall(store: PathStore, clock: Clock) -> dict[str, Lesson]:
    """Read what is known of paths, by URL; raises StoreUnavailable."""
    return dict(await store.lessons(clock() - STALE))


class Paths:
    """Keeps what the admissions learn about the paths to their servers."""

    def __init__(
        self,
        store: PathStore,
        servers: Callable[[], Iterable[tuple[str, ServerAdmission]]],
        known: Mapping[str, Lesson],
        clock: Clock,
    ) -> None:
        """Take where it is kept, what gives the admissions with their URLs, and what is kept already."""
        self._store = store
        self._servers = servers
        self._kept = dict(known)
        self._clock = clock

    async def run(self) -> None:
        """Keep what was learnt now and then, for ever."""
        while True:
            await asyncio.sleep(KEEP)
            await self.keep()

    async def keep(self) -> None:
        """Keep what was learnt since the last time; what cannot be kept now is kept later."""
        for url, admission in self._servers():
            lesson = admission.path.lesson
            if lesson is None or lesson == self._kept.get(url):
                continue
            try:
                await self._store.keep_lesson(url, lesson, self._clock())
            except StoreUnavailable:
                log.warning("what was learnt of paths is not kept: the database is away")
                return
            self._kept[url] = lesson
