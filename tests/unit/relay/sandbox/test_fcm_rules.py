import json
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest

from relay.sandbox.certificates import make_service_account
from relay.sandbox.fcm_rules import (
    AUDIENCE,
    GRANT,
    SCOPE,
    check_assertion,
    check_message,
    fcm_error,
    only_validates,
    unauthenticated,
    unknown_project,
)
from tests.keys import rsa_key

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
SECOND = int(NOW.timestamp())
URI = "https://127.0.0.1:1/token"
ACCOUNT, PUBLIC = make_service_account("p", URI, rsa_key())


def assertion(**changes: Any) -> str:
    claims = {"iss": ACCOUNT["client_email"], "aud": URI, "iat": SECOND, "exp": SECOND + 3600, "scope": SCOPE} | changes
    return jwt.encode(
        {name: value for name, value in claims.items() if value is not None}, ACCOUNT["private_key"], "RS256"
    )


def checked(text: str, grant: str = GRANT) -> str | None:
    return check_assertion({"grant_type": grant, "assertion": text}, PUBLIC, ACCOUNT["client_email"], URI, NOW)


@pytest.mark.parametrize("changes", [{}, {"aud": AUDIENCE}, {"scope": f"other {SCOPE}"}])
def test_a_valid_assertion_is_accepted(changes: dict[str, Any]) -> None:
    assert checked(assertion(**changes)) is None


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (assertion(iss="ben@example.com"), "invalid_grant"),
        (assertion(aud="https://example.com/token"), "invalid_grant"),
        (assertion(exp=SECOND + 7200), "invalid_grant"),
        (assertion(exp=SECOND), "invalid_grant"),
        (assertion(iat=SECOND + 7200, exp=SECOND + 10_800), "invalid_grant"),
        (assertion(scope="https://www.googleapis.com/auth/drive"), "invalid_scope"),
        (assertion(scope=None), "invalid_grant"),
        (assertion()[:-8] + "AAAAAAAA", "invalid_grant"),
        ("", "invalid_grant"),
    ],
)
def test_an_assertion_with_wrong_claims_or_signature_is_refused(text: str, wrong: str) -> None:
    assert checked(text) == wrong


def test_another_grant_type_is_unsupported() -> None:
    assert checked(assertion(), "password") == "unsupported_grant_type"


MESSAGE: dict[str, Any] = {
    "token": "t",
    "data": {"v": "1"},
    "android": {"priority": "HIGH", "ttl": "60s", "collapse_key": "k"},
}


FID = "cAnInventedFid_0123-ab"


def test_a_message_to_a_fid_is_accepted() -> None:
    message = {name: value for name, value in MESSAGE.items() if name != "token"} | {"fid": FID}

    assert check_message(json.dumps({"message": message}).encode()) == (FID, None)


@pytest.mark.parametrize(
    ("targets", "field"),
    [
        ({"fid": FID, "token": "t"}, "message"),
        ({"fid": ""}, "message.fid"),
        ({"fid": 7}, "message.fid"),
        ({"fid": FID + "x"}, "message.fid"),
        ({"fid": f"{FID}:APA91b"}, "message.fid"),
        ({"token": FID}, "message.token"),
        ({}, "message.token"),
    ],
)
def test_a_message_has_one_target_in_its_own_field(targets: dict[str, Any], field: str) -> None:
    message = {name: value for name, value in MESSAGE.items() if name != "token"} | targets

    _, refusal = check_message(json.dumps({"message": message}).encode())

    assert refusal is not None
    assert refusal.status == 400
    assert f'"field": "{field}"' in json.dumps(refusal.document)


def test_a_valid_message_is_accepted() -> None:
    assert check_message(json.dumps({"message": MESSAGE, "validate_only": False}).encode()) == ("t", None)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ([], "message"),
        ({}, "message"),
        ({"message": MESSAGE, "extra": 1}, "extra"),
        ({"message": MESSAGE | {"notification": {"title": "x"}}}, "message.notification"),
        ({"message": MESSAGE | {"token": ""}}, "message.token"),
        ({"message": MESSAGE | {"token": 1}}, "message.token"),
        ({"message": MESSAGE | {"data": []}}, "message.data"),
        ({"message": MESSAGE | {"data": {"count": 2}}}, "message.data[count]"),
        ({"message": MESSAGE | {"data": {"from": "x"}}}, "message.data[from]"),
        ({"message": MESSAGE | {"data": {"gcm.x": "x"}}}, "message.data[gcm.x]"),
        ({"message": MESSAGE | {"data": {"x": "x" * 4096}}}, "message.data"),
        ({"message": MESSAGE | {"android": 1}}, "message.android"),
        ({"message": MESSAGE | {"android": {"prio": "HIGH"}}}, "message.android.prio"),
        ({"message": MESSAGE | {"android": {"priority": "high"}}}, "message.android.priority"),
        ({"message": MESSAGE | {"android": {"ttl": "60"}}}, "message.android.ttl"),
        ({"message": MESSAGE | {"android": {"ttl": 60}}}, "message.android.ttl"),
        ({"message": MESSAGE | {"android": {"collapse_key": 1}}}, "message.android.collapse_key"),
    ],
)
def test_the_refusal_of_a_message_names_the_field(document: object, field: str) -> None:
    _, refusal = check_message(json.dumps(document).encode())

    assert refusal is not None
    assert refusal.status == 400
    text = json.dumps(refusal.document)
    assert f'"field": "{field}"' in text
    assert '"errorCode": "INVALID_ARGUMENT"' in text


def test_a_body_that_is_no_json_is_refused() -> None:
    _, refusal = check_message(b"{")

    assert refusal is not None
    assert refusal.status == 400


@pytest.mark.parametrize(
    ("code", "given", "status"),
    [("UNREGISTERED", None, 404), ("QUOTA_EXCEEDED", None, 429), ("UNAVAILABLE", 502, 502), ("STRANGE", None, 500)],
)
def test_errors_have_the_status_of_their_code(code: str, given: int | None, status: int) -> None:
    assert fcm_error(code, given).status == status


def test_an_unknown_project_is_not_an_unregistered_token() -> None:
    assert unknown_project().status == 404
    assert "UNREGISTERED" not in json.dumps(unknown_project().document)
    assert unauthenticated().status == 401


@pytest.mark.parametrize(
    ("body", "only"),
    [
        (b'{"validate_only": true}', True),
        (b'{"validateOnly": true}', True),
        (b'{"validate_only": false}', False),
        (b"[]", False),
        (b"no json", False),
    ],
)
def test_a_message_may_be_checked_and_not_sent(body: bytes, only: bool) -> None:
    assert only_validates(body) is only
