import json
from datetime import UTC, datetime
from urllib.parse import parse_qsl

import pytest

from relay.domain.fcm_device import FcmDevice
from relay.push.fcm.account import ServiceAccount
from relay.push.payload import FcmMessage, Notice
from relay.sandbox.certificates import make_apns_key, make_service_account
from relay.sandbox.fcm_rules import check_assertion, check_message
from tests.keys import rsa_key
from tests.unit.relay.push.pushes import due_push

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
FID = "cAnInventedFid_0123-ab"
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


@pytest.mark.parametrize("spare", [False, True])
def test_a_body_to_a_fid_names_it_in_its_own_field(spare: bool) -> None:
    document, _ = make_service_account("p", TOKENS, rsa_key())
    account = ServiceAccount(json.dumps(document).encode(), "https://fcm.example.com")
    message = FcmMessage(Notice.of(due_push()), spare)

    body = account.body(FcmDevice.of_fid(FID).device_token, message)

    assert check_message(body) == (FID, None)
    to_token = json.loads(account.body(f"{FID}:APA91b", message))
    to_token["message"]["fid"] = to_token["message"].pop("token")[: len(FID)]
    assert json.loads(body) == to_token


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"type":"service_account"}', b"\xff", b"[" * 100_000])
def test_a_file_of_another_kind_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        ServiceAccount(content, "https://fcm.example.com")


@pytest.mark.parametrize("field", ["project_id", "client_email", "private_key", "token_uri"])
@pytest.mark.parametrize("value", [None, "", 7])
def test_an_account_that_lacks_a_field_is_refused_with_its_name(field: str, value: object) -> None:
    document, _ = make_service_account("p", TOKENS, rsa_key())

    with pytest.raises(ValueError, match=f"names no {field}"):
        ServiceAccount(json.dumps({**document, field: value}).encode(), "https://fcm.example.com")


def test_accounts_are_equal_if_they_come_from_the_same_json() -> None:
    document, _ = make_service_account("p", TOKENS, rsa_key())
    content, url = json.dumps(document).encode(), "https://fcm.example.com"

    assert ServiceAccount(content, url) == ServiceAccount(content, url)
    assert hash(ServiceAccount(content, url)) == hash(ServiceAccount(content, url))
    assert ServiceAccount(content, url) != ServiceAccount(content + b" ", url)
    assert ServiceAccount(content, url) != content


def test_a_key_that_cannot_sign_is_refused_before_a_push_needs_it() -> None:
    document, _ = make_service_account("p", TOKENS, rsa_key())
    document["private_key"], _ = make_apns_key()

    with pytest.raises(ValueError, match="no RSA key"):
        ServiceAccount(json.dumps(document).encode(), "https://fcm.example.com")
