from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, load_pem_private_key
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

from eas_watcher.auth.certificate import CertificateCredential, read_pem, read_pkcs12, refusal_in
from eas_watcher.auth.credential import UnusableCredential
from eas_watcher.errors import CredentialVoid
from relay.process.clock import now
from relay.sandbox.certificates import ThrowAwayCa

CA = ThrowAwayCa()
PEM = CA.client_pem("ann").decode()
NOW = now()
CERTIFICATE, KEY = PEM[: PEM.index("-----BEGIN PRIVATE")], PEM[PEM.index("-----BEGIN PRIVATE") :]


def pkcs12(passphrase: str, *, whole: bool = True) -> bytes:
    key = load_pem_private_key(KEY.encode(), None)
    certificate = x509.load_pem_x509_certificate(CERTIFICATE.encode())
    ca = x509.load_pem_x509_certificate(CA.ca_pem)
    locked = BestAvailableEncryption(passphrase.encode())
    return serialize_key_and_certificates(b"ann", key if whole else None, certificate, [ca], locked)  # type: ignore[arg-type]


def test_pem_is_read_in_any_order_of_certificate_and_key() -> None:
    assert read_pem("ann", KEY + CERTIFICATE, "", NOW) == read_pem("ann", PEM, "", NOW)


def test_pkcs12_is_read_with_its_chain() -> None:
    credential = read_pkcs12("ann", pkcs12("open sesame"), "open sesame", NOW)

    assert credential.chain == CERTIFICATE + CA.ca_pem.decode()
    assert credential.key == KEY


@pytest.mark.parametrize(
    ("content", "passphrase", "words"),
    [(b"none", "", "no PKCS #12"), (pkcs12("right"), "wrong", "opens with"), (pkcs12("a", whole=False), "a", "lacks")],
)
def test_an_incomplete_pkcs12_is_refused(content: bytes, passphrase: str, words: str) -> None:
    with pytest.raises(UnusableCredential, match=words):
        read_pkcs12("ann", content, passphrase, NOW)


SERVERS = CA.server_pem("mail.example.com").decode()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no PEM"),
        (CERTIFICATE, "no PEM"),
        (KEY, "no PEM"),
        (CERTIFICATE + CA.client_pem("ben").decode().partition("-----END CERTIFICATE-----\n")[2], "does not belong"),
        (SERVERS, "not for client authentication"),
        (CERTIFICATE * 9 + KEY, "more than 8"),
    ],
)
def test_a_certificate_that_no_server_would_accept_is_refused(text: str, words: str) -> None:
    with pytest.raises(UnusableCredential, match=words):
        read_pem("ann", text, "", NOW)


def test_a_certificate_that_expired_ends_the_watch() -> None:
    credential = read_pem("ann", PEM, "", NOW)
    end: datetime = credential.valid_until

    credential.check_validity(end - timedelta(seconds=1))
    with pytest.raises(CredentialVoid, match="expired on"):
        credential.check_validity(end)
    with pytest.raises(UnusableCredential, match="expired on"):
        read_pem("ann", PEM, "", end)


def test_a_certificate_shows_no_key() -> None:
    assert "KEY" not in repr(CertificateCredential("ann", CERTIFICATE, KEY))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca (_ssl.c:2580)", "is of a CA that it does not trust"),
        ("[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] sslv3 alert certificate expired", "has expired"),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required", "is missing"),
        ("Connection reset by peer", None),
        ("certificate verify failed: unable to get local issuer certificate", None),
    ],
)
def test_the_alerts_of_a_server_are_read(text: str, why: str | None) -> None:
    assert refusal_in(text) == why


def rewritten(certificate: x509.Certificate, old: bytes, new: bytes) -> str:
    """Return a certificate with other bytes; its signature does not fit any more, and nothing here checks it."""
    der = certificate.public_bytes(Encoding.DER)
    assert der.count(old) == 1
    return x509.load_der_x509_certificate(der.replace(old, new)).public_bytes(Encoding.PEM).decode()


def test_a_certificate_that_names_no_purpose_serves_for_all() -> None:
    # 06 03 55 1D 25: the extension extKeyUsage; 1D 7F is no extension that anything knows.
    unnamed = rewritten(
        x509.load_pem_x509_certificate(CERTIFICATE.encode()), b"\x06\x03\x55\x1d\x25", b"\x06\x03\x55\x1d\x7f"
    )

    credential = read_pem("ann", unnamed + KEY, "", NOW)

    assert credential.chain == unnamed
    assert credential.authorization() is None  # type: ignore[func-returns-value]  # that it has none is the point


def test_a_key_of_an_unknown_kind_is_refused() -> None:
    # 06 07 2A 86 48 CE 3D 02 01: ecPublicKey; with 7F at the end it is no kind of key that anything knows.
    kind = b"\x06\x07\x2a\x86\x48\xce\x3d\x02"
    unknown = rewritten(x509.load_pem_x509_certificate(CERTIFICATE.encode()), kind + b"\x01", kind + b"\x7f")

    with pytest.raises(UnusableCredential, match="unknown kind"):
        read_pem("ann", unknown + KEY, "", NOW)
