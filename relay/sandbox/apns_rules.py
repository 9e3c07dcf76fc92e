"""The rules of APNs: checks of requests as Apple documents them, without I/O.

[Apple: Sending notification requests to APNs; Handling notification responses from APNs; Establishing a token-based
connection to APNs]
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import jwt

PATH: Final = re.compile(r"/3/device/([^/]*)", re.ASCII)
HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2}){1,100}", re.ASCII)
UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
NUMBER: Final = re.compile(r"[0-9]{1,19}", re.ASCII)

LARGEST: Final = 4096  # bytes of a payload; VoIP pushes may have 5120
COLLAPSE_ID: Final = 64  # bytes
TOKEN_LIFE: Final = timedelta(hours=1)
LEEWAY: Final = timedelta(minutes=1)
"""How far in the future the `iat` of a provider token may be."""

PUSH_TYPES: Final = frozenset(
    {"alert", "background", "controls", "location", "voip", "complication", "fileprovider", "mdm", "liveactivity"}
    | {"pushtotalk", "widgets"}
)


class Request(NamedTuple):
    """One complete request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    certificate: Mapping[str, str]
    """The subject of the client certificate, attribute name to value; empty without a certificate."""

    @property
    def device_token(self) -> str:
        """The device token of the path; empty if it has none."""
        found = PATH.fullmatch(self.path)
        return "" if found is None else found[1]


class ApnsResponse(NamedTuple):
    """The answer to a request."""

    status: int
    reason: str = ""
    timestamp: int | None = None
    """When a device token became invalid, milliseconds since 1970."""

    @property
    def body(self) -> bytes:
        """The body of the answer; a success has none."""
        if not self.reason:
            return b""
        document: dict[str, object] = {"reason": self.reason}
        if self.timestamp is not None:
            document["timestamp"] = self.timestamp
        return json.dumps(document).encode()


OK: Final = ApnsResponse(200)
INVALID_TOKEN: Final = ApnsResponse(403, "InvalidProviderToken")


@dataclass(frozen=True, slots=True)
class Authority:
    """The keys and topics that APNs knows: key id -> (public PEM, team id), and bundle ids."""

    keys: Mapping[str, tuple[str, str]]
    topics: frozenset[str]
    _signed: dict[str, tuple[str, object, object]] = field(default_factory=dict, init=False, repr=False)
    """Provider token -> (team id of its key, iss, iat), after its signature was verified: clients reuse tokens."""

    def authenticate(self, request: Request, now: datetime) -> ApnsResponse | None:
        """Return the refusal of a request without valid authentication; a provider token precedes the certificate."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not token and request.certificate:
            return None
        if scheme.lower() != "bearer" or not token:
            return ApnsResponse(403, "MissingProviderToken")
        return self._token(token.strip(), now)

    def _token(self, token: str, now: datetime) -> ApnsResponse | None:
        try:
            team, issuer, made = self._signed.get(token) or self._verify(token)
        except (jwt.PyJWTError, KeyError):
            return INVALID_TOKEN
        if issuer != team or not isinstance(made, int):
            return INVALID_TOKEN
        age = now.timestamp() - made
        if age < -LEEWAY.total_seconds():
            return INVALID_TOKEN
        return ApnsResponse(403, "ExpiredProviderToken") if age > TOKEN_LIFE.total_seconds() else None

    def _verify(self, token: str) -> tuple[str, object, object]:
        public, team = self.keys[jwt.get_unverified_header(token)["kid"]]
        claims = jwt.decode(
            token, public, ["ES256"], options={"verify_iat": False, "verify_exp": False, "require": ["iat", "iss"]}
        )
        self._signed[token] = team, claims["iss"], claims["iat"]
        return self._signed[token]

    def topic(self, request: Request) -> str | ApnsResponse:
        """Return the topic of a request, by default that of its certificate, or a refusal."""
        by_certificate = request.certificate and "authorization" not in request.headers
        owner = request.certificate.get("userId", "") if by_certificate else ""
        topic = request.headers.get("apns-topic", owner)
        if not topic:
            return ApnsResponse(400, "MissingTopic")
        if topic not in self.topics or (owner and topic != owner and not topic.startswith(f"{owner}.")):
            return ApnsResponse(400, "TopicDisallowed")
        return topic


def check_address(request: Request) -> ApnsResponse | None:
    """Return the refusal of a request whose path is not that of a device."""
    if request.method != "POST":
        return ApnsResponse(405, "MethodNotAllowed")
    found = PATH.fullmatch(request.path)
    if found is None:
        return ApnsResponse(404, "BadPath")
    if not found[1]:
        return ApnsResponse(400, "MissingDeviceToken")
    return None if HEX.fullmatch(found[1]) else ApnsResponse(400, "BadDeviceToken")


def check_headers(headers: Mapping[str, str]) -> ApnsResponse | None:
    """Return the refusal of headers that APNs does not accept."""
    if "apns-id" in headers and not UUID.fullmatch(headers["apns-id"]):
        return ApnsResponse(400, "BadMessageId")
    push_type = headers.get("apns-push-type", "")
    if push_type not in PUSH_TYPES:
        return ApnsResponse(400, "InvalidPushType")
    priority = headers.get("apns-priority", "10")
    if priority not in {"1", "5", "10"} or (push_type == "background" and priority == "10"):
        return ApnsResponse(400, "BadPriority")
    if not NUMBER.fullmatch(headers.get("apns-expiration", "0")):
        return ApnsResponse(400, "BadExpirationDate")
    if len(headers.get("apns-collapse-id", "").encode()) > COLLAPSE_ID:
        return ApnsResponse(400, "BadCollapseId")
    return None


def check_payload(body: bytes) -> ApnsResponse | None:
    """Return the refusal of a bad payload; Apple documents no reason for one without `aps`, "BadPayload" is ours."""
    if not body:
        return ApnsResponse(400, "PayloadEmpty")
    if len(body) > LARGEST:
        return ApnsResponse(413, "PayloadTooLarge")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ApnsResponse(400, "BadPayload")
    if not isinstance(document, dict) or not isinstance(document.get("aps"), dict):
        return ApnsResponse(400, "BadPayload")
    return None
