"""The access token for FCM: when it is renewed; one renewal runs at a time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Final

from eas_watcher.single_flight import SingleFlight
from relay.domain.clock import Clock
from relay.domain.outcome import Refused, RetryLater

log = logging.getLogger(__name__)

AHEAD: Final = 300.0
"""Seconds before the expiry of a token that the relay renews it, while the old one is still valid."""
JITTER: Final = 60.0
"""Seconds by which a renewal may come earlier, so that several processes do not renew at the same time."""
MARGIN: Final = 10.0
"""Seconds that a token must still be valid to be used at all."""
QUIET: Final = 5.0
"""Seconds after a failed renewal without another attempt."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """One OAuth 2.0 access token."""

    value: str = field(repr=False)
    expires_at: datetime


class TokenNotGiven(Exception):
    """Google gave no access token; `outcome` is the outcome of a push that needs one."""

    def __init__(self, outcome: RetryLater | Refused) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class AccessTokens:
    """One valid token, renewed in time.

    `mint` asks for a new one and raises TokenNotGiven only. A task of this object awaits it, so a cancelled push does
    not disturb the others.
    """

    def __init__(self, mint: Callable[[], Awaitable[AccessToken]], clock: Clock, random: Random) -> None:
        """Start without a token; the first push asks for one."""
        self._mint = mint
        self._clock = clock
        self._random = random
        self._token: AccessToken | None = None
        self._renew_at: datetime | None = None
        self._renewal = SingleFlight[AccessToken]("FCM access token")
        self._failed: tuple[TokenNotGiven, float] | None = None

    @property
    def renewing(self) -> bool:
        """True while a renewal runs."""
        return self._renewal.task is not None

    async def get(self) -> AccessToken:
        """Return a token that is valid now; raises TokenNotGiven."""
        now = self._clock()
        token = self._token
        if token is None or token.expires_at <= now + timedelta(seconds=MARGIN):
            return await self._fresh()
        if self._renew_at is not None and now >= self._renew_at and not self._quiet():
            self._begin()
        return token

    async def renew(self, refused: AccessToken) -> AccessToken:
        """Return another token than the refused one, which is not used again; raises TokenNotGiven."""
        if self._token is not None and self._token.value == refused.value:
            self._token = None
        return await self.get()

    async def close(self) -> None:
        """Cancel the renewal that runs."""
        await self._renewal.cancel()

    async def _fresh(self) -> AccessToken:
        if self._failed is not None and self._quiet():
            raise TokenNotGiven(self._failed[0].outcome)
        return await asyncio.shield(self._begin())

    def _quiet(self) -> bool:
        return self._failed is not None and asyncio.get_running_loop().time() < self._failed[1] + QUIET

    def _begin(self) -> "asyncio.Task[AccessToken]":
        return self._renewal.begin(self._renew, self._renewal_failed)

    async def _renew(self) -> AccessToken:
        token = await self._mint()
        now = self._clock()
        ahead = AHEAD + self._random.uniform(0.0, JITTER)
        self._renew_at = max(token.expires_at - timedelta(seconds=ahead), now + (token.expires_at - now) / 2)
        self._token = token
        self._failed = None
        return token

    def _renewal_failed(self, error: BaseException) -> None:
        if isinstance(error, TokenNotGiven):
            self._failed = (error, asyncio.get_running_loop().time())
            log.warning("no FCM access token", extra={"reason": error.outcome.reason})
