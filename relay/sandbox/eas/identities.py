"""Own how clients show who they are to the simulated server: password, access token, client certificate or ticket."""

import ssl
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

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
    ticket_of: Callable[[bytes], str | None] | None = None
    """Tells whose ticket a SPNEGO token holds; None: tickets are not taken."""
    persists: bool = False
    """Whether a connection that a ticket opened stays its user's, whatever comes after [IIS: authPersistNonNTLM]."""
    tickets: list[bytes] = field(default_factory=list)
    """SPNEGO tokens that came, refused ones too."""
    _openers: dict[RequestHandler, str] = field(default_factory=dict)

    @property
    def challenge(self) -> list[str]:
        """The WWW-Authenticate headers of a refusal."""
        basic = [BASIC] if self.passwords else []
        if self.ticket_of is not None:
            basic.insert(0, "Negotiate")
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
        if self.persists and (opener := self._openers.get(request.protocol)) is not None:
            return opener, True
        authorization = request.headers.get("Authorization")
        scheme, _, token = (authorization or "").partition(" ")
        if self.user_of is not None and scheme.lower() == "bearer":
            self.tokens.append(token)
            user = self.user_of(token)
            return user or "", user is not None
        if self.ticket_of is not None and scheme.lower() == "negotiate":
            self.tickets.append(b64decode(token))
            user = self.ticket_of(self.tickets[-1])
            if user is not None:
                self._openers = {
                    open_: opener for open_, opener in self._openers.items() if open_.transport is not None
                }
                self._openers[request.protocol] = user
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
