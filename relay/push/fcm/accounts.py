"""One Firebase project as the relay reaches it: its service account's file, its access tokens, and its requests."""

import asyncio
from functools import partial
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import aiohttp

from relay.domain.clock import Clock
from relay.network.posting import Poster
from relay.push.failures import read_failure
from relay.push.fcm.account import ServiceAccount
from relay.push.fcm.config import FcmAccount
from relay.push.fcm.grants import read_grant
from relay.push.fcm.tokens import AccessToken, AccessTokens, TokenNotGiven
from relay.push.key_files import KeyFile

TOKEN_LIMIT: Final = 15.0  # seconds for one request for an access token, connecting included
FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}


class Identity(NamedTuple):
    """The service account that pushes are sent as, and its access tokens."""

    account: ServiceAccount
    tokens: AccessTokens


class Account:
    """One project; each has a service account, and so access tokens, of its own."""

    def __init__(self, account: FcmAccount, endpoint: str, http: Poster, clock: Clock, random: Random) -> None:
        """Read the service account; raises ValueError or OSError when its file is not one. `endpoint` is FCM's URL."""
        self.table = account.table
        """Its table in relay.toml."""
        self._endpoint = endpoint
        self._http = http
        self._clock = clock
        self._random = random
        self.file = KeyFile(account.file_setting, account.service_account_file, self._read)
        """The service account's file; while somebody watches it, a changed file is adopted without a restart."""
        self.file.listen(self._adopt)
        self._identities = [self._identity(self.file.value)]

    @property
    def identity(self) -> Identity:
        """The service account that pushes are sent as now."""
        return self._identities[-1]

    async def close(self) -> None:
        """Cancel requests for access tokens."""
        for identity in self._identities:
            await identity.tokens.close()

    def _read(self, path: Path) -> ServiceAccount:
        """Read a service account's JSON; raises ValueError or OSError when the file is not one."""
        return ServiceAccount(path.read_bytes(), self._endpoint)

    def _adopt(self, account: ServiceAccount) -> None:
        """Send as another service account from now on; pushes in flight end as the old one."""
        used = [identity for identity in self._identities if identity.tokens.renewing]
        self._identities = [*used, self._identity(account)]

    def _identity(self, account: ServiceAccount) -> Identity:
        return Identity(account, AccessTokens(partial(self._mint, account), self._clock, self._random))

    async def _mint(self, account: ServiceAccount) -> AccessToken:
        """Ask Google for a token; raises TokenNotGiven."""
        # Signing is the one step here that takes long, and no other push needs to wait for it.
        form = await asyncio.to_thread(account.assertion, self._clock())
        try:
            async with asyncio.timeout(TOKEN_LIMIT):
                reply = await self._http.post(account.token_uri, FORM, form)
        except (TimeoutError, OSError, aiohttp.ClientError) as error:
            raise TokenNotGiven(read_failure(error, "fcm.ca_file")) from error
        return read_grant(reply.status, reply.body, reply.headers, self._clock(), self.file.setting)
