"""Own what APNs accepts: each request is checked as Apple documents it, without any I/O.

[Apple: Sending notification requests to APNs; Handling notification responses from APNs; Establishing a token-based
connection to APNs]
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import jwt

PATH: Final = re.compile(r"/3/device/([^/]*)", re.ASCII)
HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2}){1,100}", re.ASCII)
NUMBER: Final = re.compile(r"[0-9]{1,19}", re.ASCII)

LARGEST: Final = 4096  # bytes of a payload; VoIP pushes may have 5120
COLLAPSE_ID: Final = 64  # bytes
TOKEN_LIFE: Final = timedelta(hours=1)
LEEWAY: Final = timedelta(minutes=1)
"""How far in the future a provider token may claim to be made."""

PUSH_TYPES: Final = frozenset(
    {"alert", "background", "controls", "location", "voip", "complication", "fileprovider", "mdm", "liveactivity"}
    | {"pushtotalk", "widgets"}
)


@dataclass(frozen=True, slots=True)
class Request:
    """Hold one whole request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    certificate: Mapping[str, str]
    """The subject of the client certificate, attribute name to value; empty when there is none."""

    @property
    def device_token(self) -> str:
        """Give the device token of the path; empty when there is none."""
        found = PATH.fullmatch(self.path)
        return "" if found is None else found[1]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Hold the answer to a request."""

    status: int
    reason: str = ""
    timestamp: int | None = None
    """Since when a token is gone, milliseconds since 1970."""

    @property
    def body(self) -> bytes:
        """Make the answer's body; a success has none."""
        if not self.reason:
            return b""
        document: dict[str, object] = {"reason": self.reason}
        if self.timestamp is not None:
            document["timestamp"] = self.timestamp
        return json.dumps(document).encode()


OK: Final = Verdict(200)


@dataclass(frozen=True, slots=True)
class Authority:
    """Know which keys and apps APNs knows: key id -> (public PEM, team id), and topics."""

    keys: Mapping[str, tuple[str, str]]
    topics: frozenset[str]
    _signed: dict[str, tuple[str, object, object]] = field(default_factory=dict, init=False, repr=False)
    """Provider token -> (team id of its key, iss, iat), once its signature was found good: many requests bear it."""

    def authenticate(self, request: Request, now: datetime) -> Verdict | None:
        """Refuse a request that does not prove who sends it; a provider token counts before the certificate."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not token and request.certificate:
            return None
        if scheme.lower() != "bearer" or not token:
            return Verdict(403, "MissingProviderToken")
        return self._token(token.strip(), now)

    def _token(self, token: str, now: datetime) -> Verdict | None:
        invalid = Verdict(403, "InvalidProviderToken")
        try:
            team, issuer, made = self._signed.get(token) or self._verify(token)
        except (jwt.PyJWTError, KeyError):
            return invalid
        if issuer != team or not isinstance(made, int):
            return invalid
        age = now.timestamp() - made
        if age < -LEEWAY.total_seconds():
            return invalid
        return Verdict(403, "ExpiredProviderToken") if age > TOKEN_LIFE.total_seconds() else None

    def _verify(self, token: str) -> tuple[str, object, object]:
        public, team = self.keys[jwt.get_unverified_header(token)["kid"]]
        claims = jwt.decode(
            token, public, ["ES256"], options={"verify_iat": False, "verify_exp": False, "require": ["iat", "iss"]}
        )
        self._signed[token] = team, claims["iss"], claims["iat"]
        return self._signed[token]

    def topic(self, request: Request) -> str | Verdict:
        """Find the topic a request is for; one without a provider token may leave it to its certificate."""
        by_certificate = request.certificate and "authorization" not in request.headers
        owner = request.certificate.get("userId", "") if by_certificate else ""
        topic = request.headers.get("apns-topic", owner)
        if not topic:
            return Verdict(400, "MissingTopic")
        if topic not in self.topics or (owner and topic != owner and not topic.startswith(f"{owner}.")):
            return Verdict(400, "TopicDisallowed")
        return topic


def check_address(request: Request) -> Verdict | None:
    """Refuse a request that goes to no device."""
    if request.method != "POST":
        return Verdict(405, "MethodNotAllowed")
    if not PATH.fullmatch(request.path):
        return Verdict(404, "BadPath")
    if not request.device_token:
        return Verdict(400, "MissingDeviceToken")
    return None if HEX.fullmatch(request.device_token) else Verdict(400, "BadDeviceToken")


def check_headers(headers: Mapping[str, str]) -> Verdict | None:
    """Refuse headers that APNs does not take."""
    if "apns-id" in headers and not _is_uuid(headers["apns-id"]):
        return Verdict(400, "BadMessageId")
    push_type = headers.get("apns-push-type", "")
    if push_type not in PUSH_TYPES:
        return Verdict(400, "InvalidPushType")
    priority = headers.get("apns-priority", "10")
    if priority not in {"1", "5", "10"} or (push_type == "background" and priority == "10"):
        return Verdict(400, "BadPriority")
    if not NUMBER.fullmatch(headers.get("apns-expiration", "0")):
        return Verdict(400, "BadExpirationDate")
    if len(headers.get("apns-collapse-id", "").encode()) > COLLAPSE_ID:
        return Verdict(400, "BadCollapseId")
    return None


def check_payload(body: bytes) -> Verdict | None:
    """Refuse a payload that is none; Apple documents no reason for one without `aps`, so "BadPayload" is our word."""
    if not body:
        return Verdict(400, "PayloadEmpty")
    if len(body) > LARGEST:
        return Verdict(413, "PayloadTooLarge")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return Verdict(400, "BadPayload")
    if not isinstance(document, dict) or not isinstance(document.get("aps"), dict):
        return Verdict(400, "BadPayload")
    return None


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
