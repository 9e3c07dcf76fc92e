from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from relay.sandbox.apns_rules import (
    OK,
    ApnsResponse,
    Authority,
    Request,
    check_address,
    check_headers,
    check_payload,
)
from relay.sandbox.certificates import make_apns_key, public_pem

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
KEY, KEY_ID = make_apns_key()
TEAM = "TEAM123456"
APP = "com.example.mail"
AUTHORITY = Authority({KEY_ID: (public_pem(KEY), TEAM)}, frozenset({APP}))


def token(made: datetime = NOW, **changes: Any) -> str:
    signed: dict[str, Any] = {"key": KEY, "kid": KEY_ID, "iss": TEAM, "iat": int(made.timestamp())} | changes
    claims = {name: signed[name] for name in ("iss", "iat") if signed[name] is not None}
    return jwt.encode(claims, signed["key"], "ES256", headers={"kid": signed["kid"]})


def request(headers: dict[str, str] | None = None, **changes: Any) -> Request:
    fields: dict[str, Any] = {"method": "POST", "path": "/3/device/00ff", "body": b'{"aps":{}}', "certificate": {}}
    return Request(headers=headers or {}, **(fields | changes))


def authenticated(value: str) -> ApnsResponse | None:
    return AUTHORITY.authenticate(request({"authorization": value}), NOW)


@pytest.mark.parametrize("age", [timedelta(0), timedelta(minutes=60), timedelta(seconds=-30)])
def test_a_fresh_provider_token_is_valid(age: timedelta) -> None:
    assert authenticated(f"bearer {token(NOW - age)}") is None


def test_a_provider_token_expires_after_an_hour_even_if_it_was_valid_before() -> None:
    value = f"bearer {token(NOW)}"
    assert authenticated(value) is None

    later = AUTHORITY.authenticate(request({"authorization": value}), NOW + timedelta(minutes=61))
    assert later == ApnsResponse(403, "ExpiredProviderToken")


@pytest.mark.parametrize(
    "value",
    [
        token(NOW + timedelta(minutes=5)),
        token(kid="OTHERKEY12"),
        token(iss="OTHERTEAM1"),
        token(key=make_apns_key()[0]),
        token(iss=None),
        token(iat=None),
        token(iat="soon"),
        token()[:-4] + "AAAA",
        "no.token.atall",
        "none",
    ],
)
def test_a_provider_token_with_wrong_claims_or_signature_is_invalid(value: str) -> None:
    assert authenticated(f"bearer {value}") == ApnsResponse(403, "InvalidProviderToken")


@pytest.mark.parametrize("value", ["", "bearer", "bearer ", "basic YTpi"])
def test_without_token_and_certificate_the_token_is_missing(value: str) -> None:
    assert authenticated(value) == ApnsResponse(403, "MissingProviderToken")


def test_a_certificate_authenticates_and_names_its_topic() -> None:
    by_certificate = request(certificate={"userId": APP})

    assert AUTHORITY.authenticate(by_certificate, NOW) is None
    assert AUTHORITY.topic(by_certificate) == APP


@pytest.mark.parametrize(
    ("headers", "certificate", "reason"),
    [
        ({}, {}, "MissingTopic"),
        ({"apns-topic": "com.example.other"}, {}, "TopicDisallowed"),
        ({"apns-topic": APP}, {"userId": "com.example.other"}, "TopicDisallowed"),
    ],
)
def test_a_topic_is_required_and_must_be_allowed(
    headers: dict[str, str], certificate: dict[str, str], reason: str
) -> None:
    assert AUTHORITY.topic(request(headers, certificate=certificate)) == ApnsResponse(400, reason)


@pytest.mark.parametrize(
    ("changes", "response"),
    [
        ({}, None),
        ({"method": "GET"}, ApnsResponse(405, "MethodNotAllowed")),
        ({"path": "/4/device/00"}, ApnsResponse(404, "BadPath")),
        ({"path": "/3/device/00/11"}, ApnsResponse(404, "BadPath")),
        ({"path": "/3/device/"}, ApnsResponse(400, "MissingDeviceToken")),
        ({"path": "/3/device/xyz"}, ApnsResponse(400, "BadDeviceToken")),
        ({"path": "/3/device/123"}, ApnsResponse(400, "BadDeviceToken")),
    ],
)
def test_a_request_must_go_to_a_device(changes: dict[str, Any], response: ApnsResponse | None) -> None:
    assert check_address(request(**changes)) == response


ALERT = {"apns-push-type": "alert"}


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (ALERT, None),
        (ALERT | {"apns-id": "123e4567-e89b-12d3-a456-4266554400a0"}, None),
        (ALERT | {"apns-id": "1"}, "BadMessageId"),
        ({}, "InvalidPushType"),
        ({"apns-push-type": "sms"}, "InvalidPushType"),
        (ALERT | {"apns-priority": "7"}, "BadPriority"),
        ({"apns-push-type": "background"}, "BadPriority"),
        ({"apns-push-type": "background", "apns-priority": "10"}, "BadPriority"),
        ({"apns-push-type": "background", "apns-priority": "5"}, None),
        (ALERT | {"apns-expiration": "0"}, None),
        (ALERT | {"apns-expiration": "soon"}, "BadExpirationDate"),
        (ALERT | {"apns-collapse-id": "a" * 64}, None),
        (ALERT | {"apns-collapse-id": "ä" * 33}, "BadCollapseId"),
    ],
)
def test_headers_are_checked_as_documented(headers: dict[str, str], reason: str | None) -> None:
    assert check_headers(headers) == (None if reason is None else ApnsResponse(400, reason))


@pytest.mark.parametrize(
    ("body", "response"),
    [
        (b'{"aps":{}}', None),
        (b'{"aps":{},"x":"' + b"a" * 4079 + b'"}', None),
        (b'{"aps":{},"x":"' + b"a" * 4080 + b'"}', ApnsResponse(413, "PayloadTooLarge")),
        (b"", ApnsResponse(400, "PayloadEmpty")),
        (b"text", ApnsResponse(400, "BadPayload")),
        (b"[]", ApnsResponse(400, "BadPayload")),
        (b'{"aps":1}', ApnsResponse(400, "BadPayload")),
    ],
)
def test_payloads_are_checked(body: bytes, response: ApnsResponse | None) -> None:
    assert check_payload(body) == response


def test_the_body_of_an_answer_has_reason_and_timestamp() -> None:
    assert OK.body == b""
    assert ApnsResponse(400, "BadTopic").body == b'{"reason": "BadTopic"}'
    assert ApnsResponse(410, "Unregistered", 5).body == b'{"reason": "Unregistered", "timestamp": 5}'
