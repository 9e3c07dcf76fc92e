"""Own the HTTP to Google: one session for pushes and access tokens, so that both go the same way and trust the same."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import aiohttp
from yarl import URL

from relay.network.dialling import Dialler
from relay.network.http import DialledConnector
from relay.network.way import Way

KEPT: Final = 60.0
"""Seconds a connection without traffic is kept: below the idle timeouts of firewalls and of Google's own servers."""
LARGEST: Final = 65536  # bytes of an answer that are read; Google's have a few hundred


class Reply(NamedTuple):
    """Hold an answer; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class FcmHttp:
    """Send requests; the session is opened at the first one, inside the running loop."""

    def __init__(self, ca_file: Path | None, in_flight: int, way: Way) -> None:
        """Take whom to trust, None being the system's CAs, how many connections to a host there may be, and the way.

        Raises OSError when a file holds no CA.
        """
        self._tls = ssl.create_default_context(cafile=ca_file)
        self._dialler = Dialler(way)
        self._in_flight = in_flight
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: URL, headers: Mapping[str, str], body: bytes) -> Reply:
        """Send one request; raises aiohttp.ClientError, OSError or TimeoutError. The caller bounds the time.

        No redirect is followed: whatever a request bears is meant for its own URL alone.
        """
        async with self._open().post(url, data=body, headers=headers, allow_redirects=False) as response:
            answer = bytearray()
            async for part in response.content.iter_any():
                answer += part
                if len(answer) > LARGEST:
                    break  # and the connection, with what is left to come, is closed
            return Reply(response.status, _lower(response.headers), bytes(answer))

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # The limit is per host: a renewal of the token waits for no push.
                connector=DialledConnector(self._dialler, self._tls, limit_per_host=self._in_flight, keepalive=KEPT),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=False,
            )
        return self._session


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
