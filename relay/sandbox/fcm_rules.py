"""The rules of FCM v1 and of Google's token endpoint: checks of requests as Google documents them, without I/O.

[Google: FCM REST v1, projects.messages.send; ErrorCode; AndroidConfig] [RFC 7523]
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import jwt

SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
AUDIENCE: Final = "https://oauth2.googleapis.com/token"
"""The audience of an assertion for any endpoint [Google: OAuth 2.0 for server to server applications]."""
GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LIFE: Final = 3600
"""The longest life of an assertion, and the life of an access token, in seconds."""
LARGEST: Final = 4096  # bytes of all data together

TTL: Final = re.compile(r"[0-9]{1,7}(?:\.[0-9]{1,9})?s", re.ASCII)
TARGETS: Final = ("fid", "token")
"""The fields of a message that name an app on a phone; the relay uses no topics and conditions."""
FID: Final = re.compile(r"[cdef][A-Za-z0-9_-]{21}", re.ASCII)
"""A FID as Firebase's SDKs make it: in base64url, its first four bits are 0111."""
RESERVED: Final = re.compile(r"from|message_type|(?:google|gcm)(?:\..*)?", re.ASCII)
"""Keys that data may not have [Google: FCM REST v1, Message.data]."""

FCM_ERROR: Final = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST: Final = "type.googleapis.com/google.rpc.BadRequest"
ERROR_INFO: Final = "type.googleapis.com/google.rpc.ErrorInfo"

STATUS: Final[Mapping[str, tuple[int, str]]] = {
    "INVALID_ARGUMENT": (400, "INVALID_ARGUMENT"),
    "THIRD_PARTY_AUTH_ERROR": (401, "UNAUTHENTICATED"),
    "SENDER_ID_MISMATCH": (403, "PERMISSION_DENIED"),
    "UNREGISTERED": (404, "NOT_FOUND"),
    "QUOTA_EXCEEDED": (429, "RESOURCE_EXHAUSTED"),
    "INTERNAL": (500, "INTERNAL"),
    "UNAVAILABLE": (503, "UNAVAILABLE"),
}
"""Error code of FCM -> HTTP status and canonical code."""
INFO: Final[Mapping[str, tuple[int, str]]] = {
    "ACCESS_TOKEN_EXPIRED": (401, "UNAUTHENTICATED"),
    "SERVICE_DISABLED": (403, "PERMISSION_DENIED"),
    "RATE_LIMIT_EXCEEDED": (429, "RESOURCE_EXHAUSTED"),
}
"""Reasons of the services in front of FCM, which answer with an ErrorInfo -> the same [Google: AIP-193]."""

Violation = tuple[str, str]


@dataclass(frozen=True, slots=True)
class FcmResponse:
    """The answer to a request."""

    status: int
    document: Mapping[str, object]


def fcm_error(code: str, status: int | None = None, field: str = "") -> FcmResponse:
    """Return the answer with an error code of FCM, a reason of a service in front of it, or else a canonical code.

    `status` replaces the HTTP status of the code; `field` is the field at fault, if the answer names one.
    """
    details: list[Mapping[str, object]] = []
    if field:
        details.append({"@type": BAD_REQUEST, "fieldViolations": [{"field": field, "description": code}]})
    if code in STATUS:
        usual, canonical = STATUS[code]
        details.append({"@type": FCM_ERROR, "errorCode": code})
    elif code in INFO:
        usual, canonical = INFO[code]
        details.append({"@type": ERROR_INFO, "reason": code, "domain": "googleapis.com"})
    else:
        usual, canonical = 500, code
    return _error(status or usual, canonical, code, details)


def check_assertion(form: Mapping[str, str], public: str, issuer: str, token_uri: str, now: datetime) -> str | None:
    """Return the error code of a request for an access token, or None if it is valid [RFC 7523 3]."""
    if form.get("grant_type") != GRANT:
        return "unsupported_grant_type"
    try:
        claims = jwt.decode(
            form.get("assertion", ""),
            public,
            ["RS256"],
            audience=[AUDIENCE, token_uri],
            issuer=issuer,
            options={"verify_exp": False, "verify_iat": False, "require": ["iss", "aud", "exp", "iat", "scope"]},
        )
        made, ends = int(claims["iat"]), int(claims["exp"])
    except (jwt.PyJWTError, TypeError, ValueError):
        return "invalid_grant"
    if not now.timestamp() < ends <= now.timestamp() + LIFE + 60 or ends - made > LIFE:
        return "invalid_grant"
    return None if SCOPE in str(claims["scope"]).split() else "invalid_scope"


