"""Certificates and keys for the TLS and the authentication of simulators and tests.

Those of `ThrowAwayCa` are no secrets: keys exist as long as their process, and certificates are valid for decades. The
CA of `relay sandbox` lasts (`lasting_ca`), since phones and simulators trust it: only its owner can read its key.
"""

import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from random import SystemRandom
from string import ascii_uppercase, digits
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from eas_watcher.transport.tls import client_context

BEGIN: Final = datetime(2020, 1, 1, tzinfo=UTC)
END: Final = datetime(2049, 12, 31, tzinfo=UTC)
"""The last year of UTCTime [RFC 5280 4.1.2.5]."""

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")

APPLE_LIMIT: Final = timedelta(days=397)
"""How long the sandbox's certificates are valid: Apple's platforms take 825 days from a CA that a user added, and 398
from others [Apple: Requirements for trusted certificates; About upcoming limits on trusted certificates]."""
CA_LIFE: Final = timedelta(days=3650)
"""How long the sandbox's CA is valid; Apple limits certificates of servers only."""
CLOCKS: Final = timedelta(days=1)
"""How far in the past validity begins: the clock of a phone may be behind."""
COMMON_NAME: Final = 64  # characters at most [RFC 5280 A.1]; phones read the names beside it
CA_FILE: Final = "ca.pem"
CA_KEY_FILE: Final = "ca.key"


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate is valid; aware."""

    begin: datetime = BEGIN
    end: datetime = END


class Ca:
    """A CA for servers and clients."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, ca_pem: bytes, validity: Validity) -> None:
        """Take its key, its certificate, and the validity of the certificates that it issues."""
        self._key = key
        self._name = x509.load_pem_x509_certificate(ca_pem).subject
        self._validity = validity
        self.ca_pem = ca_pem
        """The CA certificate."""

    def write_ca(self, path: Path) -> None:
        """Write the CA certificate as PEM, for the ca_file of settings."""
        path.write_bytes(self.ca_pem)

    def server_pem(self, *names: str) -> bytes:
        """Return a certificate for `names` and the loopback names, then its key, both PEM."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, (names or LOOPBACK)[0][:COMMON_NAME])])
        return self._issue(subject, ExtendedKeyUsageOID.SERVER_AUTH, (*names, *LOOPBACK))

    def client_pem(self, name: str) -> bytes:
        """Return a client certificate, then its key, both PEM; `name` is also its UID, where Apple puts the topic."""
        attributes = [x509.NameAttribute(NameOID.USER_ID, name), x509.NameAttribute(NameOID.COMMON_NAME, name)]
        return self._issue(x509.Name(attributes), ExtendedKeyUsageOID.CLIENT_AUTH, ())

    def server_context(self, *names: str, alpn: Sequence[str] = ()) -> ssl.SSLContext:
        """Return the TLS context of a server that asks for a client certificate of this CA but does not require it."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=self.ca_pem.decode())
        context.verify_mode = ssl.CERT_OPTIONAL
        with tempfile.NamedTemporaryFile() as file:  # the ssl module loads keys from files only
            file.write(self.server_pem(*names))
            file.flush()
            context.load_cert_chain(file.name)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return the TLS context of a client that trusts only this CA."""
        return client_context(ca_pem=self.ca_pem)

    def _issue(self, subject: x509.Name, purpose: x509.ObjectIdentifier, names: Sequence[str]) -> bytes:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject, self._name, key.public_key(), self._key.public_key(), self._validity)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if names:
            alternatives = x509.SubjectAlternativeName([_general_name(name) for name in dict.fromkeys(names)])
            builder = builder.add_extension(alternatives, critical=False)
        return builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM) + _pem(key)


class ThrowAwayCa(Ca):
    """A CA whose key exists only in this object; its certificates are valid for decades."""

    def __init__(self, name: str = "Throw-away CA") -> None:
        """Make the key; `name` is the CA's common name."""
        key = ec.generate_private_key(ec.SECP256R1())
        super().__init__(key, _ca_pem(name, key, Validity()), Validity())


def lasting_ca(folder: Path, name: str, now: datetime) -> Ca:
    """Return the CA whose key and certificate are in `folder`; make them if they are missing, broken or about to end.

    Its certificates are valid for as long as Apple's platforms accept.
    """
    issued = Validity(now - CLOCKS, now - CLOCKS + APPLE_LIMIT)
    kept = _kept_ca(folder, issued)
    if kept is not None:
        return kept
    key = ec.generate_private_key(ec.SECP256R1())
    pem = _ca_pem(name, key, Validity(now - CLOCKS, now - CLOCKS + CA_LIFE))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_secret(folder / CA_KEY_FILE, _pem(key))
    (folder / CA_FILE).write_bytes(pem)
    return Ca(key, pem, issued)


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_bytes(content)


def _kept_ca(folder: Path, issued: Validity) -> Ca | None:
    """Return the CA of a folder; None: there is none that can sign certificates of this validity."""
    try:
        key = load_pem_private_key((folder / CA_KEY_FILE).read_bytes(), None)
        pem = (folder / CA_FILE).read_bytes()
        certificate = x509.load_pem_x509_certificate(pem)
    except (OSError, ValueError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        return None
    return None if certificate.not_valid_after_utc < issued.end else Ca(key, pem, issued)


def _ca_pem(name: str, key: ec.EllipticCurvePrivateKey, validity: Validity) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, subject, key.public_key(), key.public_key(), validity)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


def make_apns_key() -> tuple[str, str]:
    """Return a key as Apple issues it in a .p8 file: (PEM text of a P-256 key, its id of ten letters and digits)."""
    key_id = "".join(SystemRandom().choices(ascii_uppercase + digits, k=10))
    return _pem(ec.generate_private_key(ec.SECP256R1())).decode(), key_id


def public_pem(private_pem: str) -> str:
    """Return the public half of a private key, PEM text."""
    return _public_pem(load_pem_private_key(private_pem.encode(), None).public_key())


def make_rsa_key() -> rsa.RSAPrivateKey:
    """Return a new key of the kind that Google's service accounts have."""
    return rsa.generate_private_key(65537, 2048)


def make_service_account(
    project: str, token_uri: str, key: rsa.RSAPrivateKey | None = None
) -> tuple[dict[str, str], str]:
    """Return a service account as Google issues it: (its JSON document, PEM text of its public key).

    Without `key` it has a new one.
    """
    key = key or make_rsa_key()
    document = {
        "type": "service_account",
        "project_id": project,
        "private_key_id": SystemRandom().randbytes(20).hex(),
        "private_key": _pem(key).decode(),
        "client_email": f"push@{project}.example.com",
        "client_id": "1",
        "token_uri": token_uri,
    }
    return document, _public_pem(key.public_key())


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    validity: Validity,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), validity.begin, validity.end)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key)
    # Python 3.13 verifies strictly and refuses certificates that lack either identifier [RFC 5280 4.2.1].
    builder = builder.add_extension(authority, critical=False)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _public_pem(key: PublicKeyTypes) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
