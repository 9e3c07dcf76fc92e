import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import pytest

from eas_watcher.auth.bearer import AuthorizationCode, OAuthCredential
from eas_watcher.auth.grant import LIFETIME, LONGEST, OAuthClient, audience_of, is_user, read_issued, refresh_request
from eas_watcher.commands.request import HttpReply
from eas_watcher.errors import AccessDenied, CredentialVoid, EasError, ProtocolViolation, ServerBusy
from eas_watcher.reasons import Reason

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
CLIENT = OAuthClient("https://login.example.com/token", "relay", "s3cret&", "openid offline_access")
MAIL = "https://mail.example.com/"


def token(claims: Any) -> str:
    body = urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{body}.c2ln"


def answer(status: int = 200, headers: dict[str, str] | None = None, **fields: Any) -> HttpReply:
    return HttpReply(status, headers or {}, json.dumps(fields).encode())


def good(**fields: Any) -> HttpReply:
    return answer(**{"access_token": "access", "token_type": "Bearer", "expires_in": 3600, **fields})


def test_the_request_names_the_relay_and_asks_for_what_the_settings_say() -> None:
    request = refresh_request(CLIENT, OAuthCredential("ann", "refresh"))

    assert (request.method, request.url) == ("POST", "https://login.example.com/token")
    assert "Authorization" not in request.headers
    assert parse_qs(request.body.decode()) == {
        "grant_type": ["refresh_token"],
        "refresh_token": ["refresh"],
        "client_id": ["relay"],
        "client_secret": ["s3cret&"],
        "scope": ["openid offline_access"],
    }


def test_the_secret_is_sent_for_its_own_client_only() -> None:
    fields = parse_qs(refresh_request(CLIENT, OAuthCredential("ann", "refresh", "app-on-phones")).body.decode())

    assert fields["client_id"] == ["app-on-phones"]
    assert "client_secret" not in fields


def test_a_code_is_shown_with_its_verifier_and_where_it_came() -> None:
    code = AuthorizationCode("one-code", "v" * 43, "https://app.example.com/back")
    fields = parse_qs(refresh_request(CLIENT, OAuthCredential("ann", "", code=code)).body.decode())

    assert fields == {
        "grant_type": ["authorization_code"],
        "code": ["one-code"],
        "code_verifier": ["v" * 43],
        "redirect_uri": ["https://app.example.com/back"],
        "client_id": ["relay"],
        "client_secret": ["s3cret&"],
        "scope": ["openid offline_access"],
    }


def test_the_first_answer_of_a_grant_must_have_a_refresh_token() -> None:
    assert read_issued(good(refresh_token="next"), CLIENT, NOW, first=True).refresh_token == "next"
    with pytest.raises(AccessDenied, match="offline_access") as refused:
        read_issued(good(), CLIENT, NOW, first=True)
    assert refused.value.reason is Reason.OAUTH_CLIENT


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (3600, 3600.0),
        ("3600", 3600.0),
        (None, LIFETIME),
        (0, LIFETIME),
        (-5, LIFETIME),
        (True, LIFETIME),
        ("soon", LIFETIME),
        (10**9, LONGEST),
    ],
)
def test_the_lifetime_of_a_token_is_read_in_every_form_that_endpoints_use(said: Any, seconds: float) -> None:
    assert read_issued(good(expires_in=said), CLIENT, NOW).lifetime == seconds


def test_a_rotated_refresh_token_is_returned() -> None:
    assert read_issued(good(refresh_token="next"), CLIENT, NOW).refresh_token == "next"
    assert read_issued(good(refresh_token=None), CLIENT, NOW).refresh_token == ""


@pytest.mark.parametrize("audience", [MAIL, [MAIL, "other"]])
def test_a_token_for_the_mail_server_is_taken(audience: Any) -> None:
    client = OAuthClient(CLIENT.token_endpoint, "relay", audience=frozenset({MAIL}))

    assert read_issued(good(access_token=token({"aud": audience})), client, NOW).access_token


@pytest.mark.parametrize("audience", ["https://graph.example.com", [], ["other"]])
def test_a_token_for_another_service_is_never_sent(audience: Any) -> None:
    client = OAuthClient(CLIENT.token_endpoint, "relay", audience=frozenset({MAIL}))

    with pytest.raises(AccessDenied) as caught:
        read_issued(good(access_token=token({"aud": audience})), client, NOW)
    assert caught.value.reason == Reason.OAUTH_AUDIENCE


