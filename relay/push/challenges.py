"""Puts nonces into challenge pushes as they leave: a nonce is never stored, only its hash."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final

from relay.domain.challenge import NONCE, hash_nonce
from relay.domain.clock import Clock
from relay.domain.errors import StoreUnavailable
from relay.domain.model import DuePush, Mark
from relay.domain.outcome import PushEnd, Reach, RetryLater
from relay.domain.ports.outbox import ChallengeStore, PushSender

log = logging.getLogger(__name__)

AWAY: Final = 5.0
"""Seconds until the next try while the database cannot note a nonce."""
LIMIT: Final = 10.0
"""Seconds that the database may take, within the claim of the push."""


class ChallengingSender:
    """A sender that gives each challenge a new nonce, noted before it leaves; other pushes go as they are."""

    def __init__(self, sender: PushSender, store: ChallengeStore, clock: Clock, tokens: Callable[[int], str]) -> None:
        """Send through `sender`; `tokens` returns URL-safe text of that many random bytes."""
        self._sender = sender
        self._store = store
        self._clock = clock
        self._tokens = tokens

    def send(self, push: DuePush) -> Coroutine[Any, Any, PushEnd]:
        """Send one push; never raises for anything that a provider, a network or the database does."""
        return self._challenge(push) if push.mark is Mark.CHALLENGE else self._sender.send(push)

    async def _challenge(self, push: DuePush) -> PushEnd:
        nonce = self._tokens(NONCE)
        try:
            async with asyncio.timeout(LIMIT):
                wait = await self._store.issue(push, hash_nonce(nonce), self._clock())
        except (StoreUnavailable, TimeoutError):
            return RetryLater("the database is away", after=AWAY, reach=Reach.HERE)
        if wait is not None:
            return RetryLater("too many challenges for this device or mailbox", after=wait, reach=Reach.HERE)
        outcome = await self._sender.send(replace(push, nonce=nonce))
        if isinstance(outcome, RetryLater):
            await self._take_back(push)
        return outcome

    async def _take_back(self, push: DuePush) -> None:
        """Leave the challenges of a device for the time after an outage."""
        try:
            async with asyncio.timeout(LIMIT):
                await self._store.take_back(push)
        except (StoreUnavailable, TimeoutError):
            log.debug("challenge counted that did not leave", extra={"registration": push.registration_id})
