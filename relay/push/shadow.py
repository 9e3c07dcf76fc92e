"""Ends the pushes that shadow mode holds back; no byte of them goes anywhere."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from relay.domain.errors import StoreUnavailable
from relay.domain.model import DuePush
from relay.domain.outcome import PushEnd, Reach, RetryLater, Shadowed
from relay.domain.ports.outbox import PushSender, ServerNames
from relay.domain.shadow import Shadow

AWAY: Final = 5.0
"""Seconds until the next try while the database cannot say which server a mailbox is on."""
LIMIT: Final = 10.0
"""Seconds that the database may take, within the claim of the push."""


class ShadowingSender:
    """A sender that sends what leaves; what is held back ends as Shadowed."""

    def __init__(self, sender: PushSender, shadow: Shadow, servers: ServerNames) -> None:
        """Send through `sender`; `servers` knows which mail server a registration's mailbox is on."""
        self._sender = sender
        self._shadow = shadow
        self._servers = servers

    def send(self, push: DuePush) -> Coroutine[Any, Any, PushEnd]:
        """Send one push, or hold it back; never raises for anything that a provider, a network or the database does."""
        return self._sender.send(push) if self._shadow.off else self._decide(push)

    async def _decide(self, push: DuePush) -> PushEnd:
        server = None
        if self._shadow.needs_server(push):
            try:
                async with asyncio.timeout(LIMIT):
                    server = await self._servers.server_of(push.registration_id)
            except (StoreUnavailable, TimeoutError):
                return RetryLater("the database is away", after=AWAY, reach=Reach.HERE)
        if self._shadow.holds_back(push, server):
            return Shadowed()
        return await self._sender.send(push)
