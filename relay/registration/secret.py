"""Own the key to one registration: its id and the secret that only the app holds; the store keeps the hash alone."""

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from relay.domain.model import RegistrationId

_NOBODY: Final = bytes(32)
"""Compared with when there is no such registration, so that a guess takes the same way through the code."""


@dataclass(frozen=True, slots=True)
class Access:
    """Hold what a caller shows to reach a registration."""

    registration_id: RegistrationId
    secret: str = field(repr=False)


def hash_secret(secret: str) -> bytes:
    """Hash a secret with SHA-256, 32 bytes; it is random and long, so it needs no salt and no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def grants(access: Access, stored: bytes | None) -> bool:
    """Compare a shown secret with the stored hash in constant time; None, no such registration, grants nothing."""
    same = hmac.compare_digest(hash_secret(access.secret), _NOBODY if stored is None else stored)
    return same and stored is not None
