"""The encryption of stored credentials: the api role seals with the public key, only the watch role can open.

HPKE [RFC 9180] in base mode, X25519 with HKDF-SHA256 and ChaCha20-Poly1305. Each seal is bound to its mailbox, so a
sealed credential that is moved to another row does not open.
"""

import base64
import hashlib
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from eas_watcher.errors import EasError
from eas_watcher.names import DeviceId, MailboxId
from relay.domain.errors import SealBroken
from relay.security import credentials
from relay.security.credentials import StoredCredential

FORMAT: Final = b"\x01"  # first byte of every seal: the suite below, the plaintext as JSON
_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


class SealingPublicKey:
    """Seals credentials; the api role has only this key."""

    def __init__(self, key: X25519PublicKey) -> None:
        """Use `load` for a file."""
        self._key = key
        self.raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        """The 32 bytes of the key."""

    @classmethod
    def load(cls, path: Path) -> "SealingPublicKey":
        """Load a PEM file; raises ValueError if it holds no X25519 public key."""
        key = load_pem_public_key(path.read_bytes())
        if not isinstance(key, X25519PublicKey):
            raise ValueError("not an X25519 public key")  # noqa: TRY004 -- the fault is in the file
        return cls(key)

    def seal(self, mailbox: MailboxId, credential: StoredCredential) -> bytes:
        """Return a credential, sealed for the watch role and bound to its mailbox."""
        return FORMAT + _SUITE.encrypt(credentials.write(credential), self._key, _info(mailbox))


class SealingPrivateKey:
    """Opens sealed credentials; only the watch role has this key."""

    def __init__(self, key: X25519PrivateKey) -> None:
        """Use `load` for a file."""
        self._key = key

    @classmethod
    def load(cls, path: Path) -> "SealingPrivateKey":
        """Load a PEM file; raises ValueError if it holds no X25519 private key."""
        key = load_pem_private_key(path.read_bytes(), None)
        if not isinstance(key, X25519PrivateKey):
            raise ValueError("not an X25519 private key")  # noqa: TRY004 -- the fault is in the file
        return cls(key)

    def public_key(self) -> SealingPublicKey:
        """Return the public half, which seals for this key."""
        return SealingPublicKey(self._key.public_key())

    def open(self, mailbox: MailboxId, sealed: bytes) -> StoredCredential:
        """Return the credential in a seal; raises SealBroken for another key, another mailbox or changed bytes."""
        if sealed[:1] != FORMAT:
            raise SealBroken("the seal has an unknown format")
        try:
            return credentials.read(_SUITE.decrypt(sealed[1:], self._key, _info(mailbox)))
        except (InvalidTag, ValueError, KeyError, TypeError, EasError) as error:
            raise SealBroken("the seal does not open with this key for this mailbox") from error


def generate() -> tuple[bytes, bytes]:
    """Make a key pair; return (private PEM, public PEM)."""
    key = X25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def derive_device_id(key: SealingPublicKey, server: str, user: str) -> DeviceId:
    """Return the EAS device id of a mailbox: 32 letters and digits, always the same, different per installation."""
    digest = hashlib.sha256(b"\0".join((b"relay device", key.raw, server.encode(), user.encode()))).digest()
    return DeviceId(base64.b32encode(digest).decode("ascii")[:32])


def _info(mailbox: MailboxId) -> bytes:
    return b"relay credential v1\0" + mailbox.encode()
