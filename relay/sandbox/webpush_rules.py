"""The rules of WebPush: the checks of a strict push service, and the decryption in the phone, without I/O.

[RFC 8030, 8188, 8291, 8292]. This module shares no code with the sender, so that an error of the sender shows here.
"""

import hashlib
import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

import jwt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDH,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

LARGEST: Final = 4096  # bytes that a service must accept [RFC 8030 7.2]; the simulator accepts no more
DAY: Final = 86_400  # seconds that a token may be valid [RFC 8292 2]
TAG: Final = 16  # bytes of AES-GCM
HEADER: Final = 21  # bytes before the key id: salt, record size, length of the key id [RFC 8188 2.1]
POINT: Final = 65  # bytes of the key id, a public key [RFC 8291 4]
SMALLEST_RECORD: Final = 18  # bytes [RFC 8188 2.1]

TTL: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
URGENCIES: Final = frozenset({"very-low", "low", "normal", "high"})
TOPIC: Final = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
VAPID: Final = re.compile(
    r"vapid\s+t=(?P<t>[A-Za-z0-9_.-]+)\s*,\s*k=(?P<k>[A-Za-z0-9_-]+)\s*", re.ASCII | re.IGNORECASE
)


class Refusal(NamedTuple):
    """The answer to a request that is refused."""

    status: int
    reason: str


class Unreadable(Exception):
    """A phone cannot decrypt a push; the text says why."""


@dataclass(slots=True)
class Subscriber:
    """A phone's keys, and its subscription at the push service."""

    vapid_key: str = ""
    """The only VAPID key that may push [RFC 8292 4.1]; empty: any."""
    gone: int = 0
    """The status that its pushes are answered with; 0: they are taken."""
    private: EllipticCurvePrivateKey = field(default_factory=lambda: generate_private_key(SECP256R1()), repr=False)
    auth: bytes = b""

    @property
    def public(self) -> bytes:
        """The public key, 65 bytes."""
        return self.private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def check_push(
    headers: Mapping[str, str], body: bytes, subscriber: Subscriber, origin: str, now: datetime
) -> Refusal | None:
    """Return the refusal of a push; header names are in lower case, `origin` is the URL of the push service."""
    return _check_headers(headers) or _check_body(headers, body) or _check_vapid(headers, subscriber, origin, now)


def open_push(body: bytes, subscriber: Subscriber) -> bytes:
    """Return the decrypted body without padding; raises Unreadable."""
    salt, record_size, public = body[:16], int.from_bytes(body[16:20], "big"), body[HEADER : HEADER + POINT]
    try:
        shared = subscriber.private.exchange(ECDH(), EllipticCurvePublicKey.from_encoded_point(SECP256R1(), public))
    except ValueError as error:
        raise Unreadable("the key id is no public key") from error
    secret = _hkdf(subscriber.auth, shared, b"WebPush: info\0" + subscriber.public + public, 32)
    key = _hkdf(salt, secret, b"Content-Encoding: aes128gcm\0", 16)
    nonce = int.from_bytes(_hkdf(salt, secret, b"Content-Encoding: nonce\0", 12), "big")
    records = body[HEADER + POINT :]
    content = bytearray()
    starts = range(0, len(records), record_size)
    for number, start in enumerate(starts):
        sealed = records[start : start + record_size]
        try:
            record = AESGCM(key).decrypt((nonce ^ number).to_bytes(12, "big"), sealed, None).rstrip(b"\0")
        except (InvalidTag, ValueError) as error:
            raise Unreadable("a record does not open") from error
        delimiter = b"\x02" if number == len(starts) - 1 else b"\x01"
        if not record.endswith(delimiter):
            raise Unreadable("a record has no delimiter, or a wrong one")
        content += record[:-1]
    return bytes(content)


def encode(content: bytes) -> str:
    """Return base64url without padding."""
    return urlsafe_b64encode(content).decode("ascii").rstrip("=")


def decode(text: str) -> bytes:
    """Return the bytes of base64url without padding; raises ValueError."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _check_headers(headers: Mapping[str, str]) -> Refusal | None:
    if not TTL.fullmatch(headers.get("ttl", "")):
        return Refusal(400, "no TTL, or one that is no number [RFC 8030 5.2]")
    if headers.get("urgency", "normal") not in URGENCIES:
        return Refusal(400, "an unknown Urgency [RFC 8030 5.3]")
    if "topic" in headers and not TOPIC.fullmatch(headers["topic"]):
        return Refusal(400, "a Topic of more than 32 characters, or others than base64url's [RFC 8030 5.4]")
    return None


def _check_body(headers: Mapping[str, str], body: bytes) -> Refusal | None:
    if len(body) > LARGEST:
        return Refusal(413, "more than 4096 bytes")
    if headers.get("content-encoding") != "aes128gcm":
        return Refusal(400, "another Content-Encoding than aes128gcm [RFC 8291 4]")
    if len(body) < HEADER + POINT + SMALLEST_RECORD or body[20] != POINT:
        return Refusal(400, "a key id that is no public key [RFC 8291 4]")
    record_size = int.from_bytes(body[16:20], "big")
    if record_size < SMALLEST_RECORD or len(body) - HEADER - POINT > record_size:
        return Refusal(400, "a record size that is too small, or more than one record [RFC 8291 4]")
    return None


def _check_vapid(headers: Mapping[str, str], subscriber: Subscriber, origin: str, now: datetime) -> Refusal | None:
    found = VAPID.fullmatch(headers.get("authorization", ""))
    if found is None:
        return Refusal(401, "no VAPID [RFC 8292 3]")
    if subscriber.vapid_key and subscriber.vapid_key != found["k"]:
        return Refusal(403, "another VAPID key than that of the subscription [RFC 8292 4.2]")
    try:
        key = EllipticCurvePublicKey.from_encoded_point(SECP256R1(), decode(found["k"]))
        claims = jwt.decode(
            found["t"], key, ["ES256"], audience=origin, options={"verify_exp": False, "require": ["aud", "exp", "sub"]}
        )
        ends = float(claims["exp"])
    except (jwt.PyJWTError, TypeError, ValueError) as error:
        return Refusal(403, f"a VAPID token that is not good: {type(error).__name__} [RFC 8292 4.2]")
    if not now.timestamp() < ends <= now.timestamp() + DAY:
        return Refusal(403, "a VAPID token that has expired, or is good for more than a day [RFC 8292 2]")
    if not str(claims["sub"]).startswith(("mailto:", "https:")):
        return Refusal(403, "a VAPID token whose sub nobody can write to [RFC 8292 2.1]")
    return None


def _hkdf(salt: bytes, secret: bytes, info: bytes, length: int) -> bytes:
    """Return up to 32 derived bytes [RFC 5869 with SHA-256, one block]."""
    pseudorandom = hmac.new(salt, secret, hashlib.sha256).digest()
    return hmac.new(pseudorandom, info + b"\x01", hashlib.sha256).digest()[:length]
