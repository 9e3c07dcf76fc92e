"""Certificate chains with one flaw each, and TLS handshakes in memory."""

import ssl
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

HOST = "mail.example.com"
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass
class Authority:
    """A CA; each argument but the name is a property of its certificate."""

    name: str = "In-house CA"
    key: Key = field(default_factory=new_key)
    critical: bool = True
    key_usage: bool = True
    subject_id: bool = True
    authority_id: bool = True
    issuer: "Authority | None" = None
    days: tuple[int, int] = (-10, 3650)
    only_for: str = ""
    """The domain of the names that it may sign for; empty: all."""

    def __post_init__(self) -> None:
        signer = self.issuer or self
        builder = _builder(self.name, signer.name, self.key, self.days)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=self.critical)
        if self.key_usage:
            builder = builder.add_extension(_signs(), critical=True)
        if self.subject_id:
            builder = builder.add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False
            )
        if self.only_for:
            builder = builder.add_extension(x509.NameConstraints([x509.DNSName(self.only_for)], None), critical=True)
        if self.authority_id and self.issuer is not None:
            builder = builder.add_extension(_authority_id(signer), critical=False)
        self.pem = builder.sign(signer.key, SHA256()).public_bytes(Encoding.PEM)

    def server(
        self,
        names: Iterable[str] = (HOST,),
        *,
        key: Key | None = None,
        days: tuple[int, int] = (-10, 90),
        authority_id: bool = True,
        purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
        chain: bytes = b"",
        issuer_at: str = "",
    ) -> bytes:
        """Return a server's certificate, its chain and its key as PEM; `issuer_at` says where its CA is to be had."""
        key = key or new_key()
        builder = _builder("server", self.name, key, days)
        builder = builder.add_extension(x509.SubjectAlternativeName([*map(_name, names)]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if authority_id:
            builder = builder.add_extension(_authority_id(self), critical=False)
        if issuer_at:
            place = x509.UniformResourceIdentifier(issuer_at)
            access = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, place)
            builder = builder.add_extension(x509.AuthorityInformationAccess([access]), critical=False)
        signed = builder.sign(self.key, SHA256()).public_bytes(Encoding.PEM)
        return signed + chain + _pem(key)


def self_signed() -> bytes:
    """Return a server's certificate that no CA signed, and its key."""
    key = new_key()
    builder = _builder(HOST, HOST, key, (-10, 90))
    builder = builder.add_extension(x509.SubjectAlternativeName([_name(HOST)]), critical=False)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM) + _pem(key)


def serving_context(pem: bytes) -> ssl.SSLContext:
    """Return the context of a server that shows a chain, however weak."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with tempfile.NamedTemporaryFile() as file:  # the ssl module loads keys from files only
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def shake(server: ssl.SSLContext, client: ssl.SSLContext, name: str = HOST) -> str:
    """Run a TLS handshake in memory; return its version, or raise what the client raises."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving, asking = server.wrap_bio(up, down, server_side=True), client.wrap_bio(down, up, server_hostname=name)
    refused: ssl.SSLError | None = None
    for _ in range(6):
        with suppress(ssl.SSLWantReadError):
            asking.do_handshake()
        try:
            serving.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            refused = error  # the client learns it from the alert
    asking.do_handshake()
    assert refused is None
    return asking.version() or ""


def _builder(name: str, issuer: str, key: Key, days: tuple[int, int]) -> x509.CertificateBuilder:
    now = datetime.now(UTC)  # noqa: TID251 -- OpenSSL reads the same clock
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
    )


def _authority_id(signer: Authority) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())


def _signs() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _pem(key: Key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
