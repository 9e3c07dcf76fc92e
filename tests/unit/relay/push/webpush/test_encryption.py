import http_ece
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key, generate_private_key

from relay.push.webpush.encryption import LENGTH, TooLong, encrypt, point, seal
from relay.sandbox.webpush_rules import decode

# RFC 8291, 5 and appendix A: the example with all its keys.
CONTENT = b"When I grow up, I want to be a watermelon"
SALT = decode("DGv6ra1nlYgDCS1FRnbzlw")
AUTH = decode("BTBZMqHH6r4Tts7J_aSIgg")
RECEIVER = derive_private_key(int.from_bytes(decode("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"), "big"), SECP256R1())
SENDER = derive_private_key(int.from_bytes(decode("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"), "big"), SECP256R1())
BODY = decode(
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl"
    "7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
)


def test_the_example_of_the_rfc_is_encrypted_byte_by_byte() -> None:
    assert seal(CONTENT, point(RECEIVER.public_key()), AUTH, SALT, SENDER, len(CONTENT)) == BODY


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 9, bytes(range(256)), b"\x02" * LENGTH])
def test_another_implementation_decrypts_the_message(content: bytes) -> None:
    receiver = generate_private_key(SECP256R1())

    body = encrypt(content, point(receiver.public_key()), AUTH, SALT)

    assert http_ece.decrypt(body, private_key=receiver, auth_secret=AUTH) == content


def test_every_message_has_the_same_length_and_a_key_of_its_own() -> None:
    subscriber = point(RECEIVER.public_key())

    bodies = [encrypt(content, subscriber, AUTH, SALT) for content in (b"", b"x", b"y" * LENGTH)]

    assert {len(body) for body in bodies} == {16 + 4 + 1 + 65 + LENGTH + 1 + 16}
    assert len({body[21:86] for body in bodies}) == 3


def test_a_message_that_is_too_long_is_not_encrypted() -> None:
    with pytest.raises(TooLong):
        encrypt(bytes(LENGTH + 1), point(RECEIVER.public_key()), AUTH, SALT)
