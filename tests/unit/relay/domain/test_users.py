import pytest

from relay.domain.users import Accounts

LISTED = Accounts(domains=frozenset({"example.com", "example"}))


@pytest.mark.parametrize(
    ("accounts", "one", "other", "alike"),
    [
        (Accounts(), "Ann@example.com", "ann@example.com", True),
        (Accounts(), "example\\Ann", "example\\ann", True),
        (Accounts(), "JÜRGEN", "jürgen", True),
        (Accounts(), "ann", "ben", False),
        (Accounts(), "ann", "ann@example.com", False),
        (Accounts(), "example\\ann", "ann", False),
        (Accounts(cased=True), "Ann", "ann", False),
        (Accounts(cased=True), "Ann", "Ann", True),
        (LISTED, "Ann", "ann@example.com", True),
        (LISTED, "example\\ann", "ANN@example.com", True),
        (LISTED, "example\\ann@example.com", "ann", True),
        (LISTED, "other\\ann", "ann", False),
        (LISTED, "ann@example.net", "ann", False),
        (LISTED, "@example.com", "", False),
    ],
)
def test_spellings_of_one_user_are_alike(accounts: Accounts, one: str, other: str, alike: bool) -> None:
    assert accounts.alike(one, other) is alike
    assert accounts.alike(other, one) is alike
    assert (accounts.key(one) is not None and accounts.key(one) == accounts.key(other)) is (
        alike and not accounts.cased
    )


def test_a_user_is_looked_for_under_the_keys_of_other_settings_too() -> None:
    assert Accounts().keys("Ann@example.com") == ("ann@example.com",)
    assert LISTED.keys("Ann") == ("ann", "ann@example", "example\\ann", "ann@example.com", "example.com\\ann")
    assert LISTED.keys("ann@example.net") == ("ann@example.net",)
    assert LISTED.keys("other\\ann") == ("other\\ann",)
    assert Accounts(cased=True).keys("Ann") == ()
