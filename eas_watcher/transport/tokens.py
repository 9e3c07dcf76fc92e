"""The access token of one grant: when it is renewed; one renewal runs at a time and loses nothing.

A token endpoint may accept a refresh token once only, and withdraw the whole grant when the token comes again. So a
renewal runs to its end even if the request that waits for it is cancelled, and the new refresh token is stored before
the new access token is used.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from eas_watcher.auth.bearer import OAuthCredential
from eas_watcher.auth.grant import Issued, OAuthClient, read_issued, refresh_request
from eas_watcher.errors import EasError, Unreachable
from eas_watcher.ports import Now, Transport
from eas_watcher.single_flight import SingleFlight

log = logging.getLogger(__name__)

AHEAD: Final = 300.0
"""Seconds before the expiry of a token that the relay renews it, while the old one is still valid."""
JITTER: Final = 120.0
"""Seconds by which a renewal may come earlier, so that mailboxes that started together do not renew together."""
MARGIN: Final = 10.0
"""Seconds that a token must still be valid to be used at all."""
QUIET: Final = 60.0
"""Seconds after a failed renewal without another early one."""
AT_ONCE: Final = 8
"""Renewals at once at one token endpoint, so that the start of all watches is no storm."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """One access token; moments are `loop.time()` in seconds."""

    value: str = field(repr=False)
    issued_at: float
    expires_at: float
    renew_at: float
    users: frozenset[str] = frozenset()
    """The names of its user, as far as the endpoint said any."""


class TokenEndpoint:
    """One configured token endpoint."""

    def __init__(self, client: OAuthClient, transport: Transport, now: Now) -> None:
        """Ask through `transport` as `client`."""
        self.client = client
        self._transport = transport
        self._now = now
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def refresh(self, credential: OAuthCredential) -> Issued:
        """Return a new access token; raises an EasError, none of which means that the mail server was reached."""
        try:
            return await self._ask(credential)
        except EasError as error:
            error.elsewhere = True
            raise

    async def _ask(self, credential: OAuthCredential) -> Issued:
        async with self._slots:
            try:
                reply = await self._transport.send(refresh_request(self.client, credential))
            except Unreachable as error:
                raise Unreachable(f"the token endpoint: {error}", reached=False, reason=error.reason) from error
        return read_issued(reply, self.client, self._now(), first=credential.code is not None)


class Tokens:
    """One valid access token of one grant, renewed in time."""

    def __init__(
        self,
        credential: OAuthCredential,
        endpoint: TokenEndpoint,
        keep: Callable[[OAuthCredential], Awaitable[None]],
        random: Random,
    ) -> None:
        """Renew the grant at `endpoint`; `keep` returns when a rotated credential is durable."""
        self.endpoint = endpoint
        self._credential = credential
        self._keep = keep
        self._random = random
        self._token: AccessToken | None = None
        self._renewal = SingleFlight[AccessToken]("access token")
        self._failed_at = float("-inf")

    @property
    def renewing(self) -> "asyncio.Task[AccessToken] | None":
        """The renewal that runs; the process waits for it before it stops."""
        return self._renewal.task

    async def get(self, needed: float) -> AccessToken:
        """Return a token that is valid now.

        `needed` is the time limit of the request in seconds: if the token expires earlier, a renewal begins meanwhile,
        so that the next request need not wait. Raises the errors of TokenEndpoint.refresh.
        """
        now = asyncio.get_running_loop().time()
        token = self._token
        if token is None or token.expires_at <= now + MARGIN:
            return await asyncio.shield(self._begin())
        half = token.issued_at + (token.expires_at - token.issued_at) / 2
        due = now >= token.renew_at or (now >= half and token.expires_at <= now + needed)
        if due and now >= self._failed_at + QUIET:
            self._begin()
        return token

    def forget(self, refused: AccessToken) -> None:
        """Drop a refused token."""
        if self._token is refused:
            self._token = None

    def expire(self) -> None:
        """Drop the present token, so that the next request shows whether the grant is still valid."""
        self._token = None

    async def replace(self, refused: AccessToken) -> AccessToken:
        """Drop a refused token and return another one; raises like `get`."""
        self.forget(refused)
        return await self.get(0.0)

    def _begin(self) -> "asyncio.Task[AccessToken]":
        return self._renewal.begin(self._renew, self._renewal_failed)

    async def _renew(self) -> AccessToken:
        issued = await self.endpoint.refresh(self._credential)
        now = asyncio.get_running_loop().time()
        if issued.refresh_token and issued.refresh_token != self._credential.refresh_token:
            self._credential = self._credential.rotated(issued.refresh_token)
            await self._keep(self._credential)
        ahead = min(AHEAD + self._random.uniform(0.0, JITTER), issued.lifetime / 2)
        end = now + issued.lifetime
        self._token = AccessToken(issued.access_token, now, end, renew_at=end - ahead, users=issued.users)
        return self._token

    def _renewal_failed(self, error: BaseException) -> None:
        if isinstance(error, EasError):
            self._failed_at = asyncio.get_running_loop().time()
            log.info("access token not renewed", extra={"reason": str(error)})
        else:
            log.error("renewal of an access token broke", exc_info=error)
