from pathlib import Path

import pytest

from relay.domain.model import Role
from tests.installation import Installation

OAUTH = """credentials = ["oauth"]
oauth_token_endpoint = "https://login.example.com/oauth2/token"
oauth_authorization_endpoint = "https://login.example.com/oauth2/authorize"
oauth_redirect_uris = ["https://mail.example.com/in", "http://127.0.0.1:8400/in", "com.example.mail:/in"]
oauth_client_id = "push-relay"
"""


@pytest.fixture
def site(tmp_path: Path) -> Installation:
    site = Installation(tmp_path)
    site.replace("[servers.main]\n", f"[servers.main]\n{OAUTH}")
    return site


@pytest.mark.parametrize("role", [Role.ALL, Role.API])
def test_the_role_that_takes_codes_knows_where_users_sign_in(site: Installation, role: Role) -> None:
    if role is Role.API:
        site.replace("[api]", '[database]\nurl = "postgresql://relay@db.example.com/relay"\n\n[api]')
    server = site.load(role).servers["main"]

    assert server.oauth_facts is not None
    assert server.oauth_facts.authorization_endpoint == "https://login.example.com/oauth2/authorize"
    assert server.redirects == {"https://mail.example.com/in", "http://127.0.0.1:8400/in", "com.example.mail:/in"}


@pytest.mark.parametrize(
    "endpoint", ["http://login.example.com/authorize", "login.example.com", "https://", "https://login.example.com/#a"]
)
def test_users_sign_in_at_an_https_address(site: Installation, endpoint: str) -> None:
    site.replace("https://login.example.com/oauth2/authorize", endpoint)

    assert site.faults() == [("servers.main.oauth_authorization_endpoint", "is no https:// URL")]


@pytest.mark.parametrize(
    "uri", ["http://mail.example.com/in", "mail:/in", "javascript:alert(1)", "https://mail.example.com/in#a", "a b"]
)
def test_codes_come_where_an_app_can_own_the_address(site: Installation, uri: str) -> None:
    site.replace("com.example.mail:/in", uri)

    assert site.faults() == [("servers.main.oauth_redirect_uris", f"holds {uri}, which no app of yours owns")]


def test_a_scheme_of_an_app_may_have_a_host(site: Installation) -> None:
    site.replace("com.example.mail:/in", "com.example.mail://in")

    assert "com.example.mail://in" in site.load().servers["main"].redirects


def test_addresses_for_codes_without_a_place_to_sign_in_are_a_fault(site: Installation) -> None:
    site.replace('oauth_authorization_endpoint = "https://login.example.com/oauth2/authorize"\n', "")

    wrong = "is set, but oauth_authorization_endpoint is not, so the relay takes no codes"
    assert site.faults() == [("servers.main.oauth_redirect_uris", wrong)]
