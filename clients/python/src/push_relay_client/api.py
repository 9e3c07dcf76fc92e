"""The requests of the API, one method each. Nothing is repeated here: `App` does that, since it knows what may be."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import aiohttp

from push_relay_client.problem import Problem, Refused, Unreachable
from push_relay_client.registration import Identity, Registration, TestResult
from push_relay_client.wish import Credential, Device, Wish

COLLECTION = "/v1/registrations"


class RelayApi:
    """One relay, over a session of aiohttp whose base URL is the relay's.

    Verification of the certificate is the session's: for a company's own CA give it an `ssl.SSLContext` made with
    that CA. Each method raises Refused with the relay's problem, or Unreachable.
    """

    def __init__(self, session: aiohttp.ClientSession, seconds: float = 30.0) -> None:
        """Set up; an answer may take so many `seconds` (the relay itself asks the mail server for about six)."""
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=seconds)

    async def capabilities(self, mailbox: str | None = None) -> Mapping[str, Any]:
        """Return what a registration may be: platforms, kinds of credentials, what enrolment needs; before a log-in.

        The answer is the same whether the mailbox exists or not.
        """
        query = "" if mailbox is None else f"?{urlencode({'mailbox': mailbox})}"
        return await self._ask("GET", f"/v1/capabilities{query}")

    async def put(self, identity: Identity, wish: Wish) -> Registration:
        """Register under an id and a secret that the app made, or make the registration what the wish says.

        The same again makes no second registration and tries no accepted credential again: so repeat it until an
        answer comes.
        """
        return await self._registration("PUT", _path(identity), identity, wish.body(), wish.enrolment_key)

    async def get(self, identity: Identity) -> Registration:
        """Return the registration as it is now."""
        return await self._registration("GET", _path(identity), identity)

    async def patch(
        self,
        identity: Identity,
        *,
        device: Device | None = None,
        credential: Credential | None = None,
        wishes: Mapping[str, Any] | None = None,
    ) -> Registration:
        """Change the address of the device, the credential, or of the `wishes` classes, subfolders, mode, locale."""
        body: dict[str, Any] = dict(wishes or {})
        if device is not None:
            body["device"] = device.address()
        if credential is not None:
            body["credential"] = credential.fields()
        return await self._registration("PATCH", _path(identity), identity, body)

    async def delete(self, identity: Identity) -> None:
        """Remove the registration."""
        await self._ask("DELETE", _path(identity), identity)

    async def test_push(self, identity: Identity) -> TestResult:
        """Ask for a test push; return it as it is queued."""
        return TestResult.read(await self._ask("POST", f"{_path(identity)}/test-push", identity))

    async def test_result(self, identity: Identity, test: TestResult) -> TestResult:
        """Return what became of a test push."""
        return TestResult.read(await self._ask("GET", f"{_path(identity)}/test-pushes/{test.id}", identity))

    async def prove(self, identity: Identity, nonce: str) -> Registration:
        """Give back the nonce of a challenge push: this phone holds the device token."""
        return await self._registration("POST", f"{_path(identity)}/proof", identity, {"nonce": nonce})

    async def shown(self, identity: Identity, receipts: Mapping[str, float]) -> None:
        """Say which pushes the app has shown: at most 50 ids of pushes, each with the seconds since then.

        Best effort: send what waits with the next one, and drop it on any refusal but 429 and 503.
        """
        sent = [{"id": id_, "seconds_ago": seconds} for id_, seconds in receipts.items()]
        await self._ask("POST", f"{_path(identity)}/receipts", identity, {"receipts": sent})

    async def challenge(self, identity: Identity) -> None:
        """Ask for another challenge push."""
        await self._ask("POST", f"{_path(identity)}/challenge", identity)

    async def vapid_public_key(self) -> str:
        """Return the key with which an app subscribes at its push service; 404 where the relay has no WebPush."""
        return str((await self._ask("GET", "/v1/webpush"))["vapid_public_key"])

    async def _registration(
        self,
        method: str,
        path: str,
        identity: Identity | None = None,
        body: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> Registration:
        try:
            return Registration.read(await self._ask(method, path, identity, body, key))
        except ValueError as error:
            raise Unreachable(f"{method} {path}: {error}") from error

    async def _ask(
        self,
        method: str,
        path: str,
        identity: Identity | None = None,
        body: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> Mapping[str, Any]:
        headers = {} if identity is None else {"Authorization": f"Bearer {identity.secret}"}
        if key is not None:
            headers["Enrolment-Key"] = key
        try:
            async with self._session.request(
                method, path, json=body, headers=headers, timeout=self._timeout, allow_redirects=False
            ) as response:
                read = _read(await response.read())
                if not response.ok or response.status >= 300:  # noqa: PLR2004 - a redirect is not from the relay
                    raise Refused(Problem.read(response.status, read, response.headers.get("Retry-After")))
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unreachable(f"{method} {path}: {type(error).__name__}") from error
        if response.status != 204 and not isinstance(read, Mapping):  # noqa: PLR2004 - No Content
            raise Unreachable(f"{method} {path}: the answer is not from a relay")
        return read if isinstance(read, Mapping) else {}


def _path(identity: Identity) -> str:
    return f"{COLLECTION}/{identity.id}"


def _read(body: bytes) -> object:
    """Return the JSON of a body; None: it is none, e.g. the page of a proxy."""
    try:
        return json.loads(body)
    except ValueError:
        return None