@pytest.mark.parametrize("text", ["opaque", "a.b", "a.!!.c", "a.W10.c", token({"sub": "ann"}), token({"aud": 5})])
def test_a_token_that_cannot_be_read_is_sent_to_the_server(text: str) -> None:
    assert audience_of(text) is None
    client = OAuthClient(CLIENT.token_endpoint, "relay", audience=frozenset({MAIL}))
    assert read_issued(good(access_token=text), client, NOW).access_token == text


def test_the_names_of_the_user_are_read_where_the_tokens_say_them() -> None:
    client = OAuthClient(CLIENT.token_endpoint, "relay", user_claims=frozenset({"upn", "preferred_username"}))
    identity = token({"preferred_username": "ann", "name": "Ann Smith", "upn": ["no text"]})
    issued = read_issued(good(access_token=token({"upn": "ann@example.com"}), id_token=identity), client, NOW)

    assert issued.users == {"ann@example.com", "ann"}
    assert read_issued(good(access_token="opaque", id_token=7), client, NOW).users == frozenset()
    assert read_issued(good(id_token=identity), CLIENT, NOW).users == frozenset()


@pytest.mark.parametrize(
    ("user", "named", "same"),
    [
        ("ann@example.com", {"ANN@example.com"}, True),
        ("ann@example.com", {"ben@example.com"}, False),
        ("ann@example.com", {"ann@other.example"}, False),
        ("EXAMPLE\\ann", {"example\\Ann"}, True),
        ("EXAMPLE\\ann", {"OTHER\\ann"}, False),
        ("EXAMPLE\\ann", {"ann@example.com"}, True),
        ("EXAMPLE\\ann", {"ben@example.com"}, False),
        ("ann@example.com", {"EXAMPLE\\ann"}, True),
        ("ann", {"ann@example.com"}, True),
        ("ann", {"ben", "EXAMPLE\\ben"}, False),
        ("ann@example.com", {"asmith", "ann@example.com"}, True),
        ("ann@example.com", set(), True),
    ],
)
def test_a_token_is_of_the_user_whom_it_names_or_of_anybody(user: str, named: set[str], same: bool) -> None:
    assert is_user(user, frozenset(named)) is same


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (answer(400, error="invalid_grant"), CredentialVoid, "log in again"),
        (answer(400, error="interaction_required"), CredentialVoid, "log in again"),
        (answer(401, error="invalid_client"), AccessDenied, "invalid_client"),
        (answer(400, error="Invalid <b>"), AccessDenied, "HTTP 400"),
        (HttpReply(403, {}, b"no json"), AccessDenied, "HTTP 403"),
        (answer(400, error="temporarily_unavailable"), ServerBusy, "temporarily"),
        (answer(503, {"retry-after": "30"}), ServerBusy, "token endpoint"),
        (answer(302), ProtocolViolation, "HTTP 302"),
        (answer(404), ProtocolViolation, "HTTP 404"),
        (answer(), ProtocolViolation, "no access token"),
        (HttpReply(200, {}, b"[" * 100_000), ProtocolViolation, "no access token"),
        (good(access_token="a b"), ProtocolViolation, "no access token"),
        (good(token_type="mac"), ProtocolViolation, "another type"),
        (good(refresh_token="a b"), ProtocolViolation, "cannot be sent"),
    ],
)
def test_every_other_answer_raises_the_error_that_it_means(reply: HttpReply, kind: type[EasError], words: str) -> None:
    with pytest.raises(kind, match=words):
        read_issued(reply, CLIENT, NOW)


def test_the_wait_is_as_long_as_the_endpoint_says() -> None:
    with pytest.raises(ServerBusy) as caught:
        read_issued(answer(503, {"retry-after": "30"}), CLIENT, NOW)
    assert caught.value.retry_after == 30
    assert not caught.value.reached


def test_nothing_shows_a_secret() -> None:
    assert "s3cret" not in repr(CLIENT)
    assert "next" not in repr(read_issued(good(refresh_token="next"), CLIENT, NOW))


def test_a_client_without_a_scope_names_none() -> None:
    client = OAuthClient("https://login.example.com/token", "relay", "", "")

    assert "scope" not in parse_qs(refresh_request(client, OAuthCredential("ann", "refresh")).body.decode())
