"""A new access token [RFC 6749 4.1.3, 6]: the request to the token endpoint, and what its answer means."""

import json
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from re import compile as pattern
from typing import Any, Final
from urllib.parse import urlencode

from eas_watcher.auth.bearer import SENDABLE, WORD, OAuthCredential
from eas_watcher.commands.http_status import raise_for_http
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import AccessDenied, CredentialVoid, EasError, ProtocolViolation, ServerBusy
from eas_watcher.names import USER_AGENT
from eas_watcher.reasons import Reason

DEADLINE: Final = 30.0  # seconds within which the token endpoint must answer
LIFETIME: Final = 600.0  # seconds, for a token whose answer names no lifetime [RFC 6749 5.1 leaves it open]
LONGEST: Final = 86_400.0  # seconds; a token with a longer lifetime is renewed once a day, too
VOID: Final = {
    "invalid_grant": Reason.OAUTH_INVALID_GRANT,
    "interaction_required": Reason.OAUTH_INTERACTION_REQUIRED,
    "login_required": Reason.OAUTH_LOGIN_REQUIRED,
    "consent_required": Reason.OAUTH_CONSENT_REQUIRED,
}
"""The errors after which the user must log in again [RFC 6749 5.2; OpenID Connect Core 3.1.2.6]."""
TEMPORARY: Final = frozenset({"temporarily_unavailable", "server_error", "slow_down"})
REFUSED: Final = frozenset({400, 401, 403})
DIGITS: Final = pattern(r"[0-9]{1,9}", flags=256)  # re.ASCII


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """The relay as a client of a token endpoint, and the tokens that it needs; all from the settings."""

    token_endpoint: str
    client_id: str
    client_secret: str = field(default="", repr=False)
    scope: str = ""
    audience: frozenset[str] = frozenset()
    """The allowed audiences of a token that can be read; empty: not checked."""
    user_claims: frozenset[str] = frozenset()
    """The claims that name the user of a token that can be read; empty: nobody is looked for."""


@dataclass(frozen=True, slots=True)
class Issued:
    """What a token endpoint issued."""

    access_token: str = field(repr=False)
    lifetime: float
    """Seconds."""
    refresh_token: str = field(default="", repr=False)
    """The one that replaces the refresh token that was sent; empty: that one stays valid."""
    users: frozenset[str] = frozenset()
    """The names of its user, as far as the tokens say any; all mean one user."""


def refresh_request(client: OAuthClient, credential: OAuthCredential) -> HttpRequest:
    """Return the request for a new access token; it has the client secret only if the grant is that client's."""
    client_id = credential.client_id or client.client_id
    fields = {"client_id": client_id, **_shown(credential)}
    if client.client_secret and client_id == client.client_id:
        fields["client_secret"] = client.client_secret
    if client.scope:
        fields["scope"] = client.scope
    headers = {
        "Accept": "application/json",
        "Content-Type": "application/x-www-form-urlencoded",
        "User-Agent": USER_AGENT,
    }
    return HttpRequest("POST", client.token_endpoint, headers, urlencode(fields).encode(), DEADLINE)


def _shown(credential: OAuthCredential) -> dict[str, str]:
    """Return what of a request shows the grant; the verifier proves who asked for the code [RFC 7636 4.5]."""
    code = credential.code
    if code is None:
        return {"grant_type": "refresh_token", "refresh_token": credential.refresh_token}
    return {
        "grant_type": "authorization_code",
        "code": code.code,
        "redirect_uri": code.redirect_uri,
        "code_verifier": code.verifier,
    }


