"""Tells other processes which sealing keys this one has, and says from when on a new key may be sealed with."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from relay.domain.clock import Clock
from relay.domain.errors import StoreUnavailable
from relay.domain.model import Role
from relay.domain.ports.keys import KeyHolderStore
from relay.domain.sealing_keys import KeyHolder, without
from relay.security.sealing import SealingPublicKey

log = logging.getLogger(__name__)

PERIOD: Final = 20.0  # seconds between two looks
SOON: Final = 2.0  # seconds between two looks while this process waits for others


class KeyPresence:
    """The sealing keys of this process, and whether all processes that open credentials have the one it seals with."""

    def __init__(
        self, node: str, role: Role, store: KeyHolderStore, clock: Clock, opens: frozenset[str], seals: SealingPublicKey
    ) -> None:
        """Begin with the keys of the start; what this process seals from then on is for the key `seals`."""
        self._node = node
        self._role = role
        self._store = store
        self._clock = clock
        self._opens = opens
        self._wanted = self.present = seals
        self._changed = asyncio.Event()
        self._agreed = False
        self._listeners: list[Callable[[SealingPublicKey], None]] = []
        self.without: tuple[KeyHolder, ...] = ()
        """The watch processes that do not open the key that this process wants to seal with, when last looked."""
        self.behind: tuple[KeyHolder, ...] = ()
        """The other watch processes that seal with another key than this one, when last looked."""

    @property
    def wanted(self) -> SealingPublicKey:
        """The key of the configuration, which is `present` once every watch process opens it."""
        return self._wanted

    @property
    def agreed(self) -> bool:
        """True if every watch process opens the key of the configuration, as was looked since it was given."""
        return self._agreed

    @property
    def settled(self) -> bool:
        """True if all watch processes seal with the key of the configuration: what is sealed otherwise may go over.

        Before, one process would seal for one key what the other seals for another.
        """
        return self._agreed and not self.behind

    def listen(self, listener: Callable[[SealingPublicKey], None]) -> None:
        """Call `listener` with each key that may be sealed with from now on."""
        self._listeners.append(listener)

    def change(self, opens: frozenset[str], seals: SealingPublicKey) -> None:
        """Take other keys: this process opens with them at once, and seals with `seals` once all others open it."""
        self._opens, self._wanted, self._agreed = opens, seals, False
        self._changed.set()

    async def look(self) -> None:
        """Tell the others what this process has, and look what they have; raises StoreUnavailable."""
        wanted, now = self._wanted, self._clock()
        await self._store.note(KeyHolder(self._node, self._role, self._opens, self.present.name), now)
        holders = await self._store.holders(now)
        if wanted is not self._wanted:
            return  # other keys were taken meanwhile, which the others do not know yet
        before, self.without = {each.node for each in self.without}, without(holders, wanted.name)
        self._agreed = not self.without
        others = [each for each in holders if each.watches and each.node != self._node]
        self.behind = tuple(each for each in others if each.seals != wanted.name)
        names = [each.node for each in self.without]
        if names and set(names) != before:
            log.warning("sealing key waits: a watch process does not open it", extra={"processes": names})
        if self._agreed and self.present.id != wanted.id:
            self.present = wanted
            log.info("sealing key in use", extra={"key": wanted.name})
            for listener in self._listeners:
                listener(wanted)
            await self._store.note(KeyHolder(self._node, self._role, self._opens, wanted.name), now)

    async def run(self) -> None:
        """Look from time to time, and at once when other keys are taken, until cancelled."""
        while True:
            try:
                await self.look()
            except StoreUnavailable:
                log.warning("sealing keys of other processes not read: the database is away")
            try:
                async with asyncio.timeout(PERIOD if self.settled else SOON):
                    await self._changed.wait()
            except TimeoutError:
                continue
            self._changed.clear()

    async def leave(self) -> None:
        """Tell the others that this process ends; if the database is away, they see it when it tells nothing more."""
        try:
            await self._store.leave(self._node)
        except StoreUnavailable:
            log.debug("end not noted: the database is away")
