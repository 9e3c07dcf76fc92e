"""Own how clients show who they are to the simulated server: password, access token or client certificate."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from relay.sandbox.eas.requests import read_authorization

BASIC: Final = 'Basic realm="simulated mailboxes"'


@dataclass(slots=True)
class Identities:
    """Hold what the server takes; at first passwords only."""

    passwords: bool = True
    user_of: Callable[[str], str | None] | None = None
    """Tells whose access token it is; None: tokens are not taken."""
    authority: str = ""
    """The URL that challenges name as `authorization_uri`."""
    certificates: bool = False
    """Whether the UID of a client certificate is its user."""
    tokens: list[str] = field(default_factory=list)
    """Access tokens that came, refused ones too."""

    @property
    def challenge(self) -> list[str]:
        """The WWW-Authenticate headers of a refusal."""
        basic = [BASIC] if self.passwords else []
        if self.user_of is None:
            return basic
        bearer = (
            'Bearer client_id="00000002-0000-0ff1-ce00-000000000000", trusted_issuers="00000001@example.com", '
            f'token_types="app_asserted_user_v1 service_asserted_app_v1", authorization_uri="{self.authority}", '
            'error="invalid_token"'
        )
        return [bearer, *basic]

    def read(self, request: web.Request, admit: Callable[[str, str], bool]) -> tuple[str, bool]:
        """Tell which user a request claims to be of, empty when of nobody, and whether it proves it."""
        authorization = request.headers.get("Authorization")
        scheme, _, token = (authorization or "").partition(" ")
        if self.user_of is not None and scheme.lower() == "bearer":
            self.tokens.append(token)
            user = self.user_of(token)
            return user or "", user is not None
        if self.certificates and authorization is None:
            user = _certified(request)
            return user, bool(user)
        login = read_authorization(authorization) if self.passwords else None
        return ("", False) if login is None else (login[0], admit(*login))


def _certified(request: web.Request) -> str:
    """Read the UID of the client certificate that the connection was made with."""
    tls = None if request.transport is None else request.transport.get_extra_info("ssl_object")
    if not isinstance(tls, ssl.SSLObject | ssl.SSLSocket):
        return ""
    subject = (tls.getpeercert() or {}).get("subject", ())
    names = dict(pair for entry in subject if isinstance(entry, tuple) for pair in entry if isinstance(pair, tuple))
    return str(names.get("userId", ""))
