"""Own invitations: an operator's signed word that a user's mailbox may be registered without a secret of that user.

Where tickets are got in the users' names, nothing that an app knows proves to a mail server whose app it is. So the
operator signs (server, user, until when) with a key that the relay does not have, and hands it to that user's phones.
An invitation is a JSON Web Token [RFC 7519] with an Ed25519 signature [RFC 8037 3.1].
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from eas_watcher.auth.credential import UnusableCredential
from eas_watcher.auth.negotiate import KerberosCredential, Naming, Principal

AUDIENCE: Final = "push-relay"
ALGORITHM: Final = "EdDSA"
LONGEST: Final = 2048  # characters; a user of 320 characters makes 700
_PEM: Final = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)


class Invitations:
    """Read invitations; only what one of the known keys signed counts."""

    def __init__(self, keys: Sequence[Ed25519PublicKey]) -> None:
        """Take the public keys; more than one while one takes the place of another."""
        self._keys = tuple(keys)

    @classmethod
    def load(cls, pem: bytes) -> "Invitations":
        """Read a PEM file of public keys; raises ValueError when one is no Ed25519 key, or there is none."""
        keys = [load_pem_public_key(found) for found in _PEM.findall(pem)]
        ed25519 = [key for key in keys if isinstance(key, Ed25519PublicKey)]
        if not ed25519 or len(ed25519) != len(keys):
            raise ValueError("not Ed25519 public keys")
        return cls(ed25519)

    def check(self, text: str, server: str, user: str, now: datetime | None) -> None:
        """Raise UnusableCredential unless an invitation is for this server and user, and not over `now`.

        None as the time: it may be over, for it was good when it was shown.
        """
        claims = self._claims(text)
        if claims.get("srv") != server or claims.get("sub") != user:
            raise UnusableCredential("is for another user or server")
        until = claims.get("exp")
        if isinstance(until, bool) or not isinstance(until, int):
            raise UnusableCredential("does not say until when it is good")
        if now is not None and until <= now.timestamp():
            raise UnusableCredential("has expired: ask for a new one")

    def _claims(self, text: str) -> dict[str, Any]:
        import jwt

        # The time is checked against the clock that was given, not against the library's.
        options: Any = {"verify_exp": False, "verify_iat": False, "verify_nbf": False}
        if len(text) <= LONGEST:
            for key in self._keys:
                try:
                    return jwt.decode(text, key, algorithms=[ALGORITHM], audience=AUDIENCE, options=options)
                except (jwt.InvalidTokenError, ValueError):
                    continue
        raise UnusableCredential("is no invitation of this relay's operator")


@dataclass(frozen=True, slots=True)
class InvitedUsers:
    """Hold whose mailboxes may be watched at one server: those whom its operator invites."""

    server: str
    invitations: Invitations
    naming: Naming

    def check(self, credential: KerberosCredential, now: datetime | None) -> None:
        """Raise UnusableCredential unless its user is invited; None as the time as for `Invitations.check`."""
        self.invitations.check(credential.invitation, self.server, credential.user, now)

    def principal(self, user: str) -> Principal:
        """Name a user to the KDC; raises UnusableCredential."""
        return self.naming.principal(user)


def invite(key: Ed25519PrivateKey, server: str, user: str, until: datetime) -> str:
    """Sign an invitation; `user` as `relay.registration.identity.normalise` writes it."""
    import jwt

    claims = {"aud": AUDIENCE, "srv": server, "sub": user, "exp": int(until.timestamp())}
    return jwt.encode(claims, key, algorithm=ALGORITHM)


def generate() -> tuple[bytes, bytes]:
    """Make a key pair; return (private PEM, public PEM)."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def load_private(pem: bytes) -> Ed25519PrivateKey:
    """Read the operator's key; raises ValueError when it is none."""
    try:
        key = load_pem_private_key(pem, None)
    except TypeError as error:
        raise ValueError("encrypted") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an Ed25519 private key")  # noqa: TRY004 -- the fault is in the file
    return key
