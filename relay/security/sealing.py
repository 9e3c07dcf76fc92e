"""The encryption of stored credentials: the api role seals with the public key, only the watch role can open.

HPKE [RFC 9180] in base mode, X25519 with HKDF-SHA256 and ChaCha20-Poly1305. A seal is

    1 byte    02: the form of what follows
    8 bytes   the id of the public key that sealed: which private key opens
    the rest  HPKE's encapsulated key and ciphertext; the plaintext is JSON, filled with blanks to a multiple of `BLOCK`

Each seal is bound to its mailbox, the mailbox's server and the mailbox's user, so a sealed credential does not open in
another row, nor after somebody has written another server or user into its row. Seals of the form 01, of earlier
versions, were bound to the mailbox alone: `upgraded` takes them once, at the upgrade, and `open` never.
"""

import base64
import hashlib
import hmac
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
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
from relay.domain.tries import account_key
from relay.security import credentials
from relay.security.credentials import StoredCredential

FORM: Final = b"\x02"  # first byte of every seal
OLD_FORM: Final = b"\x01"  # of seals that are bound to their mailbox alone, unpadded, without the id of their key
BLOCK: Final = 512  # bytes; with a user of 60 characters, all passwords up to 400 characters make one block
OTHER_KEY: Final = "the stored credential does not open with this sealing key: restore the key, or register again"
MISPLACED: Final = "the stored credential was sealed for another mailbox, server or user: register again"
OLD: Final = "the stored credential has the form of an older version: upgrade all processes, then register again"
_ID: Final = slice(1, 9)
_HEADER: Final = 9  # bytes: form and key id
_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


class Owner(Protocol):
    """The mailbox that a credential is sealed for."""

    @property
    def id(self) -> MailboxId:
        """The id of the mailbox."""

    @property
    def server(self) -> str:
        """The name of the mailbox's server."""

    @property
    def user(self) -> str:
        """The user whose mailbox it is."""


