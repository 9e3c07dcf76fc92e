"""The end of registrations that are kept no longer: attempts of strangers, apps that are gone, wiped mailboxes."""

import asyncio
import logging
from collections.abc import Callable

from relay.domain.clock import Clock
from relay.domain.errors import StoreUnavailable
from relay.domain.ports.registration import RegistrationStore

log = logging.getLogger(__name__)


async def sweep_forever(store: RegistrationStore, clock: Clock, period: Callable[[], float]) -> None:
    """End what is kept no longer, every `period()` seconds until cancelled; several processes may do so at once."""
    while True:
        try:
            ended = await store.sweep(clock())
        except StoreUnavailable:
            log.warning("registrations that are kept no longer not ended: the database is away")
        else:
            for ending, number in ended.items():
                log.info("registrations ended", extra={"ending": ending, "registrations": number})
        await asyncio.sleep(period())
