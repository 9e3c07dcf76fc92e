"""The tokens of the admin API: each has a name, which the audit log shows, and scopes. Pure."""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class Scope(StrEnum):
    """What a token opens; each includes nothing of the others."""

    READ = "read"
    """Lists, single mailboxes and registrations, maintenance, the audit log."""
    ACT = "act"
    """Retry, pause, resume, test pushes, maintenance."""
    FORGET = "forget"
    """Forget and export users."""


@dataclass(frozen=True, slots=True)
class AdminToken:
    """One token, of which only the digest is kept."""

    name: str
    digest: bytes = field(repr=False)
    """SHA-256 of the token, 32 bytes: it is random, so nobody guesses it from the digest."""
    scopes: frozenset[Scope]


def digest_of(token: str) -> bytes:
    """Return the digest of a token; it may have bytes that are no UTF-8, as a stranger's header may."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def find(tokens: Iterable[AdminToken], shown: str) -> AdminToken | None:
    """Return the token that was shown; how long this takes tells nothing of the tokens."""
    digest = digest_of(shown)
    found = None
    for token in tokens:
        if hmac.compare_digest(token.digest, digest):
            found = token
    return found
