"""Own how outcomes reach the store: in groups, kept while the database is away, and no one spoils its group."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from random import Random
from typing import Final

from relay.domain.clock import Clock
from relay.domain.errors import StoreUnavailable
from relay.domain.model import DuePush, Mark, Platform, RegistrationId
from relay.domain.ports.outbox import OutboxStore, Settlement
from relay.push import backoff
from relay.push.outcomes import PARKED

log = logging.getLogger(__name__)

STORE_CEILING: Final = 30.0
"""Seconds between two tries while the database is away."""

Ended = tuple[Settlement, int]
"""A settlement, and how many wake-ups there had been when its mark was claimed."""


class SettlementWriter:
    """Settle the outcomes of one platform."""

    def __init__(
        self,
        store: OutboxStore,
        platform: Platform,
        clock: Clock,
        random: Random,
        settled: Callable[[Sequence[Ended]], None],
    ) -> None:
        """Take where outcomes go; `settled` hears of each group that is done with."""
        self._store = store
        self._platform = platform
        self._clock = clock
        self._random = random
        self._settled = settled
        self._ended: list[Ended] = []
        self._something_ended = asyncio.Event()
        self._spoilt: set[tuple[RegistrationId, Mark]] = set()

    def add(self, settlement: Settlement, wakes: int) -> None:
        """Take an outcome."""
        self._ended.append((settlement, wakes))
        self._something_ended.set()

    def knows(self, push: DuePush) -> bool:
        """Tell whether a claimed push has ended already, or must not be sent again since its end cannot be recorded."""
        spoilt = (push.registration_id, push.mark) in self._spoilt
        return spoilt or any(settlement.push == push for settlement, _ in self._ended)

    async def run(self) -> None:
        """Settle in groups: whatever ended while the last transaction ran goes with the next one."""
        failures = 0
        while True:
            if not self._ended:
                self._something_ended.clear()
                await self._something_ended.wait()
            try:
                await self.flush()
            except StoreUnavailable:
                failures += 1
                if failures == 1:
                    log.warning("outcomes wait: the database is away", extra={"platform": self._platform})
                await asyncio.sleep(min(STORE_CEILING, backoff.retry(failures, self._random)))
            else:
                failures = 0

    async def flush(self) -> None:
        """Settle what has ended so far; raise StoreUnavailable and keep it while the database is away."""
        group = list(self._ended)
        if not group:
            return
        await self._record([settlement for settlement, _ in group])
        del self._ended[: len(group)]
        self._settled(group)

    async def _record(self, settlements: Sequence[Settlement]) -> None:
        error = await self._failure(self._store.settle(settlements, self._clock()))
        if error is None:
            return
        if len(settlements) > 1:
            for settlement in settlements:
                await self._record([settlement])
            return
        push = settlements[0].push
        fields = {"platform": self._platform, "registration": push.registration_id, "mark": push.mark}
        log.error("push set aside", extra=fields | {"reason": "its outcome cannot be recorded"}, exc_info=error)
        reason = f"its outcome cannot be recorded: {type(error).__name__}"
        until = self._clock() + timedelta(seconds=PARKED)
        if await self._failure(self._store.park(push, reason, until)) is not None:
            # Its claim runs out and it is claimed again, but this process never sends it twice.
            self._spoilt.add((push.registration_id, push.mark))

    async def _failure(self, doing: Awaitable[None]) -> Exception | None:
        """Await what the store does; return what it raised, but for an absent database, which concerns everything."""
        (result,) = await asyncio.gather(doing, return_exceptions=True)
        if isinstance(result, StoreUnavailable) or (
            isinstance(result, BaseException) and not isinstance(result, Exception)
        ):
            raise result
        return result
