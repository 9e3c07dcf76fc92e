import json
from datetime import UTC, datetime
from urllib.parse import parse_qsl

import pytest

from relay.push.fcm.account import ServiceAccount
from relay.push.payload import FcmMessage, Notice
from relay.sandbox.certificates import make_apns_key, make_service_account
from relay.sandbox.fcm_rules import check_assertion, check_message
from tests.keys import rsa_key
from tests.unit.relay.push.pushes import due_push

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
TOKENS = "https://tokens.example.com/token"


def test_the_account_says_where_pushes_and_requests_for_tokens_go() -> None:
    document, _ = make_service_account("a-project", TOKENS, rsa_key())

    account = ServiceAccount(json.dumps(document).encode(), "https://fcm.example.com/")

    assert account.url == "https://fcm.example.com/v1/projects/a-project/messages:send"
    assert account.token_uri == TOKENS


def test_an_assertion_is_one_that_google_takes() -> None:
    document, public = make_service_account("p", TOKENS, rsa_key())
    account = ServiceAccount(json.dumps(document).encode(), "https://fcm.example.com")

    form = dict(parse_qsl(account.assertion(NOW).decode(), strict_parsing=True))

    assert check_assertion(form, public, document["client_email"], TOKENS, NOW) is None


@pytest.mark.parametrize("spare", [False, True])
def test_a_body_is_one_that_fcm_takes(spare: bool) -> None:
    document, _ = make_service_account("p", TOKENS, rsa_key())
    account = ServiceAccount(json.dumps(document).encode(), "https://fcm.example.com")

    body = account.body("a:token", FcmMessage(Notice.of(due_push()), spare))

    assert check_message(body) == ("a:token", None)
    assert json.loads(body)["message"]["android"]["priority"] == ("NORMAL" if spare else "HIGH")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"type":"service_account"}', b"\xff", b"[" * 100_000])
def test_what_is_no_service_account_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        ServiceAccount(content, "https://fcm.example.com")


def test_an_account_without_a_project_is_refused() -> None:
    document, _ = make_service_account("p", TOKENS, rsa_key())
    del document["project_id"]

    with pytest.raises(ValueError, match="project_id"):
        ServiceAccount(json.dumps(document).encode(), "https://fcm.example.com")


def test_a_key_that_cannot_sign_is_refused_before_a_push_needs_it() -> None:
    document, _ = make_service_account("p", TOKENS, rsa_key())
    document["private_key"], _ = make_apns_key()

    with pytest.raises(ValueError, match="no RSA key"):
        ServiceAccount(json.dumps(document).encode(), "https://fcm.example.com")
