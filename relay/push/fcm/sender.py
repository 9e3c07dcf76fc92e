"""The adapter that sends pushes to FCM v1: it renders, logs, sends, and reads the answer."""

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Final, NamedTuple, Self

import aiohttp

from eas_watcher.peer_clocks import PeerClocks
from eas_watcher.transport.deadlines import Deadlines
from relay.domain.clock import Clock
from relay.domain.fcm_device import FcmDevice
from relay.domain.model import DuePush
from relay.domain.outcome import Delivered, Outcome
from relay.network.posting import Poster, Reply
from relay.push.egress.log import Egress, Unwritable, held
from relay.push.failures import read_failure
from relay.push.fcm.account import ServiceAccount
from relay.push.fcm.answers import read_fcm, token_refused
from relay.push.fcm.budget import HighPriorityBudget
from relay.push.fcm.config import FcmConfig
from relay.push.fcm.grants import read_grant
from relay.push.fcm.tokens import AccessToken, AccessTokens, TokenNotGiven
from relay.push.key_files import KeyFile
from relay.push.payload import FcmMessage, Notice

TOKEN_LIMIT: Final = 15.0  # seconds for one request for an access token, connecting included
FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}


class _Identity(NamedTuple):
    """The service account that pushes are sent as, and its access tokens."""

    account: ServiceAccount
    tokens: AccessTokens


class FcmSender:
    """A sender for FCM; use it as an async context manager."""

    def __init__(
        self, config: FcmConfig, clock: Clock, random: Random, egress: Egress, clocks: PeerClocks | None = None
    ) -> None:
        """Read the service account; raises ValueError or OSError when the file is not one.

        `clocks` gets the dates of Google's answers.
        """
        self._config = config
        self._clock = clock
        self._egress = egress
        self._random = random
        self._http = Poster(config.ca_file, config.in_flight, config.route, clocks=clocks)
        self._deadlines = Deadlines()
        self._budget = HighPriorityBudget(config.high_priority_per_hour)
        self.key_file = KeyFile("fcm.service_account_file", config.service_account_file, self._read)
        """The service account's file; while somebody watches it, a changed file is adopted without a restart."""
        self.key_file.listen(self._adopt)
        self._identities = [self._identity(self.key_file.value)]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def send(self, push: DuePush) -> Outcome:
        """Send one push to FCM; returns within the time limit and a second in every case."""
        now = asyncio.get_running_loop().time()
        phone = FcmDevice.read(push.device_token).phone
        message = FcmMessage(Notice.of(push), spare=not self._budget.allows(phone, now))
        outcome = await self._send(push, message)
        if isinstance(outcome, Delivered):
            if message.wakes:
                self._budget.spend(phone, now)
            return replace(outcome, lowered=message.lowered)
        return outcome

    async def validate(self, push: DuePush) -> Outcome:
        """Ask FCM whether it would send a push, and send none; returns within the time limit and a second."""
        return await self._send(push, FcmMessage(Notice.of(push)), sends=False)

    async def close(self) -> None:
        """Close all connections; pushes in flight end as RetryLater."""
        for identity in self._identities:
            await identity.tokens.close()
        await self._http.close()

    def _read(self, path: Path) -> ServiceAccount:
        """Read a service account's JSON; raises ValueError or OSError when the file is not one."""
        return ServiceAccount(path.read_bytes(), self._config.endpoint)

    def _adopt(self, account: ServiceAccount) -> None:
        """Send as another service account from now on; pushes in flight end as the old one."""
        used = [identity for identity in self._identities if identity.tokens.renewing]
        self._identities = [*used, self._identity(account)]

    def _identity(self, account: ServiceAccount) -> _Identity:
        return _Identity(account, AccessTokens(partial(self._mint, account), self._clock, self._random))

    async def _send(self, push: DuePush, message: FcmMessage, *, sends: bool = True) -> Outcome:
        account, tokens = self._identities[-1]
        body = account.body(push.device_token, message, sends=sends)
        try:
            with self._deadlines.within(self._config.time_limit):
                token = await tokens.get()
                reply = await self._post(push, account.url, body, token)
                if token_refused(reply.status, reply.body):
                    reply = await self._post(push, account.url, body, await tokens.renew(token))
        except TokenNotGiven as error:
            return error.outcome
        except Unwritable as error:
            return held(error)
        except (TimeoutError, OSError, aiohttp.ClientError) as error:
            return read_failure(error, "fcm.ca_file")
        return read_fcm(reply.status, reply.body, reply.headers, self._clock())

    async def _post(self, push: DuePush, url: str, body: bytes, token: AccessToken) -> Reply:
        self._egress.fcm(push.app, push.device_token, body)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token.value}"}
        return await self._http.post(url, headers, body)

    async def _mint(self, account: ServiceAccount) -> AccessToken:
        """Ask Google for a token; raises TokenNotGiven."""
        # Signing is the one step here that takes long, and no other push needs to wait for it.
        form = await asyncio.to_thread(account.assertion, self._clock())
        try:
            async with asyncio.timeout(TOKEN_LIMIT):
                reply = await self._http.post(account.token_uri, FORM, form)
        except (TimeoutError, OSError, aiohttp.ClientError) as error:
            raise TokenNotGiven(read_failure(error, "fcm.ca_file")) from error
        return read_grant(reply.status, reply.body, reply.headers, self._clock())
