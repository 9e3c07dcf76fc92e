"""Own a simulated OpenID provider: refresh tokens in, access tokens out, with the strictness of the strict ones.

Refresh tokens are rotated; one that comes a second time withdraws the whole grant [RFC 9700 4.14.2].
"""

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from secrets import token_urlsafe
from typing import Final

import jwt
from aiohttp import web

from eas_watcher.ports import Now

TOKEN_PATH: Final = "/oauth2/token"
CLIENT_ID: Final = "push-relay"
CLIENT_SECRET: Final = "client-secret-of-the-sandbox"
AUDIENCE: Final = "https://mail.example.com/"


@dataclass(slots=True)
class SimulatedGrant:
    """Hold what one user granted."""

    user: str
    client_id: str
    present: str
    """The refresh token that is good now."""
    spent: set[str] = field(default_factory=set)
    withdrawn: bool = False


class OpenIdSimulator:
    """Hold grants and the access tokens given for them; every method is for the event loop that serves it."""

    def __init__(self, now: Now, lifetime: int) -> None:
        """Take the clock and how many seconds access tokens live."""
        self.token_endpoint = ""
        """Where clients find it; set once it listens."""
        self.lifetime = lifetime
        self.audience = AUDIENCE
        self.rotates = True
        self.delay = 0.0
        """Seconds before an answer."""
        self.fails_with: int | None = None
        """An HTTP status that it answers to everything."""
        self.asked: Counter[str] = Counter()
        """Refreshes by user, refused ones too."""
        self.at_once = 0
        """The most requests that were ever under way together."""
        self._under_way = 0
        self._now = now
        self._grants: list[SimulatedGrant] = []
        self._tokens: dict[str, tuple[str, float]] = {}
        self._key = token_urlsafe(32)

    def grant(self, user: str, client_id: str = CLIENT_ID) -> str:
        """Let a user grant access; return the first refresh token."""
        token = token_urlsafe(24)
        self._grants.append(SimulatedGrant(user, client_id, token))
        return token

    def withdraw(self, user: str) -> None:
        """End all grants of a user, and their access tokens."""
        for grant in self._grants:
            grant.withdrawn = grant.withdrawn or grant.user == user
        self.expire(user)

    def expire(self, user: str) -> None:
        """Make the mail server refuse the access tokens given so far."""
        self._tokens = {token: (owner, end) for token, (owner, end) in self._tokens.items() if owner != user}

    def withdrawn(self, user: str) -> bool:
        """Tell whether a user has no grant any more."""
        return all(grant.withdrawn for grant in self._grants if grant.user == user)

    def user_of(self, token: str) -> str | None:
        """Tell whose access token this is; None for one that is not, or no longer, good."""
        user, end = self._tokens.get(token, ("", 0.0))
        return user if user and end > self._now().timestamp() else None

    async def answer(self, request: web.Request) -> web.Response:
        """Answer a request to the token endpoint."""
        self._under_way += 1
        self.at_once = max(self.at_once, self._under_way)
        try:
            await asyncio.sleep(self.delay)
            if self.fails_with is not None:
                return web.Response(status=self.fails_with)
            form = await request.post()
            return self._refresh({name: str(value) for name, value in form.items()})
        finally:
            self._under_way -= 1

    def _refresh(self, form: dict[str, str]) -> web.Response:
        if form.get("grant_type") != "refresh_token":
            return _refuse("unsupported_grant_type")
        if form.get("client_id") == CLIENT_ID and form.get("client_secret") != CLIENT_SECRET:
            return _refuse("invalid_client", 401)
        sent = form.get("refresh_token", "")
        grant = next((grant for grant in self._grants if sent in {grant.present, *grant.spent}), None)
        if grant is None:
            return _refuse("invalid_grant")
        self.asked[grant.user] += 1
        if sent in grant.spent:
            grant.withdrawn = True
        if grant.withdrawn or grant.client_id != form.get("client_id"):
            return _refuse("invalid_grant")
        answer: dict[str, object] = {"token_type": "Bearer", "expires_in": self.lifetime}
        if self.rotates:
            grant.spent.add(grant.present)
            grant.present = token_urlsafe(24)
            answer["refresh_token"] = grant.present
        now = int(self._now().timestamp())
        claims = {"aud": self.audience, "sub": grant.user, "exp": now + self.lifetime, "jti": token_urlsafe(8)}
        token = jwt.encode(claims, self._key, algorithm="HS256")
        if self.audience == AUDIENCE:
            self._tokens[token] = grant.user, now + self.lifetime
        return web.json_response({"access_token": token, **answer})


@asynccontextmanager
async def open_openid_simulator(
    *, tls: ssl.SSLContext, now: Now, lifetime: int = 3600, host: str = "127.0.0.1"
) -> AsyncIterator[OpenIdSimulator]:
    """Serve a simulated OpenID provider until the context ends."""
    simulator = OpenIdSimulator(now, lifetime)
    app = web.Application()
    app.router.add_post(TOKEN_PATH, simulator.answer)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, 0, ssl_context=tls)
        await site.start()
        simulator.token_endpoint = f"https://{host}:{runner.addresses[0][1]}{TOKEN_PATH}"
        yield simulator
    finally:
        await runner.cleanup()


def _refuse(code: str, status: int = 400) -> web.Response:
    return web.json_response({"error": code}, status=status)
