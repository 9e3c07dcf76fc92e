"""Invitations: an operator signs that a user's mailbox may be registered without a secret of that user.

Where the relay gets Kerberos tickets in the names of users, an app has nothing that would prove to the mail server who
its user is. So the operator signs (server, user, expiry) with a key that the relay does not have, and an MDM brings the
result to that user's phones. An invitation is a JSON Web Token [RFC 7519] with an Ed25519 signature [RFC 8037 3.1].
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
    """Checks invitations against the operator's public keys."""

    def __init__(self, keys: Sequence[Ed25519PublicKey]) -> None:
        """Any of `keys` may have signed: while the operator replaces a key, there are two."""
        self._keys = tuple(keys)

    @classmethod
    def load(cls, pem: bytes) -> "Invitations":
        """Load a PEM text of public keys; raises ValueError if one is no Ed25519 key, or there is none."""
        keys = [load_pem_public_key(found) for found in _PEM.findall(pem)]
        ed25519 = [key for key in keys if isinstance(key, Ed25519PublicKey)]
        if not ed25519 or len(ed25519) != len(keys):
            raise ValueError("not Ed25519 public keys")
        return cls(ed25519)

    def check(self, text: str, server: str, user: str, now: datetime | None) -> None:
        """Raise UnusableCredential unless an invitation is for this server and user and has not expired at `now`.

        `now` is None for an invitation that was valid when the app registered: it may have expired since.
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

        # `check` compares the expiry with the given time; the library would read the system clock.
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
    """The users of one server whose mailboxes the relay may watch with Kerberos tickets: those with an invitation."""

    server: str
    invitations: Invitations
    naming: Naming

    def check(self, credential: KerberosCredential, now: datetime | None) -> None:
        """Raise UnusableCredential unless the user of a credential is invited; `now` as for `Invitations.check`."""
        self.invitations.check(credential.invitation, self.server, credential.user, now)

    def principal(self, user: str) -> Principal:
        """Return the principal of a user at the KDC; raises UnusableCredential."""
        return self.naming.principal(user)


def invite(key: Ed25519PrivateKey, server: str, user: str, until: datetime) -> str:
    """Return a signed invitation; `user` is written as `relay.registration.identity.normalise` does."""
    import jwt

    claims = {"aud": AUDIENCE, "srv": server, "sub": user, "exp": int(until.timestamp())}
    return jwt.encode(claims, key, algorithm=ALGORITHM)


def generate() -> tuple[bytes, bytes]:
    """Make a key pair; return (private PEM, public PEM)."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def load_private(pem: bytes) -> Ed25519PrivateKey:
    """Return the operator's private key; raises ValueError if `pem` is no unencrypted Ed25519 key."""
    try:
        key = load_pem_private_key(pem, None)
    except TypeError as error:
        raise ValueError("encrypted") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an Ed25519 private key")  # noqa: TRY004 -- the fault is in the file
    return key
