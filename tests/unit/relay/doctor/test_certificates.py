"""Tests of what certificates and failed handshakes mean."""

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from eas_watcher.tools.probe.finding import Grade
from relay.doctor.certificates import Shown, describe, judge_failure, judge_own, judge_shown
from relay.doctor.finding import Finding, Subject
from tests.fakes.chains import Authority, self_signed

NOW = datetime.now(UTC)  # noqa: TID251 -- the certificates of `chains` begin now
TLS = Subject("TLS", "servers.main")
OWN = Subject("certificate", "api.certificate_file")
ROOT = Authority("Root")
SHORT = rsa.generate_private_key(65537, 1024)  # noqa: S505 -- a key that is too short is the point
INTERMEDIATE = Authority("Intermediate", issuer=ROOT)


def own(pem: bytes, roots: frozenset[str] = frozenset()) -> list[tuple[Grade, str]]:
    return [(each.grade, each.text) for each in judge_own(OWN, pem, roots, NOW)]


def test_a_certificate_with_its_chain_is_good_for_phones() -> None:
    found = own(INTERMEDIATE.server(["relay.example.com", "192.0.2.1"], chain=INTERMEDIATE.pem))

    until = NOW + timedelta(days=90)
    assert found == [(Grade.GOOD, f"for relay.example.com, 192.0.2.1, valid until {until:%Y-%m-%d}, 2 certificates")]


def test_many_names_are_not_all_shown() -> None:
    names = [f"relay{number}.example.com" for number in range(6)]

    assert "relay3.example.com and 2 more" in own(ROOT.server(names))[0][1]


@pytest.mark.parametrize(
    ("pem", "grade", "words"),
    [
        (ROOT.server([]), Grade.BAD, "no subject alternative names"),
        (ROOT.server(purpose=ExtendedKeyUsageOID.CLIENT_AUTH), Grade.BAD, "not for servers"),
        (ROOT.server(key=SHORT), Grade.BAD, "too weak"),
        (ROOT.server(days=(-10, 1000)), Grade.NOTE, "is valid for 1010 days"),
        (ROOT.server(days=(-10, 5)), Grade.NOTE, "expires on"),
        (INTERMEDIATE.server(chain=ROOT.pem), Grade.BAD, "Root did not sign server"),
        (self_signed(), Grade.NOTE, "signed by itself"),
    ],
)
def test_what_phones_refuse_is_named(pem: bytes, grade: Grade, words: str) -> None:
    ((found, text),) = own(pem)

    assert found is grade
    assert words in text


@pytest.mark.parametrize(
    ("browsed", "named"),
    [
        ("", True),
        ("relay.example.com", True),
        ("push.apps.example.com", True),
        ("192.0.2.1", True),
        ("apps.example.com", False),
        ("a.push.apps.example.com", False),
        ("example.com", False),
    ],
)
def test_a_certificate_that_does_not_name_the_host_of_the_web_app_is_noted(browsed: str, named: bool) -> None:
    pem = ROOT.server(["Relay.example.com", "*.apps.example.com", "192.0.2.1"])

    ((found, text),) = [(each.grade, each.text) for each in judge_own(OWN, pem, frozenset(), NOW, browsed)]

    assert found is (Grade.GOOD if named else Grade.NOTE)
    assert named or text == f"does not name {browsed}, the host of webapp.origin"


def with_issuer_address(ca: Authority) -> bytes:
    """Return a certificate that says where the certificate of its issuer is, as those of public CAs do."""
    plain = x509.load_pem_x509_certificate(ca.server())
    where = x509.AccessDescription(
        x509.oid.AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier("http://example.com/ca.cer")
    )
    builder = x509.CertificateBuilder().subject_name(plain.subject).issuer_name(plain.issuer)
    builder = builder.public_key(plain.public_key()).serial_number(plain.serial_number)
    builder = builder.not_valid_before(plain.not_valid_before_utc).not_valid_after(plain.not_valid_after_utc)
    for extension in plain.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    builder = builder.add_extension(x509.AuthorityInformationAccess([where]), critical=False)
    return builder.sign(ca.key, SHA256()).public_bytes(Encoding.PEM)


def test_a_missing_intermediate_is_noted_unless_the_issuer_is_a_known_root() -> None:
    pem = with_issuer_address(INTERMEDIATE)

    assert own(pem) == [(Grade.NOTE, "comes without the certificate of its issuer Intermediate")]
    assert own(pem, frozenset({"Intermediate"}))[0][0] is Grade.GOOD


def test_a_file_that_cannot_be_read_is_bad() -> None:
    broken = ROOT.server().replace(b"MII", b"MIJ", 1)

    assert own(broken)[0][0] is Grade.BAD


def shown(flaw: str = "", days: int | None = 90) -> Finding:
    until = None if days is None else NOW + timedelta(days=days)
    return judge_shown(TLS, Shown("TLSv1.3", until, http2=True, flaw=flaw), NOW, 0.1)


def test_a_trusted_certificate_is_good_until_shortly_before_its_end() -> None:
    assert shown().grade is Grade.GOOD
    assert shown(days=None).text == "TLSv1.3, HTTP/2"
    assert shown(days=14).grade is Grade.NOTE


def test_a_flaw_that_newer_software_refuses_is_noted() -> None:
    found = shown("Missing Authority Key Identifier")

    assert found.grade is Grade.NOTE
    assert "newer software refuses it: Missing Authority Key Identifier" in found.text


def test_a_handshake_that_fails_names_its_remedy() -> None:
    known, unknown = ssl.SSLError(), ssl.SSLError()
    known.reason, unknown.reason = "WRONG_VERSION_NUMBER", "SOMETHING_NEW"

    assert "speaks no TLS" in judge_failure(TLS, known, "ca_file", "").remedy
    assert judge_failure(TLS, unknown, "ca_file", "").text == "no TLS: SOMETHING_NEW"


def not_trusted(code: int, message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError()
    error.verify_code, error.verify_message = code, message
    return error


def test_a_certificate_that_is_not_trusted_is_described() -> None:
    found = judge_failure(
        TLS, not_trusted(20, "unable to get local issuer"), "servers.main.ca_file", "server, issued by X"
    )

    assert found.text == "certificate not trusted: unable to get local issuer; shown was server, issued by X"
    assert "servers.main.ca_file" in found.remedy
    assert (
        "servers.main.ca_file" not in judge_failure(TLS, not_trusted(10, "expired"), "servers.main.ca_file", "").remedy
    )
    assert judge_failure(TLS, not_trusted(999, "new"), "ca_file", "").remedy == "renew the certificate"


def test_a_certificate_is_described_by_its_names_and_its_end() -> None:
    der = x509.load_pem_x509_certificate(ROOT.server()).public_bytes(Encoding.DER)

    assert describe(der) == f"server, issued by Root, valid until {NOW + timedelta(days=90):%Y-%m-%d}"
    assert describe(b"no certificate") == ""
