"""The authentication of clients at the simulated server: password, access token, client certificate or ticket."""

from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from relay.sandbox.eas.messages import HTTP_1_1_REQUIRED, Connection, HttpVersion, NoAnswer, Request
from relay.sandbox.eas.requests import read_authorization

BASIC: Final = 'Basic realm="simulated mailboxes"'


@dataclass(slots=True)
class Identities:
    """The kinds of authentication that the server accepts; the default is passwords only."""

    passwords: bool = True
    user_of: Callable[[str], str | None] | None = None
    """Returns the user of an access token; None: the server accepts no tokens."""
    authority: str = ""
    """The `authorization_uri` of challenges."""
    certificates: bool = False
    """Whether the UID of a client certificate is its user."""
    tokens: list[str] = field(default_factory=list)
    """The access tokens received, refused ones included."""
    ticket_of: Callable[[bytes], str | None] | None = None
    """Returns the user of the ticket in a SPNEGO token; None: the server accepts no tickets."""
    persists: bool = False
    """Whether all requests on a connection belong to the user of its first ticket [IIS: authPersistNonNTLM]."""
    tickets: list[bytes] = field(default_factory=list)
    """The SPNEGO tokens received, refused ones included."""
    _persistent: dict[Connection, str] = field(default_factory=dict)
    """Connection -> the user of its ticket."""

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

    def read(self, request: Request, admit: Callable[[str, str], bool]) -> tuple[str, bool] | NoAnswer:
        """Return the user of a request, empty if it names none, and whether it is authenticated.

        A server that takes tickets wants HTTP/1.1 for all but passwords and tokens, because a ticket authenticates a
        connection [RFC 9113 9.2.1].
        """
        if self.persists and (persistent := self._persistent.get(request.connection)) is not None:
            return persistent, True
        authorization = request.headers.get("authorization")
        scheme, _, token = (authorization or "").partition(" ")
        if self.user_of is not None and scheme.lower() == "bearer":
            self.tokens.append(token)
            user = self.user_of(token)
            return user or "", user is not None
        if self.ticket_of is not None and request.version is HttpVersion.HTTP_2 and scheme.lower() in {"", "negotiate"}:
            return NoAnswer(HTTP_1_1_REQUIRED)
        if self.ticket_of is not None and scheme.lower() == "negotiate":
            self.tickets.append(b64decode(token))
            user = self.ticket_of(self.tickets[-1])
            if user is not None:
                self._persistent = {
                    connection: owner
                    for connection, owner in self._persistent.items()
                    if connection.transport is not None
                }
                self._persistent[request.connection] = user
            return user or "", user is not None
        if self.certificates and authorization is None:
            user = _certified(request)
            return user, bool(user)
        login = read_authorization(authorization) if self.passwords else None
        return ("", False) if login is None else (login[0], admit(*login))


def _certified(request: Request) -> str:
    """Return the UID of the client certificate of the connection; empty without one."""
    subject = ((request.tls and request.tls.getpeercert()) or {}).get("subject", ())
    names = dict(pair for entry in subject if isinstance(entry, tuple) for pair in entry if isinstance(pair, tuple))
    return str(names.get("userId", ""))
