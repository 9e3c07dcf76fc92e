"""Own the path from a watch's progress to the store: leases attached, outages of the database waited out."""

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Final, Protocol

from eas_watcher import backoff
from eas_watcher.names import MailboxId
from eas_watcher.ports import Fenced
from eas_watcher.progress import Progress
from relay.errors import StoreUnavailable
from relay.model import CommitEntry
from relay.ports import Clock, WatchStore

log = logging.getLogger(__name__)

FLUSH: Final = 30.0  # seconds between notes of when Pings began; only explain and health read them


class Committer(Protocol):
    """Commit entries of many watches in groups."""

    async def commit(self, entry: CommitEntry) -> None:
        """Return when durable; raise Fenced or StoreUnavailable."""


class StoreJournal:
    """Be the journal of all watches of this process."""

    def __init__(
        self,
        committer: Committer,
        store: WatchStore,
        lease_of: Callable[[MailboxId], tuple[int, int] | None],
        clock: Clock,
        random: Random,
    ) -> None:
        """Take the group committer and how to find a mailbox's (shard, epoch); None: the lease is lost."""
        self._committer = committer
        self._store = store
        self._lease_of = lease_of
        self._clock = clock
        self._random = random
        self._pings: dict[MailboxId, tuple[float, float]] = {}

    async def commit(self, mailbox: MailboxId, progress: Progress) -> None:
        """Return when `progress` is durable, however long the database is away; raise Fenced when the lease is lost.

        A commit whose end is unknown is made again: counted twice is better than lost.
        """
        failures = 0
        while True:
            lease = self._lease_of(mailbox)
            if lease is None:
                raise Fenced
            try:
                await self._committer.commit(CommitEntry(mailbox, *lease, progress))
            except StoreUnavailable:
                failures += 1
                await asyncio.sleep(min(30.0, backoff.delay(failures, self._random)))
            else:
                return

    def pinged(self, mailbox: MailboxId, heartbeat: float) -> None:
        """Note that a Ping is held from now."""
        self._pings[mailbox] = (asyncio.get_running_loop().time(), heartbeat)

    async def run(self) -> None:
        """Write the noted Pings now and then, for ever."""
        while True:
            await asyncio.sleep(FLUSH)
            await self.flush()

    async def flush(self) -> None:
        """Write the noted Pings; what cannot be written now is overwritten by later ones."""
        pings, self._pings = self._pings, {}
        if not pings:
            return
        now, loop_now = self._clock(), asyncio.get_running_loop().time()
        moments = {
            mailbox: (now - timedelta(seconds=loop_now - began), hold) for mailbox, (began, hold) in pings.items()
        }
        try:
            await self._store.note_pings(moments)
        except StoreUnavailable:
            log.warning("moments of Pings not noted: the database is away", extra={"pings": len(pings)})
