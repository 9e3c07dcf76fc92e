"""Own the adapter that hands pushes to FCM v1: pyfcm makes body and address, our own session sends, one task renews.

pyfcm 2.1.1 sends with blocking calls, sleeps and repeats without bound, and loses FCM's error codes; so only its
payload and its endpoint are used.
"""

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from functools import partial
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import google.auth.transport.requests
import requests
from google.auth.exceptions import GoogleAuthError, RefreshError
from google.oauth2 import service_account
from pyfcm import FCMNotification

from relay.model import DuePush
from relay.ports import Clock
from relay.push.egress_log import Egress, Unwritable
from relay.push.failures import read_failure
from relay.push.fcm_answers import CODE, read_fcm, token_refused
from relay.push.fcm_token import AccessToken, AccessTokens, TokenNotGiven
from relay.push.outcome import Outcome, Refused, RetryLater
from relay.push.payload import FcmMessage, Notice

SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
CONNECT_LIMIT: Final = 10.0  # seconds
TOKEN_LIMIT: Final = (10.0, 10.0)  # seconds to connect and between two reads, for the blocking token request
LARGEST: Final = 65536  # bytes of an answer that are read; FCM's have a few hundred


@dataclass(frozen=True, slots=True)
class FcmConfig:
    """Hold how to reach FCM and as whom."""

    service_account_file: Path
    """The JSON file that Google gives for a service account; it names the project and where tokens are made."""
    endpoint: str = "https://fcm.googleapis.com"
    ca_file: Path | None = None
    """CA certificates to trust instead of the system's, for pushes and for tokens."""
    in_flight: int = 100
    """Pushes at once, each on a connection of its own: FCM's HTTP/1.1."""
    time_limit: float = 20.0
    """Seconds for one push, token and connecting included."""


class FcmSender:
    """Send pushes to FCM; use as an async context manager."""

    def __init__(self, config: FcmConfig, clock: Clock, random: Random, egress: Egress) -> None:
        """Read the service account; raises ValueError or OSError when the file is not one."""
        self._config = config
        self._clock = clock
        self._egress = egress
        # Both libraries are untyped; what comes out of them is typed again where it is used.
        credentials_class: Any = service_account.Credentials
        account = json.loads(config.service_account_file.read_bytes())
        if not isinstance(account, dict):
            raise ValueError("fcm.service_account_file holds no JSON object")  # noqa: TRY004  # the text is wrong, no type
        self._credentials: Any = credentials_class.from_service_account_info(account, scopes=[SCOPE])
        if not self._credentials.project_id:
            raise ValueError("fcm.service_account_file names no project_id")
        self._messages: Any = FCMNotification(credentials=self._credentials)
        self._messages.FCM_END_POINT_BASE = f"{config.endpoint.rstrip('/')}/v1/projects"
        self._url = str(self._messages.fcm_end_point)
        self._tls = ssl.create_default_context(cafile=config.ca_file)
        self._tokens = AccessTokens(self._mint, clock, random)
        self._token_session = requests.Session()
        self._token_session.trust_env = False
        # The signed assertion goes to the token endpoint alone; an answer that redirects is a failure.
        self._token_session.max_redirects = 0
        self._token_session.verify = _trusted(config.ca_file)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def send(self, push: DuePush) -> Outcome:
        """Hand one push to FCM; answers within the time limit whatever happens."""
        body = self._body(push)
        try:
            async with asyncio.timeout(self._config.time_limit):
                token = await self._tokens.get()
                self._egress.fcm(push.app, push.device_token, body)
                status, headers, answer = await self._post(body, token)
                if token_refused(status, answer):
                    token = await self._tokens.renew(token)
                    self._egress.fcm(push.app, push.device_token, body)
                    status, headers, answer = await self._post(body, token)
        except TokenNotGiven as error:
            return error.outcome
        except Unwritable as error:
            return RetryLater(f"egress-log: {error}")
        except (TimeoutError, OSError, aiohttp.ClientError) as error:
            return read_failure(error, "fcm.ca_file")
        return read_fcm(status, answer, headers, self._clock())

    async def close(self) -> None:
        """Close all connections; pushes under way answer RetryLater."""
        await self._tokens.close()
        if self._session is not None:
            await self._session.close()
            self._session = None
        self._token_session.close()

    def _body(self, push: DuePush) -> bytes:
        message = FcmMessage(Notice.of(push))
        body: bytes = self._messages.parse_payload(
            fcm_token=push.device_token, data_payload=message.data, android_config=message.android
        )
        return body

    async def _post(self, body: bytes, token: AccessToken) -> tuple[int, Mapping[str, str], bytes]:
        headers = {
            "Authorization": f"Bearer {token.value}",
            "Content-Type": "application/json",
            "User-Agent": "push-relay",
        }
        async with self._open().post(self._url, data=body, headers=headers, allow_redirects=False) as response:
            answer = bytearray()
            async for part in response.content.iter_chunked(LARGEST):
                answer += part
                if len(answer) > LARGEST:
                    break
            return response.status, {name.lower(): value for name, value in response.headers.items()}, bytes(answer)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls, limit=self._config.in_flight),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_LIMIT),
                trust_env=False,
            )
        return self._session

    async def _mint(self) -> AccessToken:
        """Ask Google for a token, in a thread: google-auth knows no other way for service accounts."""
        try:
            await asyncio.to_thread(self._refresh)
        except RefreshError as error:
            raise TokenNotGiven(_read_refresh(error)) from error
        except GoogleAuthError as error:
            raise TokenNotGiven(read_failure(error, "fcm.ca_file")) from error
        return AccessToken(str(self._credentials.token), self._credentials.expiry.replace(tzinfo=UTC))

    def _refresh(self) -> None:
        request: Any = google.auth.transport.requests.Request(session=self._token_session)
        self._credentials.refresh(partial(request, timeout=TOKEN_LIMIT))


def _read_refresh(error: RefreshError) -> RetryLater | Refused:
    """Read what the token endpoint refused [RFC 6749 5.2]; only its code is kept."""
    answer = error.args[1] if len(error.args) > 1 else None
    code = answer.get("error") if isinstance(answer, dict) else None
    reason = f"token-refused: {code}" if isinstance(code, str) and CODE.fullmatch(code) else "token-refused"
    if getattr(error, "retryable", False):
        return RetryLater(reason)
    remedy = "check fcm.service_account_file: its key may be deleted or disabled; check the clock of this host too"
    return Refused(reason, remedy, channel=True)


def _trusted(ca_file: Path | None) -> str | bool:
    """Name whom token requests trust: the same as pushes, for `requests` has a list of its own otherwise."""
    paths = ssl.get_default_verify_paths()
    return str(ca_file) if ca_file is not None else paths.cafile or paths.capath or True
