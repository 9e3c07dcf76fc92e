import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.domain.model import AUTODISCOVER
from relay.registration.errors import UnknownServer
from relay.registration.identity import LONGEST, ServerDirectory, normalise

TWO = ServerDirectory({"head-office": ["example.com", "Example.NET"], "branch": ["branch.example.com"]})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("ann", "ann"),
        ("  ann@example.com\n", "ann@example.com"),
        ("Ann@EXAMPLE.com", "Ann@example.com"),
        ("EXAMPLE\\Ann", "example\\Ann"),
        ("EXAMPLE\\Ann@Example.com", "example\\Ann@example.com"),
        ("Zoe\u0308", "Zo\u00eb"),
        ("odd@name@EXAMPLE.com", "odd@name@example.com"),
    ],
)
def test_spellings_of_one_user_become_one(written: str, meant: str) -> None:
    assert normalise(written) == meant


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ("", "characters"),
        (" \t", "characters"),
        ("a" * (LONGEST + 1), "characters"),
        ("a\0b", "control"),
        ("a\nb", "control"),
        ("a\u200bb", "control"),
        ("a\u202eb", "control"),
        ("a\ud800b", "control"),
        ("ann:b", "colon"),
    ],
)
def test_a_user_that_no_server_could_read_is_refused_without_repeating_it(written: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong) as refusal:
        normalise(written)
    assert not written.strip() or written not in str(refusal.value)


@given(st.text())
def test_a_normalised_user_stays_as_it_is(written: str) -> None:
    try:
        once = normalise(written)
    except ValueError:
        return
    assert normalise(once) == once


@pytest.mark.parametrize(
    ("name", "mailbox", "server"),
    [
        ("branch", "ann@example.com", "branch"),
        (None, "ann@example.com", "head-office"),
        (None, "ann@example.net", "head-office"),
        (None, "ann@BRANCH.example.com", "branch"),
    ],
)
def test_a_server_is_found_by_name_or_else_by_domain(name: str | None, mailbox: str, server: str) -> None:
    assert TWO.find(name, mailbox) == server


@pytest.mark.parametrize(
    ("name", "mailbox"),
    [("nowhere", "ann@example.com"), (None, "ann@elsewhere.example"), (None, "ann"), (None, "example.com")],
)
def test_a_name_or_domain_of_no_server_is_unknown(name: str | None, mailbox: str) -> None:
    with pytest.raises(UnknownServer):
        TWO.find(name, mailbox)


def test_the_only_server_is_the_one_of_requests_without_a_name() -> None:
    one = ServerDirectory({"head-office": []})

    assert one.find(None, "ann@elsewhere.example") == "head-office"
    assert one.find(None, "ann") == "head-office"
    with pytest.raises(UnknownServer):
        one.find("branch", "ann")


def test_a_domain_without_a_server_may_be_one_that_is_discovered() -> None:
    hosts = frozenset({"autodiscover.example.net", "mail.example.org"})
    servers = ServerDirectory({"main": ("example.com",), "branch": ()}, hosts)

    assert servers.find(None, "ann@EXAMPLE.net") == AUTODISCOVER
    assert servers.find(None, "ann@example.com") == "main"
    assert servers.find("branch", "ann@example.net") == "branch"
    for mailbox in ("ann@example.org", "ann@mail.example.net", "ann"):
        with pytest.raises(UnknownServer):
            servers.find(None, mailbox)


def test_a_login_user_that_is_no_address_cannot_be_discovered() -> None:
    servers = ServerDirectory({"main": (), "branch": ()}, frozenset({"autodiscover.example.net"}))

    assert servers.find(None, "ann@example.net", "ben@example.net") == AUTODISCOVER
    for user in ("EXAMPLE\\ann", "ann@example.org"):
        with pytest.raises(UnknownServer):
            servers.find(None, "ann@example.net", user)


def test_a_server_cannot_be_named_that_stands_for_all_discovered_ones() -> None:
    servers = ServerDirectory({"main": ()}, frozenset({"autodiscover.example.net"}))

    assert servers.find(None, "ann@example.net") == AUTODISCOVER
    with pytest.raises(UnknownServer):
        servers.find(AUTODISCOVER, "ann@example.net")
