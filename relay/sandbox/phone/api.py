"""The requests that the app of an emulated phone sends to the relay."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

TIMEOUT: Final = aiohttp.ClientTimeout(total=60)
NO_CONTENT: Final = 204


class Refused(Exception):
    """The relay refused a request; the text has status and code."""

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        super().__init__(f"{status} {document.get('code', '')}: {document.get('detail', '')}")
        self.status = status
        self.code = str(document.get("code", ""))


class Unreachable(Exception):
    """The relay gave no answer that can be read."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Id and secret of a registration, which the app makes itself."""

    id: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)


class PhoneApi:
    """The API of one relay, over a session whose base URL is the relay's; methods raise Refused, Unreachable."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        """Set up."""
        self._session = session

    async def put(self, identity: Identity, body: Mapping[str, Any]) -> dict[str, Any]:
        """Register, or make the registration what the body says."""
        return await self._ask("PUT", "", identity, body)

    async def get(self, identity: Identity) -> dict[str, Any]:
        """Return the registration."""
        return await self._ask("GET", "", identity)

    async def patch(self, identity: Identity, body: Mapping[str, Any]) -> dict[str, Any]:
        """Change the registration."""
        return await self._ask("PATCH", "", identity, body)

    async def delete(self, identity: Identity) -> None:
        """Remove the registration."""
        await self._ask("DELETE", "", identity)

    async def prove(self, identity: Identity, nonce: str) -> dict[str, Any]:
        """Return the nonce of a challenge."""
        return await self._ask("POST", "/proof", identity, {"nonce": nonce})

    async def test_push(self, identity: Identity) -> dict[str, Any]:
        """Ask for a test push."""
        return await self._ask("POST", "/test-push", identity)

    async def test_result(self, identity: Identity, test: str) -> dict[str, Any]:
        """Return what became of a test push."""
        return await self._ask("GET", f"/test-pushes/{test}", identity)

    async def vapid_key(self) -> str:
        """Return the key to subscribe with at a push service."""
        return str((await self._send("GET", "/v1/webpush"))["vapid_public_key"])

    async def _ask(
        self, method: str, path: str, identity: Identity, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {identity.secret}"}
        return await self._send(method, f"/v1/registrations/{identity.id}{path}", headers, body)

    async def _send(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        try:
            async with self._session.request(method, path, json=body, headers=headers, timeout=TIMEOUT) as response:
                document = {} if response.status == NO_CONTENT else await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise Unreachable(f"the relay gives no answer, is it running? ({type(error).__name__})") from error
        fields = document if isinstance(document, dict) else {}
        if not response.ok:
            raise Refused(response.status, fields)
        return fields
