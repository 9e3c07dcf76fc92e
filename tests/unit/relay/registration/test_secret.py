import hashlib

from relay.domain.model import RegistrationId
from relay.registration.secret import Access, grants, hash_secret

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
