"""Own the reading of PEM certificates and keys: whether they are what they should be, and until when."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

SHORTEST_RSA: Final = 1024  # bits


@dataclass(frozen=True, slots=True)
class Certificate:
    """Hold what matters of a certificate that stands first in a PEM file."""

    valid_from: datetime
    valid_until: datetime
    public_key: bytes
    """DER, to compare with a key's."""


def read_certificate(pem: bytes) -> Certificate:
    """Read the first certificate; raises ValueError when there is none."""
    first = x509.load_pem_x509_certificates(pem)[0]
    try:
        public_key = first.public_key()
    except UnsupportedAlgorithm as error:
        raise ValueError("the certificate's key is of an unknown kind") from error
    der = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Certificate(first.not_valid_before_utc, first.not_valid_after_utc, der)


def read_expiry(file: Path) -> datetime:
    """Tell when the first certificate of a file ends; raises ValueError or OSError."""
    return read_certificate(file.read_bytes()).valid_until


def public_key_of(pem: bytes) -> bytes:
    """Read an unencrypted private key and return its public key as DER; raises ValueError."""
    return _load(pem).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def is_p256(pem: bytes) -> bool:
    """Tell whether `pem` is an unencrypted ECDSA P-256 private key, the kind that Apple's .p8 files hold."""
    try:
        key = _load(pem)
    except ValueError:
        return False
    return isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1)


def is_rsa(pem: bytes) -> bool:
    """Tell whether `pem` is an unencrypted RSA private key that signs RS256, the kind of Google's service accounts."""
    try:
        key = _load(pem)
    except ValueError:
        return False
    return isinstance(key, RSAPrivateKey) and key.key_size >= SHORTEST_RSA


def _load(pem: bytes) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(pem, None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("the key is encrypted or of an unknown kind") from error
