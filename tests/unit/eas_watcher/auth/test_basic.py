import pytest

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.auth.credential import UnusableCredential


def test_encodes_user_and_password_in_utf_8() -> None:
    # CORP\jdoe with an umlaut in the password.
    assert BasicCredential("CORP\\jdoe", "päss").authorization() == "Basic Q09SUFxqZG9lOnDDpHNz"


def test_the_password_may_contain_a_colon() -> None:
    assert BasicCredential("ann", "a:b").authorization() == "Basic YW5uOmE6Yg=="


def test_shows_no_password() -> None:
    assert "s3cret" not in repr(BasicCredential("ann", "s3cret"))


@pytest.mark.parametrize(
    ("user", "password"), [("", "x"), ("a:b", "x"), ("ann\r\nX: y", "x"), ("ann", "a\nb"), ("ann", "\x7f")]
)
def test_refuses_values_that_a_server_could_not_read(user: str, password: str) -> None:
    with pytest.raises(UnusableCredential) as caught:
        BasicCredential(user, password)

    assert "a\nb" not in str(caught.value)
