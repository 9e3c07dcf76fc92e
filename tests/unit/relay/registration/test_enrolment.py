import pytest

from relay.registration.enrolment import NOTHING, Enrolment, EnrolmentMode, Shown
from relay.registration.errors import EnrolmentRefused, InvalidRequest

KEY, MTLS = frozenset({EnrolmentMode.KEY}), frozenset({EnrolmentMode.MTLS})
NEW, OLD = "canary-new-key-of-the-administrator", "canary-old-key-of-the-administrator"
ANN = Shown(names=frozenset({"Ann@Example.com"}))


def admits(enrolment: Enrolment, shown: Shown, mailbox: str = "ann@example.com", user: str | None = None) -> bool:
    try:
        enrolment.admit(shown)
        enrolment.check(shown, mailbox, user)
    except EnrolmentRefused as error:
        return "canary" in str(error)
    return True


def test_by_default_the_credential_decides() -> None:
    assert admits(Enrolment(), NOTHING)
    assert admits(Enrolment(), NOTHING, "no:user")  # the use case names the fault


@pytest.mark.parametrize(
    ("key", "admitted"),
    [(NEW, True), (OLD, True), (None, False), ("", False), (NEW[:-1], False), (f"{NEW} ", False), ("k\udcff", False)],
)
def test_any_of_the_keys_opens_so_that_one_can_follow_another(key: str | None, admitted: bool) -> None:
    assert admits(Enrolment([KEY], [NEW, OLD]), Shown(key)) is admitted


def test_without_keys_no_key_opens() -> None:
    assert not admits(Enrolment([KEY]), Shown(""))


def test_a_key_does_not_print() -> None:
    assert "canary" not in repr(Shown(NEW))


def test_a_wrong_key_is_refused_before_the_body_is_read() -> None:
    with pytest.raises(EnrolmentRefused, match="Enrolment-Key"):
        Enrolment([KEY], [NEW]).admit(Shown("canary-guess"))
    with pytest.raises(EnrolmentRefused, match="client certificate"):
        Enrolment([MTLS]).admit(NOTHING)
    Enrolment([MTLS]).admit(ANN)


@pytest.mark.parametrize(
    ("mailbox", "user", "admitted"),
    [
        ("ann@example.com", None, True),
        ("ANN@EXAMPLE.COM", None, True),
        ("ann@example.com", "EXAMPLE\\ann", True),
        ("ann@example.com", "ann", True),
        ("ann@example.com", "ANN@example.com", True),
        ("shared@example.com", "ann@example.com", True),  # the login user decides whose mailbox is watched
        ("EXAMPLE\\ann", "EXAMPLE\\ann@example.com", True),
        ("ben@example.com", None, False),
        ("ann@example.com", "ben@example.com", False),
        ("ann@example.com", "EXAMPLE\\ben", False),
        ("ben@example.com", "EXAMPLE\\ann", False),
        ("ann@elsewhere.example.com", None, False),
        ("ann", None, False),
    ],
)
def test_a_certificate_opens_the_mailbox_of_its_user_only(mailbox: str, user: str | None, admitted: bool) -> None:
    assert admits(Enrolment([MTLS]), ANN, mailbox, user) is admitted


def test_a_certificate_without_names_opens_nothing() -> None:
    assert not admits(Enrolment([MTLS]), Shown(names=frozenset()))


@pytest.mark.parametrize(
    ("shown", "either", "both"),
    [
        (NOTHING, False, False),
        (Shown(NEW), True, False),
        (ANN, True, False),
        (Shown(NEW, ANN.names), True, True),
        (Shown("canary-guess", ANN.names), True, False),
        (Shown(NEW, frozenset({"ben@example.com"})), True, False),
    ],
)
def test_ways_are_alternatives_or_demanded_together(shown: Shown, either: bool, both: bool) -> None:
    assert admits(Enrolment([KEY, MTLS], [NEW]), shown) is either
    assert admits(Enrolment([KEY | MTLS], [NEW]), shown) is both


def test_a_refusal_says_what_is_needed() -> None:
    with pytest.raises(EnrolmentRefused) as refusal:
        Enrolment([KEY, KEY | MTLS], [NEW]).admit(NOTHING)

    assert str(refusal.value) == (
        "a registration needs the header Enrolment-Key with a key of the administrator, or the header Enrolment-Key "
        "with a key of the administrator and a client certificate of the company that names this user"
    )


@pytest.mark.parametrize(("mailbox", "user", "field"), [("a:b", None, "mailbox"), ("ann", "a:b", "credential.user")])
def test_a_user_that_is_none_is_named(mailbox: str, user: str | None, field: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        Enrolment([MTLS]).check(ANN, mailbox, user)

    assert [name for name, _ in refusal.value.faults] == [field]
