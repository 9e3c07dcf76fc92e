"""The proof that an app has the device of its registration: it returns what a challenge push brought. Pure.

A challenge has a nonce that only the push carries; the database has its hash. So nobody registers the phone of somebody
else whose device token he knows: he never sees the push.
"""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

NONCE: Final = 16
"""Random bytes of a nonce: too many to guess."""
LASTS: Final = timedelta(hours=1)
"""How long a nonce is good: as long as a provider keeps the push."""
WINDOW: Final = timedelta(hours=1)
MOST: Final = 5
"""Challenges of one device within WINDOW, of all registrations together: what a stranger's phone may get at most."""
MOST_OF_MAILBOX: Final = 30
"""Challenges of one mailbox within WINDOW: a device may have many device tokens, e.g. endpoints with another query."""

_NO_HASH: Final = bytes(32)
"""Compared with if there is no challenge, so that a guess takes the same time."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """The challenge that a registration was sent last."""

    nonce_hash: bytes | None
    """None: there is none, or it was answered."""
    issued_at: datetime | None


@dataclass(frozen=True, slots=True)
class Spent:
    """The challenges of one device, or of one mailbox, since a moment."""

    number: int
    since: datetime


def hash_nonce(nonce: str) -> bytes:
    """Return the SHA-256 of a nonce, 32 bytes."""
    return hashlib.sha256(nonce.encode("utf-8", "surrogatepass")).digest()


def is_answered(challenge: Challenge, nonce: str, now: datetime) -> bool:
    """Return True if a nonce is that of the challenge, and in time; compared in constant time."""
    stored = _NO_HASH if challenge.nonce_hash is None else challenge.nonce_hash
    same = hmac.compare_digest(hash_nonce(nonce), stored)
    # A challenge of the future was issued while a clock was wrong.
    in_time = challenge.issued_at is not None and abs(now - challenge.issued_at) <= LASTS
    return same and challenge.nonce_hash is not None and in_time


def spend(spent: Spent | None, now: datetime, most: int = MOST) -> Spent | float:
    """Return the challenges of a device or a mailbox with one more, or the seconds until there may be another."""
    if spent is None or abs(now - spent.since) > WINDOW:
        return Spent(1, now)
    if spent.number < most:
        return Spent(spent.number + 1, spent.since)
    return max(1.0, (spent.since + WINDOW - now).total_seconds())
