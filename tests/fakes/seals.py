"""Seals as earlier versions made them."""

from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from relay.security import credentials
from relay.security.credentials import StoredCredential
from relay.security.sealing import Owner, SealingPublicKey

SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def old_seal(public: SealingPublicKey, owner: Owner, credential: StoredCredential) -> bytes:
    """Seal a credential bound to its mailbox's id alone, not padded, without the id of the key."""
    key = X25519PublicKey.from_public_bytes(public.raw)
    return b"\x01" + SUITE.encrypt(credentials.write(credential), key, b"relay credential v1\0" + owner.id.encode())