def read_issued(reply: HttpReply, client: OAuthClient, now: datetime, *, first: bool = False) -> Issued:
    """Read the token endpoint's answer [RFC 6749 5.1, 5.2]; the `first` one of a grant must have a refresh token.

    Raises CredentialVoid when the user must log in again, AccessDenied when the operator must change something,
    ServerBusy and ProtocolViolation when a retry may succeed.
    """
    if reply.status in REFUSED:
        raise _refusal(reply)
    if reply.status != 200:  # noqa: PLR2004 -- the one status with a token
        try:
            raise_for_http(reply, lambda: now)
        except ServerBusy as error:
            raise ServerBusy(f"the token endpoint: {error}", error.retry_after, reached=False) from None
        except EasError:
            raise ProtocolViolation(f"the token endpoint answered with HTTP {reply.status}") from None
    answer = _json(reply.body)
    token = answer.get("access_token")
    if not isinstance(token, str) or not SENDABLE.fullmatch(token):
        raise ProtocolViolation("the token endpoint gave no access token")
    if str(answer.get("token_type", "")).lower() != "bearer":
        raise ProtocolViolation("the token endpoint gave a token of another type than Bearer")
    _check_audience(token, client.audience)
    refresh_token = _refresh_token(answer.get("refresh_token"))
    if first and not refresh_token:
        text = "the token endpoint gave no refresh token for the code: oauth_scope may lack offline_access"
        raise AccessDenied(text, Reason.OAUTH_CLIENT)
    users = _users(answer.get("id_token"), client) | _users(token, client)
    return Issued(token, _lifetime(answer.get("expires_in")), refresh_token, users)


def is_user(user: str, named: frozenset[str]) -> bool:
    r"""Return True if one of the names of a token's user means the user of a mailbox, or if there are none.

    Names of one form are compared whole; of two forms (`EXAMPLE\ann`, `ann@example.com`, `ann`) only the account, since
    which Windows domain belongs to which mail domain is known to the directory alone.
    """
    (form, account), whole = _form(user), user.casefold()
    others = ((*_form(name), name.casefold()) for name in named)
    return not named or any(
        whole == other if form == its_form else account == its_account for its_form, its_account, other in others
    )


def audience_of(token: str) -> frozenset[str] | None:
    """Return the audience of a JSON Web Token [RFC 7519 4.1.3], unverified; None if it has none or cannot be read."""
    audience = _claims(token).get("aud")
    if isinstance(audience, str):
        return frozenset({audience})
    return frozenset(map(str, audience)) if isinstance(audience, list) else None


def _claims(token: str) -> Mapping[str, Any]:
    """Return the claims of a JSON Web Token, unverified; none if it cannot be read.

    The token comes from the token endpoint itself, over TLS, which vouches for it [OpenID Connect Core 3.1.3.7].
    """
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 -- header, claims, signature [RFC 7515 3.1]
        return {}
    try:
        claims = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _users(token: Any, client: OAuthClient) -> frozenset[str]:
    """Return the names of its user that a token says."""
    if not client.user_claims or not isinstance(token, str):
        return frozenset()
    said = (value for name, value in _claims(token).items() if name in client.user_claims)
    return frozenset(value for value in said if isinstance(value, str) and value)


def _form(user: str) -> tuple[str, str]:
    """Return the form of a name, by what separates account and domain, and the account without regard to case."""
    if "\\" in user:
        return "\\", user.casefold().rpartition("\\")[2]
    if "@" in user:
        return "@", user.casefold().rpartition("@")[0]
    return "", user.casefold()


def _refusal(reply: HttpReply) -> EasError:
    code = _json(reply.body).get("error")
    code = code if isinstance(code, str) and WORD.fullmatch(code) else f"HTTP {reply.status}"
    if code in VOID:
        return CredentialVoid(f"the token endpoint wants the user to log in again ({code})", VOID[code])
    if code in TEMPORARY:
        return ServerBusy(f"the token endpoint cannot serve now ({code})", reached=False)
    text = f"the token endpoint refuses the relay ({code}): check the oauth settings of the server"
    return AccessDenied(text, Reason.OAUTH_CLIENT)


def _check_audience(token: str, allowed: frozenset[str]) -> None:
    audience = audience_of(token) if allowed else None
    if audience is not None and not audience & allowed:
        text = "the access token is meant for another service: check oauth_audience and oauth_scope of the server"
        raise AccessDenied(text, Reason.OAUTH_AUDIENCE)


def _lifetime(seconds: Any) -> float:
    """Read seconds, as a number or as a text of digits [observed: AD FS 3.0 and version 1 of Entra's endpoint]."""
    if isinstance(seconds, str) and DIGITS.fullmatch(seconds):
        seconds = int(seconds)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        return LIFETIME
    return min(float(seconds), LONGEST)


def _refresh_token(token: Any) -> str:
    if token in (None, ""):
        return ""
    if not isinstance(token, str) or not SENDABLE.fullmatch(token):
        raise ProtocolViolation("the token endpoint gave a refresh token that cannot be sent")
    return token


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    return answer if isinstance(answer, dict) else {}
