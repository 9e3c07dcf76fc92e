import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from relay.sandbox.certificates import ThrowAwayCa, lasting_ca, make_apns_key, public_pem


def shake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Run a TLS handshake in memory; return server and client."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = server.wrap_bio(up, down, server_side=True), client.wrap_bio(down, up, server_hostname=name)
    for _ in range(4):
        for end in reversed(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "push.example.com"])
def test_a_server_is_trusted_under_its_names(name: str) -> None:
    ca = ThrowAwayCa()
    client = ca.client_context()
    client.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python 3.13 does

    server_end, client_end = shake(ca.server_context("push.example.com"), client, name)

    assert client_end.version() == "TLSv1.3"
    assert not server_end.getpeercert()


def test_a_server_is_not_trusted_under_another_name_or_by_another_ca() -> None:
    ca = ThrowAwayCa()

    with pytest.raises(ssl.SSLCertVerificationError):
        shake(ca.server_context(), ca.client_context(), "example.com")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(ca.server_context(), ThrowAwayCa().client_context(), "localhost")


def test_a_client_certificate_names_its_topic(tmp_path: Path) -> None:
    ca = ThrowAwayCa()
    (tmp_path / "client.pem").write_bytes(ca.client_pem("com.example.mail"))
    client = ca.client_context()
    client.load_cert_chain(tmp_path / "client.pem")

    server_end, client_end = shake(ca.server_context(alpn=["h2"]), client, "localhost")
    client_end.write(b"x")
    server_end.read()

    certificate = server_end.getpeercert()
    assert certificate is not None
    assert (("userId", "com.example.mail"),) in certificate["subject"]


def test_the_ca_is_written_as_pem(tmp_path: Path) -> None:
    ca = ThrowAwayCa()
    ca.write_ca(tmp_path / "ca.pem")

    assert (tmp_path / "ca.pem").read_bytes() == ca.ca_pem
    assert ca.ca_pem.startswith(b"-----BEGIN CERTIFICATE-----")


def test_an_apns_key_has_an_id_and_a_public_half() -> None:
    pem, key_id = make_apns_key()

    assert len(key_id) == 10
    assert pem.startswith("-----BEGIN PRIVATE KEY-----")  # pragma: allowlist secret
    assert public_pem(pem).startswith("-----BEGIN PUBLIC KEY-----")
    assert make_apns_key()[1] != key_id


NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def test_the_ca_of_a_folder_lasts_over_restarts(tmp_path: Path) -> None:
    first = lasting_ca(tmp_path / "sandbox", "Sandbox", NOW)
    second = lasting_ca(tmp_path / "sandbox", "Sandbox", NOW + timedelta(days=365))

    assert second.ca_pem == first.ca_pem == (tmp_path / "sandbox/ca.pem").read_bytes()
    assert (tmp_path / "sandbox/ca.key").stat().st_mode & 0o777 == 0o600
    issued = x509.load_pem_x509_certificate(second.server_pem("phone.example.com"))
    issued.verify_directly_issued_by(x509.load_pem_x509_certificate(first.ca_pem))


@pytest.mark.parametrize("broken", ["ca.key", "ca.pem", "old", "other"])
def test_a_ca_that_cannot_sign_is_made_again(tmp_path: Path, broken: str) -> None:
    first = lasting_ca(tmp_path, "Sandbox", NOW)
    later = NOW + timedelta(days=3650 - 397 + 1) if broken == "old" else NOW
    if broken == "other":
        (tmp_path / "ca.pem").write_bytes(ThrowAwayCa().ca_pem)
    elif broken != "old":
        (tmp_path / broken).write_text("no PEM")

    assert lasting_ca(tmp_path, "Sandbox", later).ca_pem != first.ca_pem


def test_a_certificate_is_one_that_apples_platforms_accept(tmp_path: Path) -> None:
    """[Apple: Requirements for trusted certificates in iOS 13 and macOS 10.15; limits on trusted certificates]"""
    pem = lasting_ca(tmp_path, "Sandbox", NOW).server_pem("a" * 70 + ".example.com", "192.0.2.7")
    certificate = x509.load_pem_x509_certificate(pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    key = certificate.public_key()

    assert certificate.not_valid_before_utc < NOW < certificate.not_valid_after_utc
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc <= timedelta(days=397)
    assert names.get_values_for_type(x509.DNSName) == ["a" * 70 + ".example.com", "localhost"]
    assert IPv4Address("192.0.2.7") in names.get_values_for_type(x509.IPAddress)
    assert list(usages) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.key_size >= 256
    assert certificate.signature_hash_algorithm is not None
    assert certificate.signature_hash_algorithm.name == "sha256"
