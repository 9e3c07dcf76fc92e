"""Encryption of a message for one subscription [RFC 8291, RFC 8188 aes128gcm]; all messages have the same length.

Only the device can read a message. The push service sees when it was sent and to which subscription, not the template.
"""

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDH,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

LENGTH: Final = 512
"""Bytes of a message before its encryption, padding included; the longest template, filled in, is shorter."""
LONGER: Final = 1536
"""The same for messages to the relay's own web app, which have texts and addresses."""
RECORD_SIZE: Final = 4096
"""Longest record in bytes, as in the examples of RFC 8291; a message is one record, and shorter."""
SALT: Final = 16  # bytes
LAST_RECORD: Final = b"\x02"
"""Ends the content of the last record; zeros may follow [RFC 8188 2]."""


class TooLong(ValueError):
    """A message is longer than the one length of all messages."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The key and nonce of one message [RFC 8291 3.4]."""

    key: bytes
    """16 bytes, for AES-128-GCM."""
    nonce: bytes
    """12 bytes, of the first record."""


def encrypt(content: bytes, subscriber: bytes, auth: bytes, salt: bytes, length: int = LENGTH) -> bytes:
    """Return the content encrypted for a subscriber's public key (65 bytes) and authentication secret (16 bytes).

    The sender's key is fresh, `salt` is 16 random bytes. The content is padded to `length` bytes. Raises TooLong.
    """
    return seal(content, subscriber, auth, salt, generate_private_key(SECP256R1()), length)


def seal(
    content: bytes, subscriber: bytes, auth: bytes, salt: bytes, private: EllipticCurvePrivateKey, length: int
) -> bytes:
    """Return the content encrypted with a given sender's key, which must serve for one message only."""
    if len(content) > length:
        raise TooLong(f"a message has {len(content)} bytes, and {length} is the length of all")
    public = point(private.public_key())
    shared = private.exchange(ECDH(), EllipticCurvePublicKey.from_encoded_point(SECP256R1(), subscriber))
    keys = derive(shared, auth, salt, subscriber, public)
    padded = content + LAST_RECORD + bytes(length - len(content))
    # The header: salt, record size, length of the key id, and the key id, the sender's public key [RFC 8291 4].
    header = salt + RECORD_SIZE.to_bytes(4, "big") + len(public).to_bytes(1, "big") + public
    return header + AESGCM(keys.key).encrypt(keys.nonce, padded, None)


def derive(shared: bytes, auth: bytes, salt: bytes, subscriber: bytes, sender: bytes) -> Keys:
    """Return key and nonce, derived from the shared secret of the two key pairs [RFC 8291 3.3, 3.4]."""
    info = b"WebPush: info\0" + subscriber + sender
    secret = _hkdf(shared, auth, info, 32)
    key = _hkdf(secret, salt, b"Content-Encoding: aes128gcm\0", 16)
    return Keys(key, _hkdf(secret, salt, b"Content-Encoding: nonce\0", 12))


def point(key: EllipticCurvePublicKey) -> bytes:
    """Return a public key as 65 bytes, uncompressed [X9.62]."""
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(secret)
