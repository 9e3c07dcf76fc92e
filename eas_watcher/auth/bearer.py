"""OAuth 2.0 bearer authentication as hybrid modern authentication uses it: the credential and the challenge.

The challenge is read for its diagnosis only. The operator decides where a refresh token may be sent: the relay never
asks an endpoint that a server names.
"""

import hashlib
from dataclasses import dataclass, field, replace
from re import Pattern
from re import compile as pattern
from typing import Final
from urllib.parse import urlsplit

from eas_watcher.auth.credential import UnusableCredential

SENDABLE: Final = pattern(r"[\x21-\x7e]{1,16384}")
"""Tokens and client ids are visible ASCII [RFC 6749 A]; more than 16 KiB do not fit into a header."""
PIECE: Final = pattern(r"""([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))|([^\s,=]+)""")
"""Name and value, quoted or not, or a single word, which is a scheme [RFC 9110 11.6.1]."""
VERIFIER: Final = pattern(r"[A-Za-z0-9._~-]{43,128}")
"""What a client proves with that it asked for a code itself [RFC 7636 4.1]."""
HOST: Final = pattern(r"[A-Za-z0-9.-]{1,253}")
WORD: Final = pattern(r"[a-z_]{1,40}")
DIAGNOSTICS: Final = pattern(r'\s*([0-9]{1,10})\s*;\s*reason="([\x20-\x21\x23-\x7e]{1,300})"')
"""x-ms-diagnostics: 2000003;reason="The audience claim value is invalid...";error_category="..." [MS-XOAUTH 2.2]."""
SCHEMES: Final = {"basic": "Basic", "bearer": "Bearer", "negotiate": "Negotiate", "ntlm": "NTLM", "digest": "Digest"}


@dataclass(frozen=True, slots=True)
class AuthorizationCode:
    """What stands for a grant until its first exchange, which is possible once and for minutes [RFC 6749 4.1.2]."""

    code: str = field(repr=False)
    verifier: str = field(repr=False)
    redirect_uri: str
    """Where the authorization endpoint sent the user with the code."""

    def __post_init__(self) -> None:
        """Raise UnusableCredential for values that no authorization endpoint gives or takes."""
        if not SENDABLE.fullmatch(self.code) or not SENDABLE.fullmatch(self.redirect_uri):
            raise UnusableCredential("a code and its redirect URI are visible ASCII, at most 16384 characters")
        if not VERIFIER.fullmatch(self.verifier):
            raise UnusableCredential("a code verifier is 43 to 128 letters, digits and -._~ [RFC 7636 4.1]")


@dataclass(frozen=True, slots=True)
class OAuthCredential:
    """A user's grant: the refresh token, with which access tokens are obtained [RFC 6749 1.5], or the code for it."""

    user: str
    refresh_token: str = field(repr=False)
    """Empty as long as there is a code."""
    client_id: str = ""
    """The client to which the grant was made; empty: the one in the settings."""
    origin: str = field(default="", repr=False)
    """Identifies the grant through all rotations of its refresh token; empty before the first."""
    code: AuthorizationCode | None = None
    """None: the grant has its refresh token."""

    def __post_init__(self) -> None:
        """Raise UnusableCredential for values that no token endpoint gives."""
        if self.code is not None:
            if self.refresh_token:
                raise UnusableCredential("a grant has a code or a refresh token, not both")
        elif not SENDABLE.fullmatch(self.refresh_token):
            raise UnusableCredential("a refresh token is visible ASCII, at most 16384 characters")
        if self.client_id and not SENDABLE.fullmatch(self.client_id):
            raise UnusableCredential("a client id is visible ASCII")

    @property
    def grant(self) -> str:
        """The name of the grant: the SHA-256 of its first refresh token, or of its code, as hexadecimal digits."""
        first = self.refresh_token if self.code is None else self.code.code
        return self.origin or hashlib.sha256(first.encode()).hexdigest()

    def rotated(self, refresh_token: str) -> "OAuthCredential":
        """Return the same grant with the refresh token that replaces this one, or its code [RFC 6749 6]."""
        return replace(self, refresh_token=refresh_token, origin=self.grant, code=None)

    def authorization(self) -> None:
        """Return None: the header differs with each access token."""
        return


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a server says about the tokens that it accepts [RFC 6750 3], as far as it helps an operator."""

    authority: str = ""
    """The host of `authorization_uri`, which may issue tokens."""
    trusted_issuers: tuple[str, ...] = ()
    error: str = ""
    """E.g. "invalid_token" [RFC 6750 3.1]."""


def read_challenge(header: str) -> Challenge | None:
    """Read WWW-Authenticate, several challenges joined by commas; None if none of them is Bearer.

    The header is not trusted: values that are not a host or a plain word are left out, so that the rest may be logged.
    """
    parameters = _bearer_parameters(header)
    if parameters is None:
        return None
    issuers = tuple(filter(None, (text.strip() for text in parameters.get("trusted_issuers", "").split(","))))
    return Challenge(_host(parameters.get("authorization_uri", "")), issuers, _only(WORD, parameters.get("error", "")))


def read_schemes(header: str) -> tuple[str, ...]:
    """Return the known authentication schemes that WWW-Authenticate offers, in its order."""
    words = [word.lower() for _, _, _, word in PIECE.findall(header)]
    return tuple(dict.fromkeys(SCHEMES[word] for word in words if word in SCHEMES))


def read_diagnostics(header: str) -> str:
    """Return why Exchange refuses a token, from x-ms-diagnostics; empty if it does not say in plain text."""
    found = DIAGNOSTICS.match(header)
    return f"{found[1]} {found[2].strip()}" if found else ""


def describe(challenge: Challenge, endpoint: str, diagnostics: str = "") -> str:
    """Describe why a server refuses a token; `endpoint` is the token endpoint that issued it."""
    text = "the server refuses the access token (HTTP 401"
    text += f", {challenge.error})" if challenge.error else ")"
    text += f", saying: {diagnostics}" if diagnostics else ""
    if challenge.authority and challenge.authority != _host(endpoint):
        text += f"; it wants tokens of {challenge.authority}"
    return text


def _bearer_parameters(header: str) -> dict[str, str] | None:
    """Return the parameters between the scheme Bearer and the next scheme; None without Bearer."""
    scheme = ""
    found: dict[str, str] | None = None
    for name, quoted, bare, word in PIECE.findall(header):
        if word:
            scheme = word.lower()
            found = {} if scheme == "bearer" and found is None else found
        elif scheme == "bearer" and found is not None:
            found.setdefault(name.lower(), quoted or bare)
    return found


def _host(url: str) -> str:
    try:
        return _only(HOST, urlsplit(url).hostname or "")
    except ValueError:
        return ""


def _only(allowed: Pattern[str], text: str) -> str:
    return text if allowed.fullmatch(text) else ""
