from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import http_ece
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key, generate_private_key

from relay.push.webpush.encryption import encrypt
from relay.push.webpush.vapid import Vapid, make_key, public_key
from relay.sandbox.webpush_rules import (
    Subscriber,
    Unreadable,
    check_push,
    decode,
    encode,
    open_push,
)

ORIGIN = "https://push.example.com"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
KEY = make_key()
AUTH = bytes(range(16))
RECEIVER = derive_private_key(int.from_bytes(decode("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"), "big"), SECP256R1())


def subscriber(vapid_key: str = "") -> Subscriber:
    return Subscriber(vapid_key, auth=AUTH)


def headers() -> dict[str, str]:
    vapid = Vapid(KEY, "mailto:push@example.com").headers("push.example.com", NOON)["Authorization"]
    return {"ttl": "60", "content-encoding": "aes128gcm", "authorization": vapid}


def token(**changes: object) -> str:
    key = generate_private_key(SECP256R1())
    claims = {"aud": ORIGIN, "exp": int((NOON + timedelta(hours=1)).timestamp()), "sub": "mailto:a@example.com"}
    kept = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    public = key.public_key()
    point = b"\x04" + public.public_numbers().x.to_bytes(32, "big") + public.public_numbers().y.to_bytes(32, "big")
    return f"vapid t={jwt.encode(kept, key, 'ES256')}, k={encode(point)}"


def status_of(
    changes: Mapping[str, str] | None = None, body: bytes | None = None, phone: Subscriber | None = None
) -> int:
    """Return the status of a refusal, 0 for none."""
    phone = phone or subscriber()
    good = encrypt(b"{}", phone.public, phone.auth, bytes(16)) if body is None else body
    refusal = check_push(headers() | dict(changes or {}), good, phone, ORIGIN, NOON)
    return 0 if refusal is None else refusal.status


def test_a_valid_push_is_accepted() -> None:
    assert status_of() == 0
    assert status_of({"urgency": "high", "topic": "x" * 32}) == 0
    assert status_of(phone=subscriber(public_key(KEY))) == 0
    assert status_of({"authorization": token()}) == 0


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"ttl": ""}, 400),
        ({"ttl": "-1"}, 400),
        ({"urgency": "urgent"}, 400),
        ({"topic": "x" * 33}, 400),
        ({"topic": "a.b"}, 400),
        ({"content-encoding": "aesgcm"}, 400),
        ({"authorization": ""}, 401),
        ({"authorization": "Bearer x"}, 401),
        ({"authorization": "vapid t=a.b.c, k=AAAA"}, 403),
        ({"authorization": token(aud="https://other.example.com")}, 403),
        ({"authorization": token(aud=None)}, 403),
        ({"authorization": token(sub=None)}, 403),
        ({"authorization": token(sub="ann")}, 403),
        ({"authorization": token(exp=int(NOON.timestamp()))}, 403),
        ({"authorization": token(exp=int(NOON.timestamp()) + 86_401)}, 403),
        ({"authorization": token(exp="soon")}, 403),
    ],
)
def test_a_push_with_wrong_headers_is_refused(changes: dict[str, str], status: int) -> None:
    assert status_of(changes) == status


def test_a_token_signed_by_another_key_than_it_names_is_refused() -> None:
    signed, named = token(), token()
    mixed = signed.partition(", k=")[0] + ", k=" + named.partition(", k=")[2]

    assert status_of({"authorization": mixed}) == 403


def test_a_subscription_accepts_pushes_of_its_own_key_only() -> None:
    assert status_of(phone=subscriber(public_key(make_key()))) == 403


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (bytes(4097), 413),
        (bytes(16) + (4096).to_bytes(4, "big") + b"\x10" + bytes(200), 400),
        (bytes(16) + (17).to_bytes(4, "big") + b"\x41" + bytes(200), 400),
        (bytes(16) + (50).to_bytes(4, "big") + b"\x41" + bytes(200), 400),
    ],
    ids=["empty", "too large", "no key", "tiny records", "two records"],
)
def test_a_body_that_is_no_message_is_refused(body: bytes, status: int) -> None:
    assert status_of(body=body) == status


def test_the_token_of_the_rfc_is_accepted() -> None:
    # RFC 8292, 2.4: the example with its token and key.
    example = (
        "vapid t=eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9"
        ".eyJhdWQiOiJodHRwczovL3B1c2guZXhhbXBsZS5uZXQiLCJleHAiOjE0NTM1MjM3NjgsInN1YiI6Im1haWx0bzpwdXNoQGV4YW1wbGUuY29tIn0"
        ".i3CYb7t4xfxCDquptFOepC9GAu_HLGkMlMuCGSK2rpiUfnK9ojFwDXb1JrErtmysazNjjvW2L9OkSSHzvoD1oA"
        ", k=BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs"
    )
    phone = subscriber()
    body = encrypt(b"{}", phone.public, phone.auth, bytes(16))
    moment = datetime.fromtimestamp(1453523768 - 3600, UTC)

    assert check_push(headers() | {"authorization": example}, body, phone, "https://push.example.net", moment) is None


def test_a_phone_reads_the_message_of_the_rfc() -> None:
    # RFC 8291, 5.
    body = decode(
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl"
        "7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    )
    phone = Subscriber(private=RECEIVER, auth=decode("BTBZMqHH6r4Tts7J_aSIgg"))

    assert open_push(body, phone) == b"When I grow up, I want to be a watermelon"


@pytest.mark.parametrize("record_size", [4096, 100, 30])
def test_a_phone_reads_what_another_implementation_wrote(record_size: int) -> None:
    phone, sender = subscriber(), generate_private_key(SECP256R1())

    body = http_ece.encrypt(
        b"x" * 200, salt=bytes(16), private_key=sender, dh=phone.public, auth_secret=AUTH, rs=record_size
    )

    assert open_push(body, phone) == b"x" * 200


def test_a_phone_cannot_read_a_push_for_another_phone_or_a_changed_one() -> None:
    phone, other = subscriber(), subscriber()
    good = encrypt(b"{}", phone.public, phone.auth, bytes(16))

    for body, reader in (
        (good, other),
        (good, Subscriber(private=phone.private, auth=bytes(16))),
        (good[:-1] + bytes([good[-1] ^ 1]), phone),
        (good[:21] + bytes(65) + good[86:], phone),
    ):
        with pytest.raises(Unreadable):
            open_push(body, reader)


def test_a_message_without_its_end_is_unreadable() -> None:
    phone, sender = subscriber(), generate_private_key(SECP256R1())
    body = http_ece.encrypt(b"x" * 200, salt=bytes(16), private_key=sender, dh=phone.public, auth_secret=AUTH, rs=100)

    with pytest.raises(Unreadable, match="delimiter"):
        open_push(body[: 21 + 65 + 100], phone)
