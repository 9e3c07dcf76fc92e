import hashlib

import pytest

from relay.domain.model import RegistrationId
from relay.registration.errors import InvalidRequest
from relay.registration.requests import BasicLogin, CertificateLogin, KerberosLogin, Login, OAuthLogin
from relay.registration.secret import Access, check_identity, derive, grants, hash_secret, proof, strong

ID = RegistrationId("registration")


def test_the_hash_is_plain_sha_256() -> None:
    assert hash_secret("päss") == hashlib.sha256("päss".encode()).digest()


def test_only_the_right_secret_grants() -> None:
    assert grants(Access(ID, "right"), hash_secret("right"))
    assert not grants(Access(ID, "wrong"), hash_secret("right"))
    assert not grants(Access(ID, ""), hash_secret("right"))


def test_nothing_grants_what_does_not_exist() -> None:
    assert not grants(Access(ID, "right"), None)


def test_a_secret_does_not_show() -> None:
    assert "canary" not in repr(Access(ID, "canary"))


GOOD_ID = RegistrationId("Vq0zM3yX8sT1bN6kR4wJcLhP")
GOOD_SECRET = "2r5uGvTjJ1rN4QkO0mWc7y"
UUID = "3f0a9c1e-7b52-4d68-9e01-c2d4f6a8b7e5"


@pytest.mark.parametrize(
    ("text", "enough"),
    [
        (GOOD_SECRET, True),
        (GOOD_SECRET[:-1], False),
        ("0123456789abcdef" * 2, True),
        ("0123456789ABCDEF" * 2, True),
        (("0123456789abcdef" * 2)[:-1], False),
        (UUID, True),
        (UUID[:-1], False),
        ("0123456789" * 4, True),
        ("0123456789" * 3 + "01234567", False),
        ("abcdefghijklmnopqrstuvwxy", True),
        ("abcdefghijklmnopqrstuvwx", False),
        ("ab" * 40, False),
        ("abcdefgh" * 4, True),
        ("-" * 40, False),
        ("", False),
    ],
)
def test_a_text_is_strong_if_it_can_be_random_bits_enough(text: str, enough: bool) -> None:
    assert strong(text) is enough


def test_an_app_makes_an_id_of_the_form_of_the_relay_and_a_secret_that_nobody_guesses() -> None:
    check_identity(Access(GOOD_ID, GOOD_SECRET))
    check_identity(Access(GOOD_ID, UUID))


@pytest.mark.parametrize(
    ("id_", "secret", "fields"),
    [
        (UUID, GOOD_SECRET, ["id"]),
        ("A" * 24, GOOD_SECRET, ["id"]),
        (GOOD_ID, "canary", ["Authorization"]),
        (GOOD_ID, GOOD_ID, ["Authorization"]),
        ("short", "canary", ["id", "Authorization"]),
    ],
)
def test_a_weak_identity_is_refused_by_its_fields(id_: str, secret: str, fields: list[str]) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        check_identity(Access(RegistrationId(id_), secret))

    assert [name for name, _ in refusal.value.faults] == fields
    assert "canary" not in str(refusal.value)


def test_a_key_and_a_credential_make_the_same_identity_again() -> None:
    made = derive(UUID, BasicLogin("pass", "ann"))

    assert made == derive(f' "{UUID}" ', BasicLogin("pass", "ANN"))
    check_identity(made)
    assert UUID not in repr(made)


def test_the_key_alone_does_not_make_the_secret() -> None:
    one, other = derive(UUID, BasicLogin("pass")), derive(UUID, BasicLogin("other"))

    assert one.registration_id == other.registration_id
    assert one.secret != other.secret
    assert derive(UUID.replace("3", "4"), BasicLogin("pass")).registration_id != one.registration_id


@pytest.mark.parametrize("key", ["", "canary", "a b", 'x"y', "ü" * 30, "ab" * 200])
def test_a_weak_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequest, match="Idempotency-Key: must be at least 128 random bits") as refusal:
        derive(key, BasicLogin("pass"))

    assert "canary" not in str(refusal.value)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (BasicLogin("pass", "ann"), BasicLogin("pass", "ANN"), True),
        (BasicLogin("pass"), BasicLogin("Pass"), False),
        (BasicLogin("pass"), OAuthLogin("pass"), False),
        (OAuthLogin("token", "one"), OAuthLogin("token", "other"), False),
        (CertificateLogin(b"\x30\x82"), CertificateLogin(b"\x30\x82"), True),
        (CertificateLogin(b"\x30\x82"), CertificateLogin(b"\x30\x83"), False),
        (KerberosLogin("invitation"), KerberosLogin("invitation"), True),
    ],
)
def test_a_credential_that_comes_again_has_the_same_proof(one: Login, other: Login, alike: bool) -> None:
    assert (proof("secret", one) == proof("secret", other)) is alike


def test_a_proof_is_of_its_secret() -> None:
    assert proof("secret", BasicLogin("pass")) != proof("other", BasicLogin("pass"))
    assert len(proof("secret", BasicLogin("pass"))) == 32
