from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from relay.push.webpush.vapid import LIFE, RENEWAL, Vapid, make_key, public_key, read_key
from relay.sandbox.webpush_rules import VAPID, decode
from tests.keys import rsa_pem

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
SERVICE = "push.example.com:8443"
KEY = make_key()


def claims(header: str) -> dict[str, object]:
    found = VAPID.fullmatch(header)
    assert found is not None
    assert found["k"] == public_key(KEY)
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), decode(found["k"]))
    document: dict[str, object] = jwt.decode(
        found["t"], key, ["ES256"], options={"verify_aud": False, "verify_exp": False}
    )
    return document


def test_a_token_names_one_push_service_and_a_contact() -> None:
    header = Vapid(KEY, "mailto:push@example.com").headers(SERVICE, NOON)["Authorization"]

    ends = int((NOON + LIFE).timestamp())
    assert claims(header) == {"aud": "https://push.example.com:8443", "exp": ends, "sub": "mailto:push@example.com"}
    assert timedelta(hours=24) > LIFE > RENEWAL


def test_a_token_is_used_again_while_it_is_young() -> None:
    vapid = Vapid(KEY, "mailto:push@example.com")
    first = vapid.headers(SERVICE, NOON)

    assert vapid.headers(SERVICE, NOON + RENEWAL - timedelta(seconds=1)) == first
    assert vapid.headers("other.example.com", NOON) != first
    assert vapid.headers(SERVICE, NOON + RENEWAL) != first


def test_a_token_from_the_future_is_replaced_because_the_clock_was_wrong() -> None:
    vapid = Vapid(KEY, "mailto:push@example.com")
    vapid.headers(SERVICE, NOON + timedelta(days=30))

    assert claims(vapid.headers(SERVICE, NOON)["Authorization"])["exp"] == int((NOON + LIFE).timestamp())


def test_a_forgotten_token_is_replaced() -> None:
    vapid = Vapid(KEY, "mailto:push@example.com")
    first = vapid.headers(SERVICE, NOON)

    vapid.forget(SERVICE)
    vapid.forget("never.example.com")

    assert vapid.headers(SERVICE, NOON) != first


def test_the_public_key_is_a_point_in_base64url() -> None:
    text = public_key(KEY)

    assert len(text) == 87
    assert decode(text)[:1] == b"\x04"


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN CERTIFICATE-----\n",
        ec.generate_private_key(ec.SECP384R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        rsa_pem().encode(),
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
        ),
    ],
    ids=["empty", "broken", "other curve", "RSA", "encrypted"],
)
def test_another_key_is_refused(pem: bytes, tmp_path: Path) -> None:
    file = tmp_path / "vapid.pem"
    file.write_bytes(pem)

    with pytest.raises(ValueError, match="holds no ECDSA"):
        read_key(file)


def test_a_good_file_is_read_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "vapid.pem"
    file.write_bytes(KEY)

    assert read_key(file) == KEY
