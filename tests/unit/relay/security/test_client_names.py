from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from relay.security.client_names import UPN, user_names

BEGAN = datetime(2026, 11, 23, tzinfo=UTC)


def certificate(*names: x509.GeneralName) -> bytes:
    key = generate_private_key(SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "not@example.com")])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1, BEGAN, BEGAN + timedelta(days=1))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def upn(der: bytes) -> x509.OtherName:
    return x509.OtherName(UPN, der)


def test_mail_addresses_and_principal_names_are_users() -> None:
    long = "a" * 140 + "@example.com"
    names = certificate(
        x509.RFC822Name("ann@example.com"),
        upn(b"\x0c\x0aann@corp.x"),
        upn(b"\x16\x03ann"),
        upn(b"\x0c\x81" + bytes([len(long)]) + long.encode()),
        upn(b"\x0c\x04b\xc3\xb6b"),
    )

    assert user_names(names) == {"ann@example.com", "ann@corp.x", "ann", long, "böb"}


@pytest.mark.parametrize(
    "der",
    [
        b"\x0c\x05ann",  # longer than it is
        b"\x0c\x02ann",  # shorter
        b"\x04\x03ann",  # an octet string
        b"\x0c\x01\xff",  # no UTF-8
        b"\x0c\x00",
        b"\x0c",
        b"",
    ],
)
def test_a_principal_name_that_cannot_be_read_is_none(der: bytes) -> None:
    try:
        made = certificate(upn(der))
    except ValueError:
        return  # the library does not even write it
    assert user_names(made) == frozenset()


def test_other_names_are_no_users() -> None:
    other = x509.OtherName(x509.ObjectIdentifier("1.2.3.4"), b"\x0c\x03ann")

    assert user_names(certificate(x509.DNSName("ann.example.com"), other)) == frozenset()


def test_the_subject_is_no_user() -> None:
    assert user_names(certificate()) == frozenset()


def test_bytes_that_are_no_certificate_name_nobody() -> None:
    assert user_names(b"\x30\x03abc") == frozenset()
