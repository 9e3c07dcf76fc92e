"""Access to one registration: its id and the secret that only the app has; the store has the hash alone."""

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from relay.domain.model import RegistrationId

_NO_HASH: Final = bytes(32)
"""Compared with if there is no such registration, so that a guess takes the same time."""


@dataclass(frozen=True, slots=True)
class Access:
    """The id and the secret that a caller sends."""

    registration_id: RegistrationId
    secret: str = field(repr=False)


def hash_secret(secret: str) -> bytes:
    """Return the SHA-256 of a secret, 32 bytes; a long random secret needs no salt and no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def grants(access: Access, stored: bytes | None) -> bool:
    """Return True if a secret has the stored hash, compared in constant time; None: there is no such registration."""
    same = hmac.compare_digest(hash_secret(access.secret), _NO_HASH if stored is None else stored)
    return same and stored is not None
