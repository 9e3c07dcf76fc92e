import ssl
from pathlib import Path

import pytest

from relay.sandbox.certificates import ThrowAwayCa, make_apns_key, public_pem


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
