"""Client certificates: the credential, its expiry, and the alerts with which a server's TLS refuses it.

A certificate identifies the client while the connection is made [RFC 8446 4.4.2], so requests carry no credential;
`eas_watcher.transport.client_certificate` opens such connections.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID

from eas_watcher.auth.credential import UnusableCredential
from eas_watcher.errors import CredentialVoid
from eas_watcher.reasons import Reason

USAGES: Final = frozenset({ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE})
LONGEST_CHAIN: Final = 8  # certificates
REFUSALS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ALERT_BAD_CERTIFICATE": "is broken",
        "ALERT_UNSUPPORTED_CERTIFICATE": "is of a kind it does not take",
        "ALERT_CERTIFICATE_REVOKED": "is revoked",
        "ALERT_CERTIFICATE_EXPIRED": "has expired",
        "ALERT_CERTIFICATE_UNKNOWN": "is not good",
        "ALERT_UNKNOWN_CA": "is of a CA that it does not trust",
        "ALERT_ACCESS_DENIED": "has no access",
        "ALERT_CERTIFICATE_REQUIRED": "is missing",
    }
)
"""OpenSSL's names of the alerts with which a server refuses the client certificate [RFC 8446 6.2] -> our words."""


@dataclass(frozen=True, slots=True)
class CertificateCredential:
    """A user's certificate with its chain, and its key, both PEM texts."""

    user: str
    chain: str = field(repr=False)
    key: str = field(repr=False)

    def authorization(self) -> None:
        """Return None: the connection identifies the user."""
        return

    @property
    def valid_until(self) -> datetime:
        """When the user's certificate expires."""
        return x509.load_pem_x509_certificate(self.chain.encode()).not_valid_after_utc

    def check_validity(self, now: datetime) -> None:
        """Raise CredentialVoid for an expired certificate, without asking a server."""
        ended = self.valid_until
        if ended <= now:
            raise CredentialVoid(f"the client certificate expired on {ended:%Y-%m-%d}", Reason.CERTIFICATE_EXPIRED)


def read_pkcs12(user: str, content: bytes, passphrase: str, now: datetime) -> CertificateCredential:
    """Read a PKCS #12 file [RFC 7292]; raises UnusableCredential.

    The file sets the rounds of its key derivation, so this may take any time: never call it in the event loop.
    """
    try:
        found = load_pkcs12(content, passphrase.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UnusableCredential("is no PKCS #12 file that opens with this passphrase") from error
    if found.cert is None or found.key is None:
        raise UnusableCredential("the PKCS #12 file lacks the certificate or its key")
    chain = [found.cert.certificate, *(other.certificate for other in found.additional_certs)]
    key = found.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return _checked(user, chain, key, now)


def read_pem(user: str, content: str, passphrase: str, now: datetime) -> CertificateCredential:
    """Read PEM with the user's certificate first, its chain, and its key; raises UnusableCredential.

    As for `read_pkcs12`, an encrypted key may take any time.
    """
    text = content.encode()
    try:
        chain = x509.load_pem_x509_certificates(text)
        key = load_pem_private_key(text, passphrase.encode() or None)
        plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UnusableCredential("is no PEM with a certificate and a key that opens with this passphrase") from error
    return _checked(user, chain, plain, now)


def refusal_in(text: str) -> str | None:
    """Return why the server's TLS refuses the certificate, from OpenSSL's text; None if the text does not say so."""
    return next((why for alert, why in REFUSALS.items() if alert in text.upper().replace(" ", "_")), None)


def _checked(user: str, chain: list[x509.Certificate], key: bytes, now: datetime) -> CertificateCredential:
    """Return the credential; raises UnusableCredential if no server would accept it."""
    own = chain[0]
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    try:
        matching = own.public_key().public_bytes(*form) == load_pem_private_key(key, None).public_key().public_bytes(
            *form
        )
        usages = own.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        usages = x509.ExtendedKeyUsage(USAGES)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnusableCredential("the certificate's key is of an unknown kind") from error
    if not matching:
        raise UnusableCredential("the key does not belong to the first certificate")
    if not USAGES & set(usages):
        raise UnusableCredential("the certificate is not for client authentication")
    if own.not_valid_after_utc <= now:
        raise UnusableCredential(f"the certificate expired on {own.not_valid_after_utc:%Y-%m-%d}")
    if len(chain) > LONGEST_CHAIN:
        raise UnusableCredential(f"the chain has more than {LONGEST_CHAIN} certificates")
    pem = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)
    return CertificateCredential(user, pem.decode("ascii"), key.decode("ascii"))
