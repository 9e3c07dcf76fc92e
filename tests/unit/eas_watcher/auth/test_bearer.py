import pytest

from eas_watcher.auth.bearer import (
    AuthorizationCode,
    Challenge,
    OAuthCredential,
    describe,
    read_challenge,
    read_diagnostics,
    read_schemes,
)
from eas_watcher.auth.credential import UnusableCredential

EXCHANGE = (
    'Bearer client_id="00000002-0000-0ff1-ce00-000000000000", '
    'trusted_issuers="00000001-0000-0000-c000-000000000000@t1, 00000002@t1", '
    'token_types="app_asserted_user_v1 service_asserted_app_v1", '
    'authorization_uri="https://login.example.com/oauth2/authorize", error="invalid_token",'
    'Basic realm="mail.example.com"'
)
ENDPOINT = "https://login.example.com/oauth2/token"
CODE = AuthorizationCode("canary-code", "canary-verifier-of-43-characters-----------", "https://app.example.com/back")


def test_the_challenge_of_exchange_is_read_as_it_comes() -> None:
    issuers = ("00000001-0000-0000-c000-000000000000@t1", "00000002@t1")

    assert read_challenge(EXCHANGE) == Challenge("login.example.com", issuers, "invalid_token")
    assert read_schemes(EXCHANGE) == ("Bearer", "Basic")


@pytest.mark.parametrize(
    ("header", "schemes"),
    [
        ("", ()),
        ("Negotiate,NTLM,Basic realm=x", ("Negotiate", "NTLM", "Basic")),
        ("bearer", ("Bearer",)),
        ('FormBased, basic realm="Bearer"', ("Basic",)),
    ],
)
def test_the_authentication_schemes_are_named_in_the_servers_order(header: str, schemes: tuple[str, ...]) -> None:
    assert read_schemes(header) == schemes


@pytest.mark.parametrize("header", ["", "Negotiate", 'Basic realm="Bearer error=invalid_token"'])
def test_without_bearer_there_is_no_challenge(header: str) -> None:
    assert read_challenge(header) is None


@pytest.mark.parametrize(
    "header",
    [
        'Bearer authorization_uri="https://[broken"',
        'Bearer authorization_uri="https://a b/c", error="<script>"',
        "Bearer authorization_uri=, error=UPPER",
    ],
)
def test_a_value_that_is_no_host_or_word_is_left_out(header: str) -> None:
    assert read_challenge(header) == Challenge()


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (
            '2000003;reason="The audience claim value is invalid \'https://mail\'.";error_category="invalid_resource"',
            "2000003 The audience claim value is invalid 'https://mail'.",
        ),
        ('2000001;reason=" expired "', "2000001 expired"),
        ("", ""),
        ("4001000", ""),
        ('2000003;reason="a\x1b[31mb"', ""),
        ('2000003;reason="' + "a" * 301 + '"', ""),
    ],
)
def test_the_diagnostics_of_exchange_are_read_when_they_are_plain_text(header: str, said: str) -> None:
    assert read_diagnostics(header) == said


def test_a_refusal_says_what_an_operator_can_use() -> None:
    assert describe(Challenge("login.example.com"), ENDPOINT) == "the server refuses the access token (HTTP 401)"
    text = describe(Challenge("sts.example.com", error="invalid_token"), ENDPOINT, "2000003 The audience is wrong")
    assert text == (
        "the server refuses the access token (HTTP 401, invalid_token), saying: 2000003 The audience is wrong"
        "; it wants tokens of sts.example.com"
    )


@pytest.mark.parametrize(("token", "client"), [("", ""), ("a b", ""), ("ä", ""), ("a" * 16_385, ""), ("good", "a b")])
def test_a_token_that_no_endpoint_gives_is_refused(token: str, client: str) -> None:
    with pytest.raises(UnusableCredential):
        OAuthCredential("ann", token, client)


@pytest.mark.parametrize("given", [("", ""), ("two words", ""), ("x" * 16385, ""), ("refresh", "ü")])
def test_a_grant_that_no_token_endpoint_makes_is_refused(given: tuple[str, str]) -> None:
    with pytest.raises(UnusableCredential, match="visible ASCII"):
        OAuthCredential("ann", *given)


@pytest.mark.parametrize(
    ("code", "verifier", "redirect"),
    [
        ("", "v" * 43, "app:/back"),
        ("a b", "v" * 43, "app:/back"),
        ("code", "v" * 42, "app:/back"),
        ("code", "v" * 129, "app:/back"),
        ("code", "v" * 42 + "+", "app:/back"),
        ("code", "v" * 43, ""),
        ("code", "v" * 43, "app:/ä"),
    ],
)
def test_a_code_that_no_endpoint_gives_or_takes_is_refused(code: str, verifier: str, redirect: str) -> None:
    with pytest.raises(UnusableCredential):
        AuthorizationCode(code, verifier, redirect)


def test_a_grant_has_a_code_or_a_refresh_token() -> None:
    with pytest.raises(UnusableCredential, match="not both"):
        OAuthCredential("ann", "refresh", code=CODE)


def test_the_grant_of_a_code_is_the_same_grant_after_its_exchange() -> None:
    begun = OAuthCredential("ann", "", "app-on-phones", code=CODE)
    exchanged = begun.rotated("first")

    assert (exchanged.refresh_token, exchanged.code, exchanged.client_id) == ("first", None, "app-on-phones")
    assert exchanged.rotated("second").grant == begun.grant != OAuthCredential("ann", "first").grant
    assert "canary" not in repr(begun)


def test_a_rotated_grant_keeps_its_name_and_makes_no_header_of_its_own() -> None:
    first = OAuthCredential("ann", "first", "app-on-phones")
    rotated = first.rotated("second").rotated("third")

    assert (rotated.refresh_token, rotated.client_id) == ("third", "app-on-phones")
    assert rotated.grant == first.grant != OAuthCredential("ann", "third").grant
    assert rotated.authorization() is None  # type: ignore[func-returns-value]  # that it has none is the point
