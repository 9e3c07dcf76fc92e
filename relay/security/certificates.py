"""Reads PEM certificates and private keys, and checks their kind."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from warnings import catch_warnings, simplefilter

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtensionOID

SHORTEST_RSA: Final = 1024  # bits


@dataclass(frozen=True, slots=True)
class Certificate:
    """The validity and the public key of a certificate."""

    valid_from: datetime
    valid_until: datetime
    public_key: bytes
    """DER, to compare with the one of a private key."""


def read_certificate(pem: bytes) -> Certificate:
    """Return the first certificate of a PEM text; raises ValueError if there is none."""
    first = x509.load_pem_x509_certificates(pem)[0]
    try:
        public_key = first.public_key()
    except UnsupportedAlgorithm as error:
        raise ValueError("the certificate's key is of an unknown kind") from error
    der = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Certificate(first.not_valid_before_utc, first.not_valid_after_utc, der)


def public_keys(pem: bytes) -> frozenset[bytes]:
    """Return the public keys of the certificates of a PEM text, as DER, but for keys of unknown kinds.

    Raises ValueError if there is no certificate.
    """
    found = set()
    for each in x509.load_pem_x509_certificates(pem):
        with suppress(ValueError, UnsupportedAlgorithm):
            found.add(each.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return frozenset(found)


def lone_issuer(pem: bytes) -> str | None:
    """Return the issuer of a certificate that stands alone and says where its issuer's certificate is to be had.

    CAs that sign below a root write that into certificates; a chain should hold them. None: nothing is amiss.
    """
    first, *others = x509.load_pem_x509_certificates(pem)
    if others or first.issuer == first.subject:
        return None
    try:
        access = first.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return None
    if all(each.access_method != AuthorityInformationAccessOID.CA_ISSUERS for each in access):
        return None
    return first.issuer.rfc4514_string()


def ca_flaws(pem: bytes) -> list[str]:
    """Return, for the CAs of a PEM text, what strict software such as Python from 3.13 on refuses them for [RFC 5280].

    The chain of such a CA is sound; only the form of its certificate is not as RFC 5280 4.2 wants it.
    """
    try:
        with catch_warnings():
            simplefilter("ignore", CryptographyDeprecationWarning)  # of what the flaws name themselves
            return [flaw for certificate in x509.load_pem_x509_certificates(pem) for flaw in _flaws(certificate)]
    except ValueError:  # an extension that cannot be read; OpenSSL judges the file
        return []


def _flaws(certificate: x509.Certificate) -> Iterator[str]:
    extensions = {extension.oid: extension for extension in certificate.extensions}
    constraints = extensions.get(ExtensionOID.BASIC_CONSTRAINTS)
    if constraints is None or not constraints.value.ca:
        return
    if not constraints.critical:
        yield "basic constraints not critical"
    if ExtensionOID.KEY_USAGE not in extensions:
        yield "no key usage"
    if ExtensionOID.SUBJECT_KEY_IDENTIFIER not in extensions:
        yield "no subject key identifier"
    if certificate.serial_number <= 0:
        yield "serial number not positive"
    if certificate.issuer != certificate.subject and ExtensionOID.AUTHORITY_KEY_IDENTIFIER not in extensions:
        yield "no authority key identifier"


def read_expiry(file: Path) -> datetime:
    """Return when the first certificate of a file expires; raises ValueError or OSError."""
    return read_certificate(file.read_bytes()).valid_until


def public_key_of(pem: bytes) -> bytes:
    """Return the public key of an unencrypted private key, as DER; raises ValueError."""
    return _load(pem).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def is_p256(pem: bytes) -> bool:
    """Return whether `pem` is an unencrypted ECDSA P-256 private key, as in the .p8 files of Apple."""
    try:
        key = _load(pem)
    except ValueError:
        return False
    return isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1)


def read_rsa_key(pem: bytes) -> RSAPrivateKey:
    """Read an unencrypted RSA private key that signs RS256, the kind of Google's service accounts; raises ValueError.

    The check of a key of 2,048 bits takes 28 ms of a core: keep the result.
    """
    key = _load(pem)
    if not isinstance(key, RSAPrivateKey) or key.key_size < SHORTEST_RSA:
        raise ValueError("the key is no RSA key, or too short a one")
    return key


def _load(pem: bytes) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(pem, None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("the key is encrypted or of an unknown kind") from error
