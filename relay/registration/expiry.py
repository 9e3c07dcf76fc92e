"""The end of registrations that no mail server ever accepted: strangers' attempts, and phones that gave up."""

import asyncio
import logging
from datetime import timedelta
from typing import Final

from relay.domain.clock import Clock
from relay.domain.errors import StoreUnavailable
from relay.domain.ports.registration import RegistrationStore

log = logging.getLogger(__name__)

UNPROVED: Final = timedelta(days=1)
"""How long a registration may wait to be accepted; mail servers are seldom away for longer."""
PERIOD: Final = 600.0  # seconds between two looks


async def expire_unproved(store: RegistrationStore, clock: Clock) -> None:
    """Delete what has waited too long, again and again until cancelled; several processes may do so at once."""
    while True:
        try:
            expired = await store.expire(clock() - UNPROVED)
        except StoreUnavailable:
            log.warning("registrations that nobody accepted not deleted: the database is away")
        else:
            if expired:
                log.info("registrations deleted that no mail server accepted", extra={"registrations": expired})
        await asyncio.sleep(PERIOD)
