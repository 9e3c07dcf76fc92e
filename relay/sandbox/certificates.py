"""Throw-away certificates and keys for the TLS and the authentication of simulators and tests.

None of them is a secret: keys exist as long as their process, and certificates are valid for decades.
"""

import ssl
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
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


class ThrowAwayCa:
    """A CA for servers and clients, whose key exists only in this object."""

    def __init__(self, name: str = "Throw-away CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = _usage(signs_certificates=True)
        builder = _builder(self._name, self._name, self._key.public_key(), self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.ca_pem: bytes = (
            builder.add_extension(usage, critical=True).sign(self._key, SHA256()).public_bytes(Encoding.PEM)
        )

    def write_ca(self, path: Path) -> None:
        """Write the CA certificate as PEM, for the ca_file of settings."""
        path.write_bytes(self.ca_pem)

    def server_pem(self, *names: str) -> bytes:
        """Return a certificate for `names` and the loopback names, then its key, both PEM."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0] if names else LOOPBACK[0])])
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
        builder = _builder(subject, self._name, key.public_key(), self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if names:
            alternatives = x509.SubjectAlternativeName([_general_name(name) for name in dict.fromkeys(names)])
            builder = builder.add_extension(alternatives, critical=False)
        return builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM) + _pem(key)


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
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, issuer_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), BEGIN, END)
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
