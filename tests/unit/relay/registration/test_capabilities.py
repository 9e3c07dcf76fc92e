import pytest

from relay.domain.model import AUTODISCOVER
from relay.registration.capabilities import Capabilities, OAuthFacts, ServerFacts
from relay.registration.errors import InvalidRequest
from relay.registration.identity import ServerDirectory
from relay.security.credentials import CredentialKind

FACTS = ServerFacts(frozenset({CredentialKind.OAUTH}), OAuthFacts("https://login.example.com/token", "relay"))
DIRECTORY = ServerDirectory({"main": ["example.com"], "branch": []}, frozenset({"autodiscover.example.net"}))
ABLE = Capabilities(DIRECTORY, servers={"main": FACTS})


@pytest.mark.parametrize(
    ("mailbox", "name", "server"),
    [
        ("ann@example.com", None, "main"),
        ("nobody-at-all@EXAMPLE.com", None, "main"),
        (None, "main", "main"),
        ("ann@example.com", "branch", "branch"),
        ("ann@example.net", None, AUTODISCOVER),
    ],
)
def test_the_server_is_that_of_a_registration(mailbox: str | None, name: str | None, server: str) -> None:
    found = ABLE.server_of(mailbox, name)

    assert found is not None
    assert found == (server, FACTS if server == "main" else ServerFacts())


@pytest.mark.parametrize(("mailbox", "name"), [("ann@elsewhere.example", None), (None, None), (None, "other")])
def test_a_mailbox_may_be_at_no_server(mailbox: str | None, name: str | None) -> None:
    assert ABLE.server_of(mailbox, name) is None


def test_without_a_mailbox_the_only_server_is_meant() -> None:
    assert Capabilities(ServerDirectory({"main": []})).server_of(None, None) == ("main", ServerFacts())


def test_a_mailbox_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="colon"):
        ABLE.server_of("ann:b@example.com", None)
