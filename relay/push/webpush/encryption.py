"""Own the encryption of a message for one subscriber [RFC 8291, RFC 8188 aes128gcm], every message of the same length.

Only the device can read it: the push service sees when and to whom, never which template.
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
"""Bytes of a message before its encryption, padding included: more than the longest template, whatever it says."""
RECORD_SIZE: Final = 4096
"""Bytes of a record at most, as in the examples of RFC 8291; a message is one record, and smaller."""
SALT: Final = 16  # bytes
LAST_RECORD: Final = b"\x02"
"""Ends the content of the last record; zeros may follow [RFC 8188 2]."""


class TooLong(ValueError):
    """Tell that a message does not fit into the one length that all have."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Hold the material of one message [RFC 8291 3.4]."""

    key: bytes
    """16 bytes, for AES-128-GCM."""
    nonce: bytes
    """12 bytes, of the first record."""


def encrypt(content: bytes, subscriber: bytes, auth: bytes, salt: bytes, length: int = LENGTH) -> bytes:
    """Encrypt for a subscriber's public key (65 bytes) and authentication secret (16), with a fresh key of our own.

    `salt` is 16 random bytes. The content is padded to `length` bytes. Raises TooLong.
    """
    return seal(content, subscriber, auth, salt, generate_private_key(SECP256R1()), length)


def seal(
    content: bytes, subscriber: bytes, auth: bytes, salt: bytes, private: EllipticCurvePrivateKey, length: int
) -> bytes:
    """Encrypt with a given key; it serves one message only."""
    if len(content) > length:
        raise TooLong(f"a message has {len(content)} bytes, and {length} is the length of all")
    public = point(private.public_key())
    shared = private.exchange(ECDH(), EllipticCurvePublicKey.from_encoded_point(SECP256R1(), subscriber))
    keys = derive(shared, auth, salt, subscriber, public)
    padded = content + LAST_RECORD + bytes(length - len(content))
    # The header: salt, record size, length of the key id, and the key id, which is our public key [RFC 8291 4].
    header = salt + RECORD_SIZE.to_bytes(4, "big") + len(public).to_bytes(1, "big") + public
    return header + AESGCM(keys.key).encrypt(keys.nonce, padded, None)


def derive(shared: bytes, auth: bytes, salt: bytes, subscriber: bytes, sender: bytes) -> Keys:
    """Derive key and nonce from the shared secret of the two public keys [RFC 8291 3.3, 3.4]."""
    info = b"WebPush: info\0" + subscriber + sender
    secret = _hkdf(shared, auth, info, 32)
    key = _hkdf(secret, salt, b"Content-Encoding: aes128gcm\0", 16)
    return Keys(key, _hkdf(secret, salt, b"Content-Encoding: nonce\0", 12))


def point(key: EllipticCurvePublicKey) -> bytes:
    """Write a public key as 65 bytes, uncompressed [X9.62]."""
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(secret)
