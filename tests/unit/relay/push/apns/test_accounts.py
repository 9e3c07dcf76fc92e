from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from relay.push.apns.accounts import RENEWAL_GAP, Key, Pem, ProviderTokens, read_key, read_pem
from relay.push.apns.config import ApnsToken
from relay.sandbox.certificates import ThrowAwayCa, make_apns_key, public_pem
from tests.fakes.ops import HandClock

TEAM = "TEAM123456"


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_the_provider_token_names_the_key_and_the_team() -> None:
    pem, key_id = make_apns_key()
    scheme, _, token = ProviderTokens(Key(pem, key_id), TEAM, HandClock()).header().partition(" ")

    assert scheme == "bearer"
    assert jwt.get_unverified_header(token)["kid"] == key_id
    claims = jwt.decode(token, public_pem(pem), ["ES256"], options={"verify_exp": False})
    assert claims["iss"] == TEAM


def test_an_expired_token_is_renewed_once_in_twenty_minutes_for_all_pushes_that_used_it() -> None:
    tokens = ProviderTokens(Key(*make_apns_key()), TEAM, HandClock())
    old = tokens.header()

    assert tokens.expired(old, now=0.0)
    new = tokens.header()
    assert new != old  # ES256 signs with randomness
    assert tokens.expired(old, now=1.0)
    assert tokens.header() == new
    assert not tokens.expired(new, now=RENEWAL_GAP - 1)
    assert tokens.expired(new, now=RENEWAL_GAP)
    assert tokens.header() != new


@pytest.mark.parametrize(("minutes", "renewed"), [(0, False), (29, False), (30, True), (300, True), (-1, True)])
def test_a_token_is_used_for_half_an_hour_and_never_if_it_comes_from_the_future(minutes: int, renewed: bool) -> None:
    clock = HandClock()
    tokens = ProviderTokens(Key(*make_apns_key()), TEAM, clock)
    old = tokens.header()

    clock.forward(minutes * 60)

    assert (tokens.header() != old) == renewed
    assert tokens.header() == tokens.header()


def test_a_replaced_key_signs_all_later_tokens() -> None:
    tokens = ProviderTokens(Key(*make_apns_key()), TEAM, HandClock())
    pem, key_id = make_apns_key()

    tokens.replace(Key(pem, key_id))

    token = tokens.header().partition(" ")[2]
    assert jwt.decode(token, public_pem(pem), ["ES256"], options={"verify_exp": False})["iss"] == TEAM


@pytest.mark.parametrize("pem", ["", "no key"])
def test_a_text_that_is_no_key_is_refused(pem: str) -> None:
    with pytest.raises(ValueError, match="P-256"):
        ProviderTokens(Key(pem, "A" * 10), TEAM, HandClock())


def test_the_id_of_a_key_comes_from_the_settings_or_from_the_name_of_its_file(tmp_path: Path) -> None:
    pem, _ = make_apns_key()
    file = write(tmp_path / "AuthKey_ABCDE12345.p8", pem)
    link = tmp_path / "apns.p8"
    link.symlink_to(file)

    assert read_key(ApnsToken(file, "FGHIJ67890", TEAM), file) == Key(pem, "FGHIJ67890")
    assert read_key(ApnsToken(file, None, TEAM), file) == Key(pem, "ABCDE12345")
    assert read_key(ApnsToken(link, None, TEAM), link) == Key(pem, "ABCDE12345")


def test_a_key_without_any_id_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "apns.p8", make_apns_key()[0])

    with pytest.raises(ValueError, match=r"AuthKey_KEYID\.p8"):
        read_key(ApnsToken(file, None, TEAM), file)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    file = write(tmp_path / "p384.p8", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    with pytest.raises(ValueError, match="P-256"):
        read_key(ApnsToken(file, "A" * 10, TEAM), file)


def test_a_certificate_comes_with_its_key(tmp_path: Path) -> None:
    pem = ThrowAwayCa().client_pem("com.example.mail")

    assert read_pem(write(tmp_path / "apns.pem", pem)) == Pem(pem)


@pytest.mark.parametrize(
    ("spoil", "wrong"),
    [
        (lambda pem, key: b"nothing", "holds no certificate"),
        (lambda pem, key: pem[: pem.index(b"-----BEGIN PRIVATE")], "holds no private key"),
        (lambda pem, key: pem[: pem.index(b"-----BEGIN PRIVATE")] + key, "not the certificate's"),
    ],
)
def test_a_certificate_file_that_lacks_something_is_refused(tmp_path: Path, spoil: object, wrong: str) -> None:
    assert callable(spoil)
    pem = spoil(ThrowAwayCa().client_pem("com.example.mail"), make_apns_key()[0].encode())

    with pytest.raises(ValueError, match=wrong):
        read_pem(write(tmp_path / "apns.pem", pem))


def test_a_certificate_that_tls_rejects_is_refused_while_the_old_one_is_in_use(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 1024)  # noqa: S505  # a key that is too short is the point
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "com.example.mail")])
    today = datetime(2026, 11, 24, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, today, today + timedelta(days=1))
    pem = builder.sign(key, SHA256()).public_bytes(Encoding.PEM)
    pem += key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    with pytest.raises(ValueError, match="TLS does not take"):
        read_pem(write(tmp_path / "apns.pem", pem))
