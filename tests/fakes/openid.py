"""A simulated OpenID provider that rotates refresh tokens; a second use of one revokes the grant [RFC 9700 4.14.2]."""

import asyncio
import hashlib
import html
import ssl
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from secrets import token_urlsafe
from typing import Final
from urllib.parse import urlencode

import jwt
from aiohttp import web

from eas_watcher.ports import Now

TOKEN_PATH: Final = "/oauth2/token"
AUTHORIZATION_PATH: Final = "/oauth2/authorize"
CLIENT_ID: Final = "push-relay"
CLIENT_SECRET: Final = "client-secret-of-the-sandbox"
AUDIENCE: Final = "https://mail.example.com/"


@dataclass(slots=True)
class SimulatedGrant:
    """The grant of one user to one client."""

    user: str
    client_id: str
    refresh_token: str
    """The only valid refresh token."""
    used: set[str] = field(default_factory=set)
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class SimulatedCode:
    """What one code stands for."""

    user: str
    client_id: str
    redirect_uri: str
    challenge: str
    """The code challenge of the method S256 [RFC 7636 4.2]."""


class OpenIdSimulator:
    """Grants and their access tokens; call all methods in the event loop that serves the provider."""

    def __init__(self, now: Now, lifetime: int) -> None:
        """`lifetime` is that of access tokens, in seconds."""
        self.origin = ""
        """Scheme, host and port; set when it listens."""
        self.token_endpoint = ""
        """The URL of the token endpoint; set when it listens."""
        self.authorization_endpoint = ""
        """The URL where users sign in; set when it listens."""
        self.takes_fragments = True
        """Whether it knows the response mode fragment; else codes come in the query."""
        self.offline = True
        """Whether a code is exchanged for a refresh token too."""
        self.codes: dict[str, SimulatedCode] = {}
        """The codes that were issued and not shown yet."""
        self.exchanges = 0
        """How often a code was shown, refused ones too."""
        self.lifetime = lifetime
        self.audience = AUDIENCE
        self.delay = 0.0
        """Seconds before an answer."""
        self.fails_with: int | None = None
        """The HTTP status of all answers; None: the usual answers."""
        self.refreshes: Counter[str] = Counter()
        """Requests for access tokens by user, refused ones too."""
        self._now = now
        self._grants: list[SimulatedGrant] = []
        self._tokens: dict[str, tuple[str, float]] = {}
        self._key = token_urlsafe(32)

    def grant(self, user: str, client_id: str = CLIENT_ID) -> str:
        """Add a grant of a user; return its first refresh token."""
        token = token_urlsafe(24)
        self._grants.append(SimulatedGrant(user, client_id, token))
        return token

    def code(self, user: str, verifier: str, redirect_uri: str, client_id: str = CLIENT_ID) -> str:
        """Return a code for a user who signed in."""
        return self._issue_code(SimulatedCode(user, client_id, redirect_uri, _challenge(verifier)))

    def _issue_code(self, issued: SimulatedCode) -> str:
        code = f"canary-code-{token_urlsafe(24)}"
        self.codes[code] = issued
        return code

    def revoke(self, user: str) -> None:
        """Revoke all grants of a user and their access tokens."""
        self.withdraw(user)
        self.expire(user)

    def withdraw(self, user: str) -> None:
        """Revoke all grants of a user; their access tokens stay valid until they expire."""
        for grant in self._grants:
            grant.revoked = grant.revoked or grant.user == user

    def expire(self, user: str) -> None:
        """Make all access tokens of a user invalid."""
        self._tokens = {token: (owner, end) for token, (owner, end) in self._tokens.items() if owner != user}

    def revoked(self, user: str) -> bool:
        """Return whether all grants of a user are revoked."""
        return all(grant.revoked for grant in self._grants if grant.user == user)

    def user_of(self, token: str) -> str | None:
        """Return the user of a valid access token, None for any other text."""
        user, end = self._tokens.get(token, ("", 0.0))
        return user if user and end > self._now().timestamp() else None

    async def answer(self, request: web.Request) -> web.Response:
        """Answer a request to the token endpoint."""
        await asyncio.sleep(self.delay)
        if self.fails_with is not None:
            return web.Response(status=self.fails_with)
        form = await request.post()
        return self._issue({name: str(value) for name, value in form.items()})

    async def authorize(self, request: web.Request) -> web.Response:
        """Answer a browser with a page whose links agree and deny; the user is whom the client hints at."""
        asked = request.query
        if asked["response_type"] != "code" or asked["code_challenge_method"] != "S256":
            return web.Response(status=400)
        user, client_id, uri = asked["login_hint"], asked["client_id"], asked["redirect_uri"]
        code = self._issue_code(SimulatedCode(user, client_id, uri, asked["code_challenge"]))
        mark = "#" if self.takes_fragments and asked.get("response_mode") == "fragment" else "?"
        answers = {"agree": {"code": code}, "deny": {"error": "access_denied"}, "forge": {"code": code}}
        links = []
        for name, answer in answers.items():
            state = "forged" if name == "forge" else asked["state"]
            target = html.escape(f"{uri}{mark}{urlencode({**answer, 'state': state})}")
            links.append(f'<a id="{name}" href="{target}">{name}</a>')
        return web.Response(text=f"<!doctype html><title>Sign in</title>{' '.join(links)}", content_type="text/html")

    def _issue(self, form: dict[str, str]) -> web.Response:
        if form.get("client_id") == CLIENT_ID and form.get("client_secret") != CLIENT_SECRET:
            return _refuse("invalid_client", 401)
        match form.get("grant_type"):
            case "refresh_token":
                return self._refresh(form)
            case "authorization_code":
                return self._exchange(form)
            case _:
                return _refuse("unsupported_grant_type")

    def _exchange(self, form: dict[str, str]) -> web.Response:
        """Exchange a code, which is good once, also where it is refused [RFC 6749 4.1.2; RFC 7636 4.6]."""
        self.exchanges += 1
        issued = self.codes.pop(form.get("code", ""), None)
        shown = (form.get("client_id"), form.get("redirect_uri"), _challenge(form.get("code_verifier", "")))
        if issued is None or shown != (issued.client_id, issued.redirect_uri, issued.challenge):
            return _refuse("invalid_grant")
        grant = SimulatedGrant(issued.user, issued.client_id, token_urlsafe(24))
        self._grants.append(grant)
        return self._answer(grant, with_refresh_token=self.offline)

    def _refresh(self, form: dict[str, str]) -> web.Response:
        sent = form.get("refresh_token", "")
        grant = next((grant for grant in self._grants if sent in {grant.refresh_token, *grant.used}), None)
        if grant is None:
            return _refuse("invalid_grant")
        self.refreshes[grant.user] += 1
        if sent in grant.used:
            grant.revoked = True
        if grant.revoked or grant.client_id != form.get("client_id"):
            return _refuse("invalid_grant")
        grant.used.add(grant.refresh_token)
        grant.refresh_token = token_urlsafe(24)
        return self._answer(grant)

    def _answer(self, grant: SimulatedGrant, *, with_refresh_token: bool = True) -> web.Response:
        now = int(self._now().timestamp())
        claims = {"aud": self.audience, "sub": grant.user, "exp": now + self.lifetime, "jti": token_urlsafe(8)}
        token = jwt.encode(claims, self._key, algorithm="HS256")
        if self.audience == AUDIENCE:
            self._tokens[token] = grant.user, now + self.lifetime
        identity = {"aud": grant.client_id, "preferred_username": grant.user}
        answer = {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": self.lifetime,
            "id_token": jwt.encode(identity, self._key, algorithm="HS256"),
        }
        return web.json_response(answer | ({"refresh_token": grant.refresh_token} if with_refresh_token else {}))


@asynccontextmanager
async def open_openid_simulator(
    *, tls: ssl.SSLContext, now: Now, lifetime: int = 3600, host: str = "127.0.0.1"
) -> AsyncIterator[OpenIdSimulator]:
    """Serve a simulated OpenID provider until the block ends."""
    simulator = OpenIdSimulator(now, lifetime)
    app = web.Application()
    app.router.add_post(TOKEN_PATH, simulator.answer)
    app.router.add_get(AUTHORIZATION_PATH, simulator.authorize)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, 0, ssl_context=tls)
        await site.start()
        simulator.origin = f"https://{host}:{runner.addresses[0][1]}"
        simulator.token_endpoint = f"{simulator.origin}{TOKEN_PATH}"
        simulator.authorization_endpoint = f"{simulator.origin}{AUTHORIZATION_PATH}"
        yield simulator
    finally:
        await runner.cleanup()


def _challenge(verifier: str) -> str:
    return urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _refuse(code: str, status: int = 400) -> web.Response:
    return web.json_response({"error": code}, status=status)