class SealingPublicKey:
    """Seals credentials; the api role has only this key."""

    def __init__(self, key: X25519PublicKey) -> None:
        """Use `load` for a file."""
        self._key = key
        self.raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        """The 32 bytes of the key."""
        self.id = hashlib.sha256(b"relay sealing key\0" + self.raw).digest()[:8]
        """Names the key in each of its seals."""

    @property
    def name(self) -> str:
        """The id of the key as people read it: 16 hex digits."""
        return self.id.hex()

    @property
    def pem(self) -> bytes:
        """The key as a PEM text."""
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def head(self) -> bytes:
        """The first bytes of every seal for this key."""
        return FORM + self.id

    @classmethod
    def load(cls, path: Path) -> "SealingPublicKey":
        """Load a PEM file; raises ValueError if it holds no X25519 public key."""
        return cls.read(path.read_bytes())

    @classmethod
    def read(cls, pem: bytes) -> "SealingPublicKey":
        """Read a PEM text; raises ValueError if it holds no X25519 public key."""
        try:
            key = load_pem_public_key(pem)
        except UnsupportedAlgorithm as error:
            raise ValueError("the key is of an unknown kind") from error
        if not isinstance(key, X25519PublicKey):
            raise ValueError("not an X25519 public key")  # noqa: TRY004 -- the fault is in the file
        return cls(key)

    def seal(self, owner: Owner, credential: StoredCredential) -> bytes:
        """Return a credential, sealed for the watch role and bound to the mailbox that it is for."""
        plain = credentials.write(credential)
        padded = plain.ljust(-(-len(plain) // BLOCK) * BLOCK)
        header = self.head
        return header + _SUITE.encrypt(padded, self._key, _info(header, owner))


class SealingPrivateKey:
    """Opens sealed credentials; only the watch role has this key, and the former ones while it is being replaced."""

    def __init__(self, key: X25519PrivateKey, former: Sequence[X25519PrivateKey] = ()) -> None:
        """Use `load` for files; `former` keys open as well, but nothing is sealed for them any more."""
        self._public = SealingPublicKey(key.public_key())
        self._keys = {SealingPublicKey(each.public_key()).id: each for each in (key, *former)}

    @property
    def names(self) -> frozenset[str]:
        """The ids of the keys whose seals this opens, as people read them."""
        return frozenset(id_.hex() for id_ in self._keys)

    @classmethod
    def load(cls, path: Path, *former: Path) -> "SealingPrivateKey":
        """Load a PEM file, and those of former keys; raises ValueError if one holds no X25519 private key."""
        return cls(read_private(path.read_bytes()), [read_private(each.read_bytes()) for each in former])

    @property
    def ids(self) -> frozenset[bytes]:
        """The ids of the keys whose seals this opens."""
        return frozenset(self._keys)

    def public_key(self) -> SealingPublicKey:
        """Return the public half, which seals for this key."""
        return self._public

    def open(self, owner: Owner, sealed: bytes) -> StoredCredential:
        """Return the credential in a seal; raises SealBroken.

        That is for an unknown key, another mailbox, server or user, for changed bytes and for the old form.
        """
        if sealed[:1] != FORM:
            raise SealBroken(OLD)
        key = self._keys.get(sealed[_ID])
        if key is None:
            raise SealBroken(OTHER_KEY)
        return _opened(key, sealed[_HEADER:], _info(sealed[:_HEADER], owner), owner)

    def seal_again(self, owner: Owner, credential: StoredCredential, before: bytes) -> bytes:
        """Return a credential that follows another one, sealed for the same key as that, or for the present one.

        Every process that watches the mailbox can open that key. Seals get to the present key all at once, when all
        processes have it.
        """
        key = self._keys.get(before[_ID])
        return (self._public if key is None else SealingPublicKey(key.public_key())).seal(owner, credential)

    def renewed(self, owner: Owner, sealed: bytes) -> bytes | None:
        """Return a credential sealed for the present key, if its seal is for another one that opens it, else None."""
        if sealed[:_HEADER] == self._public.head:
            return None
        try:
            return self._public.seal(owner, self.open(owner, sealed))
        except SealBroken:
            return None

    def upgraded(self, owner: Owner, sealed: bytes) -> bytes | None:
        """Return a credential sealed again if its seal is of the old form and opens, else None."""
        if not is_old(sealed):
            return None
        try:
            return self._public.seal(owner, self._open_old(owner, sealed))
        except SealBroken:
            return None

    def _open_old(self, owner: Owner, sealed: bytes) -> StoredCredential:
        for key in self._keys.values():
            try:
                return _opened(key, sealed[1:], b"relay credential v1\0" + owner.id.encode(), owner)
            except SealBroken:
                continue
        raise SealBroken(OTHER_KEY)


class Foreign(NamedTuple):
    """Credentials that are sealed for keys which are not here."""

    number: int
    keys: tuple[str, ...]
    """The names of these keys, unless all seals are of the old form."""


def foreign(heads: Mapping[bytes, int], keys: Collection[bytes]) -> Foreign | None:
    """Return the credentials that are sealed for keys other than `keys`, if none is for one of these; None: no others.

    `heads` has the number of seals by their first bytes. Seals of the old form do not name their key: they count as
    foreign without any key.
    """
    ours = sum(count for head, count in heads.items() if head[_ID] in keys or (keys and is_old(head)))
    if ours or not heads:
        return None
    return Foreign(sum(heads.values()), tuple(sorted({head[_ID].hex() for head in heads if not is_old(head)})))


def is_old(sealed: bytes) -> bool:
    """Return whether a seal has the form of earlier versions, which is taken once, at the upgrade."""
    return sealed[:1] == OLD_FORM


def _opened(key: X25519PrivateKey, ciphertext: bytes, info: bytes, owner: Owner) -> StoredCredential:
    try:
        credential = credentials.read(_SUITE.decrypt(ciphertext, key, info))
    except (InvalidTag, ValueError, KeyError, TypeError, EasError) as error:
        raise SealBroken(MISPLACED) from error
    if credential.user != owner.user:
        raise SealBroken(MISPLACED)
    return credential


def read_private(pem: bytes) -> X25519PrivateKey:
    """Return the private key in a PEM text; raises ValueError if that is no unencrypted X25519 key."""
    try:
        key = load_pem_private_key(pem, None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("the key is encrypted or of an unknown kind") from error
    if not isinstance(key, X25519PrivateKey):
        raise ValueError("not an X25519 private key")  # noqa: TRY004 -- the fault is in the file
    return key


def generate() -> tuple[bytes, bytes]:
    """Make a key pair; return (private PEM, public PEM)."""
    key = X25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def derive_device_id(key: SealingPublicKey, server: str, user: str) -> DeviceId:
    """Return the EAS device id of a mailbox: 32 letters and digits, always the same, different per installation."""
    digest = hashlib.sha256(b"\0".join((b"relay device", key.raw, server.encode(), user.encode()))).digest()
    return DeviceId(base64.b32encode(digest).decode("ascii")[:32])


def derive_account(key: SealingPublicKey, user: str) -> str:
    """Return the keyed hash that stands for a user, in any spelling, where the name itself must not be kept.

    Only who has the public key can compare it with a name: it is neither in the database nor in a log.
    """
    return hmac.digest(b"relay account\0" + key.raw, account_key(user).encode(), "sha256").hex()[:32]


def _info(header: bytes, owner: Owner) -> bytes:
    """Return what a seal is bound to: no two owners have the same."""
    fields = (part.encode() for part in (owner.id, owner.server, owner.user))
    return b"relay credential v2\0" + header + b"".join(len(each).to_bytes(4) + each for each in fields)
