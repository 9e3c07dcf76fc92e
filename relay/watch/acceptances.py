"""Reads which mailboxes other watch processes hold Pings for, while a mail server refuses mailboxes of this one.

A refused mailbox may be the only one of its server in this process. Whether its server accepts others then shows in the
database only.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from eas_watcher.names import MailboxId
from eas_watcher.server.admission import ServerAdmission
from relay.domain.clock import Clock
from relay.domain.errors import StoreUnavailable
from relay.domain.ports.watch import WatchStore

log = logging.getLogger(__name__)

PERIOD: Final = 10.0  # seconds between two reads; less than OTHERS_FIRST, so that one comes before a mailbox's last try


class AcceptanceReader:
    """Reports to the admissions of this process what their servers accept elsewhere."""

    def __init__(
        self, store: WatchStore, servers: Callable[[], Iterable[tuple[str, ServerAdmission]]], clock: Clock
    ) -> None:
        """Read from `store`; `servers` returns the admissions with their URLs."""
        self._store = store
        self._servers = servers
        self._clock = clock

    async def run(self) -> None:
        """Read from time to time, until cancelled."""
        while True:
            await asyncio.sleep(PERIOD)
            await self.read()

    async def read(self) -> None:
        """Read once for each server that refuses a mailbox; what cannot be read now is read later."""
        for _, admission in self._servers():
            refused = admission.refusals.example
            if refused is None:
                continue
            try:
                accepted_at = await self._store.accepted_beside(MailboxId(str(refused)))
            except StoreUnavailable:
                log.warning("acceptances not read: the database is away")
                return
            if accepted_at is None:
                continue
            ago = (self._clock() - accepted_at).total_seconds()
            if ago >= 0:  # a host whose clock is ahead shows nothing until then
                admission.accepted_elsewhere(asyncio.get_running_loop().time() - ago)