def check_message(body: bytes) -> tuple[str, FcmResponse | None]:
    """Return the token or FID in the body of a send ("" if it has none), and the refusal of a bad body."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return "", _error(400, "INVALID_ARGUMENT", "Invalid JSON payload received.", [])
    message = document.get("message") if isinstance(document, dict) else None
    named = [message[name] for name in TARGETS if name in message] if isinstance(message, dict) else []
    target = named[0] if named and isinstance(named[0], str) else ""
    violations = list(_violations(document))
    if not violations:
        return target, None
    details: list[Mapping[str, object]] = [
        {
            "@type": BAD_REQUEST,
            "fieldViolations": [{"field": field, "description": wrong} for field, wrong in violations],
        },
        {"@type": FCM_ERROR, "errorCode": "INVALID_ARGUMENT"},
    ]
    return target, _error(400, "INVALID_ARGUMENT", violations[0][1], details)


def only_validates(body: bytes) -> bool:
    """Return whether a body asks for a check of the message, which is not sent."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and True in (document.get("validate_only"), document.get("validateOnly"))


def unauthenticated() -> FcmResponse:
    """Return the answer to a request without a valid access token."""
    info = {"@type": ERROR_INFO, "reason": "ACCESS_TOKEN_EXPIRED", "domain": "googleapis.com"}
    return _error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.", [info])


def unknown_project() -> FcmResponse:
    """Return the answer for a project that does not exist: 404, but not UNREGISTERED."""
    return _error(404, "NOT_FOUND", "Requested entity was not found.", [])


def _error(status: int, canonical: str, message: str, details: list[Mapping[str, object]]) -> FcmResponse:
    error: dict[str, object] = {"code": status, "message": message, "status": canonical}
    if details:
        error["details"] = details
    return FcmResponse(status, {"error": error})


def _violations(document: object) -> Iterator[Violation]:
    if not isinstance(document, dict) or not isinstance(document.get("message"), dict):
        yield "message", "Missing message."
        return
    yield from _unknown("", document, {"message", "validate_only", "validateOnly"})
    message = document["message"]
    yield from _unknown("message", message, {*TARGETS, "data", "android"})
    yield from _target(message)
    yield from _data(message.get("data", {}))
    yield from _android(message.get("android", {}))


def _target(message: Mapping[str, object]) -> Iterator[Violation]:
    """Check the target: exactly one name of an app on a phone [Google: FCM REST v1, Message, union field target]."""
    if "fid" in message and "token" in message:
        yield "message", "Invalid value (oneof), oneof field 'target' is already set. Cannot set 'token'"
    elif "fid" in message:
        if not isinstance(message["fid"], str) or not FID.fullmatch(message["fid"]):
            yield "message.fid", "The installation ID is not a valid Firebase Installation ID"
    elif not isinstance(message.get("token"), str) or not message["token"] or FID.fullmatch(str(message["token"])):
        yield "message.token", "The registration token is not a valid FCM registration token"


def _data(data: object) -> Iterator[Violation]:
    if not isinstance(data, dict):
        yield "message.data", "Invalid value (map)"
        return
    for key, value in data.items():
        if not isinstance(value, str):
            yield f"message.data[{key}]", f"Invalid value at 'message.data[{key}].value' (TYPE_STRING)"
        if RESERVED.fullmatch(key):
            yield f"message.data[{key}]", f"Invalid data payload key: {key}"
    if sum(len(key.encode()) + len(str(value).encode()) for key, value in data.items()) > LARGEST:
        yield "message.data", "Message is too big"


def _android(android: object) -> Iterator[Violation]:
    if not isinstance(android, dict):
        yield "message.android", "Invalid value"
        return
    yield from _unknown("message.android", android, {"priority", "ttl", "collapse_key", "collapseKey"})
    if android.get("priority", "NORMAL") not in {"NORMAL", "HIGH"}:
        yield "message.android.priority", "Invalid value (AndroidMessagePriority)"
    if not isinstance(ttl := android.get("ttl", "0s"), str) or not TTL.fullmatch(ttl):
        yield "message.android.ttl", "Illegal duration format; duration must end with 's'"
    if not isinstance(android.get("collapse_key", ""), str):
        yield "message.android.collapse_key", "Invalid value (TYPE_STRING)"


def _unknown(where: str, value: Mapping[str, object], known: set[str]) -> Iterator[Violation]:
    for name in sorted(value.keys() - known):
        yield f"{where}.{name}".lstrip("."), f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.'
