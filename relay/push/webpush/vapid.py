"""VAPID: the key that identifies the relay to push services, and the token that proves it to one service [RFC 8292]."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from relay.domain.subscription import base64url
from relay.push.webpush.encryption import point

LIFE: Final = timedelta(hours=12)
"""How long a token is valid: at most 24 hours [RFC 8292 2], less because the clocks of two hosts differ."""
RENEWAL: Final = timedelta(hours=6)
"""Age at which a token is replaced."""


def make_key() -> bytes:
    """Return a new key, PEM."""
    key = generate_private_key(SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read_key(file: Path) -> bytes:
    """Return the content of a key file, PEM; raises OSError, and ValueError when it holds no ECDSA P-256 key."""
    pem = file.read_bytes()
    _load(pem)
    return pem


def public_key(pem: bytes) -> str:
    """Return the public key as apps pass it to a push service: 65 bytes in base64url. Raises ValueError."""
    return base64url(point(_load(pem).public_key()))


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    made_at: datetime


class Vapid:
    """The tokens of one key, one for each push service; a token is used until RENEWAL."""

    def __init__(self, pem: bytes, subject: str) -> None:
        """Take an ECDSA P-256 key as PEM, and where a push service's operator may ask (mailto: or https:).

        Raises ValueError when the key is of another kind.
        """
        self._key = _load(pem)
        self._public_key = public_key(pem)
        self._subject = subject
        self._tokens: dict[str, _Token] = {}

    def headers(self, service: str, now: datetime) -> Mapping[str, str]:
        """Return the header that proves the key to a push service, named as in Subscription.service.

        There are as many tokens as push services, which the settings list.
        """
        import jwt

        token = self._tokens.get(service)
        if token is None or not token.made_at <= now < token.made_at + RENEWAL:
            claims = {"aud": f"https://{service}", "exp": int((now + LIFE).timestamp()), "sub": self._subject}
            signed = jwt.encode(claims, self._key, "ES256")
            token = self._tokens[service] = _Token(f"vapid t={signed}, k={self._public_key}", now)
        return {"Authorization": token.header}

    def forget(self, service: str) -> None:
        """Drop the token of a service that refused it; the next request gets a new one."""
        self._tokens.pop(service, None)


def _load(pem: bytes) -> EllipticCurvePrivateKey:
    wrong = "holds no ECDSA P-256 key that opens without a password"
    try:
        key = load_pem_private_key(pem, None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(wrong) from error
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise ValueError(wrong)  # noqa: TRY004 -- the text is wrong, no type
    return key
