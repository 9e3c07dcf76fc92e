import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from eas_watcher.transport.tls import client_context
from relay.security.certificates import (
    ca_flaws,
    is_p256,
    lone_issuer,
    public_key_of,
    public_keys,
    read_certificate,
    read_expiry,
)
from tests.fakes import chains

END = datetime(2030, 1, 2, tzinfo=UTC)


def pem(key: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def test_a_certificate_has_an_expiry_and_the_public_key_of_its_key(tmp_path: Path) -> None:
    leaf = trustme.CA().issue_cert("relay.example.com", not_after=END)
    file = tmp_path / "api.pem"
    file.write_bytes(leaf.cert_chain_pems[0].bytes())

    certificate = read_certificate(file.read_bytes())

    assert read_expiry(file) == certificate.valid_until == END
    assert certificate.valid_from < END
    assert certificate.public_key == public_key_of(leaf.private_key_pem.bytes())


def test_a_pem_text_without_a_certificate_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="PEM"):
        read_certificate(pem(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(ValueError, match="PEM"):
        read_certificate(b"")


def test_an_encrypted_key_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="encrypted"):
        public_key_of(pem(ec.generate_private_key(ec.SECP256R1()), b"canary"))


def test_only_an_unencrypted_p256_key_is_accepted() -> None:
    assert is_p256(pem(ec.generate_private_key(ec.SECP256R1())))
    assert not is_p256(pem(ec.generate_private_key(ec.SECP384R1())))
    assert not is_p256(pem(ec.generate_private_key(ec.SECP256R1()), b"canary"))
    assert not is_p256(b"canary")


def test_a_certificate_with_a_key_of_an_unknown_kind_is_a_value_error() -> None:
    leaf = trustme.CA(key_type=trustme.KeyType.ECDSA).issue_cert("x", key_type=trustme.KeyType.ECDSA)
    der = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()).public_bytes(Encoding.DER)
    # 2A 86 48 CE 3D 02 01: id-ecPublicKey [RFC 5480 2.1.1]; with 7F at its end, no algorithm has this id.
    unknown = der.replace(bytes.fromhex("2A8648CE3D0201"), bytes.fromhex("2A8648CE3D027F"))

    with pytest.raises(ValueError, match="unknown kind"):
        read_certificate(ssl.DER_cert_to_PEM_cert(unknown).encode())


ROOT = chains.Authority()


@pytest.mark.parametrize(
    ("ca", "flaws"),
    [
        (ROOT, []),
        (chains.Authority("Issuing CA", issuer=ROOT), []),
        (chains.Authority(critical=False), ["basic constraints not critical"]),
        (chains.Authority(key_usage=False), ["no key usage"]),
        (chains.Authority(subject_id=False), ["no subject key identifier"]),
        (chains.Authority("Issuing CA", issuer=ROOT, authority_id=False), ["no authority key identifier"]),
    ],
)
def test_names_the_flaws_of_a_ca_that_strict_software_refuses(ca: chains.Authority, flaws: list[str]) -> None:
    chain = chains.serving_context(ca.server(chain=ca.pem))
    anchors = ROOT.pem if ca.issuer else ca.pem

    assert ca_flaws(ROOT.pem + ca.pem) == flaws
    assert chains.shake(chain, client_context(ca_pem=anchors)) == "TLSv1.3"
    if flaws:
        with pytest.raises(ssl.SSLCertVerificationError):
            chains.shake(chain, client_context(ca_pem=anchors, strict=True))
    else:
        chains.shake(chain, client_context(ca_pem=anchors, strict=True))


def test_a_serial_number_that_is_not_positive_is_a_flaw_and_no_warning_of_a_library() -> None:
    number = x509.load_pem_x509_certificate(ROOT.pem).serial_number
    serial = number.to_bytes(number.bit_length() // 8 + 1, "big")  # as DER has it, with no needless octet
    negative = ssl.PEM_cert_to_DER_cert(ROOT.pem.decode()).replace(serial, b"\x80" + serial[1:])

    assert ca_flaws(ssl.DER_cert_to_PEM_cert(negative).encode()) == ["serial number not positive"]


def test_a_certificate_that_is_no_ca_or_cannot_be_read_has_no_flaws() -> None:
    assert ca_flaws(ROOT.server()) == []
    assert ca_flaws(b"nothing") == []


def test_all_public_keys_of_a_chain_are_found_whatever_their_order() -> None:
    issuing = chains.Authority("Issuing CA")
    chain = issuing.server(chain=issuing.pem)
    upside_down = issuing.pem + chain

    assert len(public_keys(chain)) == 2
    assert public_keys(upside_down) == public_keys(chain)
    assert public_key_of(chain) in public_keys(upside_down)
    assert public_key_of(chain) != read_certificate(upside_down).public_key


def test_a_certificate_that_stands_alone_names_its_issuer_if_that_is_to_be_had_somewhere() -> None:
    issuing = chains.Authority("Issuing CA", issuer=chains.Authority())
    placed = issuing.server(issuer_at="http://pki.example.com/ca.crt")

    assert lone_issuer(placed) == "CN=Issuing CA"
    assert lone_issuer(placed + issuing.pem) is None
    assert lone_issuer(issuing.server()) is None, "a CA that signs as a root says nothing of the kind"
    assert lone_issuer(chains.Authority().pem) is None
