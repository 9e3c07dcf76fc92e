"""Seals stored credentials for the present key, while their Pings are held: a few at a time, until none is left."""

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol

from eas_watcher.names import MailboxId
from relay.domain.errors import StoreUnavailable
from relay.domain.model import SealedMailbox
from relay.domain.ports.watch import WatchStore
from relay.security.sealing import SealingPrivateKey
from relay.watch.accounts import Accounts
from relay.watch.oauth_grants import Grants

log = logging.getLogger(__name__)

BATCH: Final = 100  # mailboxes of one transaction: some 40 ms of the loop, in slices of one seal
PAUSE: Final = 0.1  # seconds between two transactions, so that commits and registrations come in between
EVERY: Final = 60.0  # seconds until seals for another key are looked for again: an api process may lag behind
AGAIN: Final = 2.0  # seconds until it is looked again while this process waits for its shards, keys or the database


class Watched(Protocol):
    """The mailboxes of this process."""

    @property
    def watched_shards(self) -> Collection[int]:
        """The shards whose mailboxes this process may watch now."""

    async def turn_over(
        self, seals: Mapping[MailboxId, Mapping[bytes, bytes]]
    ) -> Mapping[MailboxId, Mapping[bytes, bytes]]:
        """Replace seals, before -> after; return those that were still there."""


class Agreement(Protocol):
    """What says whether all processes go over to the present key."""

    @property
    def settled(self) -> bool:
        """True if all watch processes seal with the present key."""


@dataclass(slots=True)
class TurnoverProgress:
    """How far this process is, about the shards that it has."""

    renewed: int = 0
    """Seals that it has replaced since it started."""
    left: int = 0
    """Seals that are still for another key, candidates that are checked now among them."""
    closed: int = 0
    """Of these, seals that no key of this process opens."""


class Turnover:
    """Replaces the seals for former keys in the shards of this process."""

    def __init__(
        self,
        accounts: Accounts,
        grants: Grants,
        store: WatchStore,
        watched: Watched,
        agreement: Agreement,
        random: Random,
    ) -> None:
        """Do nothing yet; `accounts` has the keys."""
        self._accounts = accounts
        self._grants = grants
        self._store = store
        self._watched = watched
        self._agreement = agreement
        self._random = random
        self._added: set[bytes] = set()
        """Keys that were added since mailboxes were looked at that waited for them."""
        self._changed = asyncio.Event()
        self._counted: tuple[tuple[int, ...], bytes, float] | None = None
        """The shards and the key that were counted last while other processes lack the key, and when."""
        self.progress = TurnoverProgress()

    def use(self, key: SealingPrivateKey) -> None:
        """Open with other keys from now on, and seal for the first of them as soon as all processes do so."""
        self._added |= key.ids - self._accounts.key.ids
        self._accounts.key = self._grants.key = key
        self._changed.set()

    async def run(self) -> None:
        """Look for seals for another key, and replace them, until cancelled."""
        while True:
            try:
                ended = await self._pass()
            except StoreUnavailable:
                log.warning("seals not looked at: the database is away")
                ended = False
            # Processes that were started or reloaded together do not look together.
            pause = EVERY * self._random.uniform(0.8, 1.2) if ended else AGAIN
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                continue
            self._changed.clear()

    async def _pass(self) -> bool:
        """Replace what can be replaced now; return False if it must wait for shards or for other processes."""
        shards = tuple(self._watched.watched_shards)
        if not shards:
            return False
        if added := frozenset(self._added):
            await self._store.look_at_seals(shards, added)
            self._added -= added
        head = self._accounts.key.public_key().head
        if not self._agreement.settled:
            await self._count(shards, head)
            return False
        before, found = self.progress.renewed, TurnoverProgress()
        rows = await self._store.sealed_otherwise(shards, head, None, BATCH)
        if len(rows) == BATCH:
            self.progress.left = await self._store.count_sealed_otherwise(shards, head)
        while rows:
            if self._accounts.key.public_key().head != head:
                return False  # another key was taken meanwhile
            await self._replace(rows, found)
            await asyncio.sleep(PAUSE)
            rows = await self._store.sealed_otherwise(shards, head, rows[-1].id, BATCH)
        done = self.progress.renewed - before
        if done or found.closed != self.progress.closed:
            log.info("credentials sealed again", extra={"renewed": done, "left": found.left, "closed": found.closed})
        self.progress.left, self.progress.closed = found.left, found.closed
        return frozenset(shards) == frozenset(self._watched.watched_shards)  # after a start they come one by one

    async def _count(self, shards: tuple[int, ...], head: bytes) -> None:
        """Count what waits for other processes: once for some shards and a key, and then as often as it is looked."""
        now = asyncio.get_running_loop().time()
        counted = self._counted
        if counted is None or counted[:2] != (shards, head) or now - counted[2] >= EVERY:
            self.progress.left = await self._store.count_sealed_otherwise(shards, head)
            self._counted = shards, head, now

    async def _replace(self, rows: list[SealedMailbox], found: TurnoverProgress) -> None:
        """Replace the seals of some mailboxes; add what is left to `found`."""
        key = self._accounts.key
        fresh: dict[MailboxId, dict[bytes, bytes]] = {}
        for row in rows:
            for seal in row.seals:
                await asyncio.sleep(0)  # a fraction of a millisecond each
                renewed = key.renewed(row, seal)
                if renewed is None:
                    found.closed += 1
                else:
                    fresh.setdefault(row.id, {})[seal] = renewed
        written = await self._watched.turn_over(fresh) if fresh else {}
        self._grants.resealed(written)
        number = sum(map(len, written.values()))
        found.left += sum(len(row.seals) for row in rows) - number
        self.progress.renewed += number
        self.progress.left = max(self.progress.left - number, found.left)
