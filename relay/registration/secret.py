"""Access to one registration: its id and the secret that only the app has; the store has the hash alone.

The relay makes both, or the app does: then a request whose answer was lost can be sent again and makes no second
registration. An `Idempotency-Key` is the same in a POST: id and secret are derived from it. Pure.
"""

import hashlib
import hmac
import json
import math
import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field, fields
from typing import Final

from relay.domain.model import ISSUED_ID, RegistrationId
from relay.registration.errors import InvalidRequest
from relay.registration.requests import Login

BITS: Final = 128
"""Of a secret that an app makes: more than anybody guesses."""
DISTINCT: Final = 8
"""Different characters of such a text at least; 32 random hexadecimal digits have fewer once in 26 million times."""
_KEY: Final = re.compile(r'"?([A-Za-z0-9._~+/=:-]{1,255})"?', re.ASCII)
_ALPHABETS: Final = (
    (re.compile(r"[0-9]*", re.ASCII), 10),
    (re.compile(r"[0-9A-F]*|[0-9a-f]*", re.ASCII), 16),
    (re.compile(r"[0-9A-Z]*|[0-9a-z]*", re.ASCII), 36),
)
_LARGEST_ALPHABET: Final = 64

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


def check_identity(access: Access) -> None:
    """Raise InvalidRequest unless an id and a secret that an app made can be random texts of BITS bits."""
    faults = []
    if not ISSUED_ID.fullmatch(access.registration_id) or not strong(access.registration_id):
        faults.append(("id", "must be 18 random bytes in base64url: 24 letters, digits, - and _"))
    if not strong(access.secret):
        faults.append(("Authorization", f"the secret {_WEAK}"))
    elif access.secret == access.registration_id:
        faults.append(("Authorization", "the secret must not be the id, which others see"))
    if faults:
        raise InvalidRequest(faults)


_WEAK: Final = f"must be at least {BITS} random bits: a UUID, 32 hexadecimal digits, or 22 characters of base64url"


def strong(text: str) -> bool:
    """Return True if a text is long enough to be BITS random bits in the letters it has; hyphens do not count."""
    letters = text.replace("-", "") or text
    size = next((size for alphabet, size in _ALPHABETS if alphabet.fullmatch(letters)), _LARGEST_ALPHABET)
    counted = letters if size < _LARGEST_ALPHABET else text
    return len(counted) * math.log2(size) >= BITS and len(set(letters)) >= DISTINCT


def derive(header: str, login: Login) -> Access:
    """Return the id and the secret that a POST with this `Idempotency-Key` makes; raises InvalidRequest.

    The secret depends on the credential, too: who reads the key in some log cannot open the registration with it.
    """
    found = _KEY.fullmatch(header.strip())
    if found is None or not strong(found[1]):
        raise InvalidRequest([("Idempotency-Key", _WEAK)])
    key = found[1].encode()
    id_ = hmac.digest(key, b"push-relay registration id", "sha256")[:18]
    secret = hmac.digest(key, b"push-relay registration secret\0" + _written(login), "sha256")
    return Access(RegistrationId(_base64url(id_)), _base64url(secret))


def proof(secret: str, login: Login) -> bytes:
    """Return what shows that a credential comes again, 32 bytes; without the secret nobody can try passwords on it."""
    return hmac.digest(secret.encode("utf-8", "surrogatepass"), b"push-relay credential\0" + _written(login), "sha256")


def _written(login: Login) -> bytes:
    """Return a login as bytes that are the same for the same credential, whatever the spelling of its user."""
    parts = {each.name: getattr(login, each.name) for each in fields(login) if each.name != "user"}
    texts = {name: value.hex() if isinstance(value, bytes) else value for name, value in parts.items()}
    return json.dumps([type(login).__name__, texts], sort_keys=True).encode()


def _base64url(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode("ascii")
