"""A device of WebPush, which decrypts what it gets [RFC 8291]: the relay's own, for the canary."""

import secrets
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDH,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    derive_private_key,
    generate_private_key,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.domain.canary import SERVICE
from relay.domain.subscription import Subscription
from relay.push.webpush.encryption import LAST_RECORD, SALT, derive, point

SCALAR: Final = 32  # bytes of the private key
AUTH: Final = 16  # bytes
POINT: Final = 65  # bytes
_HEADER: Final = SALT + 4 + 1  # bytes: salt, record size, length of the key id [RFC 8188 2.1]


class Unreadable(ValueError):
    """The device cannot decrypt a push."""


@dataclass(frozen=True, slots=True)
class OwnDevice:
    """A subscription with its private half."""

    private: EllipticCurvePrivateKey = field(repr=False)
    auth: bytes = field(repr=False)

    @classmethod
    def make(cls) -> "OwnDevice":
        """Return a new one."""
        return cls(generate_private_key(SECP256R1()), secrets.token_bytes(AUTH))

    @classmethod
    def read(cls, key: bytes) -> "OwnDevice":
        """Return the one that has a key; raises ValueError."""
        return cls(derive_private_key(int.from_bytes(key[:SCALAR], "big"), SECP256R1()), key[SCALAR:])

    @property
    def key(self) -> bytes:
        """What `read` reads: 48 bytes."""
        return self.private.private_numbers().private_value.to_bytes(SCALAR, "big") + self.auth

    @property
    def token(self) -> str:
        """The device token."""
        return Subscription(f"https://{SERVICE}/", point(self.private.public_key()), self.auth, SERVICE).token

    def open(self, body: bytes) -> bytes:
        """Return the content of a push [RFC 8291 3.4]; raises Unreadable."""
        salt, sender = body[:SALT], body[_HEADER : _HEADER + POINT]
        try:
            shared = self.private.exchange(ECDH(), EllipticCurvePublicKey.from_encoded_point(SECP256R1(), sender))
            keys = derive(shared, self.auth, salt, point(self.private.public_key()), sender)
            record = AESGCM(keys.key).decrypt(keys.nonce, body[_HEADER + POINT :], None)
        except (ValueError, InvalidTag) as error:
            raise Unreadable("a push does not open") from error
        return self.content_of(record)

    @staticmethod
    def content_of(record: bytes) -> bytes:
        """Return a decrypted record without its end [RFC 8188 2]; raises Unreadable."""
        content, delimiter, _ = record.rpartition(LAST_RECORD)
        if not delimiter:
            raise Unreadable("a push has no end")
        return content
