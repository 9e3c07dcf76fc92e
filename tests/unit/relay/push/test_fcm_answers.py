import json
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.push.fcm_answers import FcmError, read_error, read_fcm, retry_after, token_refused
from relay.push.outcome import Delivered, Outcome, Refused, RetryLater, TokenGone

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
FCM = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
INFO = "type.googleapis.com/google.rpc.ErrorInfo"


def error(status: str, code: str = "", info: str = "") -> bytes:
    details: list[object] = [{"@type": "type.googleapis.com/google.rpc.Help"}, "no object"]
    if info:
        details.append({"@type": INFO, "reason": info})
    if code:
        details.append({"@type": FCM, "errorCode": code})
    return json.dumps({"error": {"code": 1, "message": "free text", "status": status, "details": details}}).encode()


def read(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Outcome:
    return read_fcm(status, body, headers or {}, NOW)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"name":"projects/p/messages/0:12%34"}', "projects/p/messages/0:12%34"),
        (b'{"name":"something else"}', ""),
        (b'{"name":7}', ""),
        (b"[]", ""),
        (b"not JSON", ""),
    ],
)
def test_200_is_delivered_under_the_name_of_the_message(body: bytes, name: str) -> None:
    assert read(200, body) == Delivered(name)


def test_unregistered_is_a_gone_token() -> None:
    assert read(404, error("NOT_FOUND", "UNREGISTERED")) == TokenGone("UNREGISTERED")


@given(st.integers(201, 599), st.text(), st.text(), st.text())
def test_nothing_but_unregistered_ever_kills_a_token(status: int, canonical: str, code: str, info: str) -> None:
    if code != "UNREGISTERED":
        assert not isinstance(read(status, error(canonical, code, info)), TokenGone | Delivered)


def test_an_unknown_project_concerns_the_channel() -> None:
    outcome = read(404, error("NOT_FOUND"))

    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.channel) == ("NOT_FOUND", True)
    assert "project" in outcome.remedy


def test_a_disabled_api_concerns_the_channel_and_says_why() -> None:
    outcome = read(403, error("PERMISSION_DENIED", info="SERVICE_DISABLED"))

    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.channel) == ("SERVICE_DISABLED", True)


@pytest.mark.parametrize(
    ("status", "code", "channel"),
    [
        (403, "SENDER_ID_MISMATCH", False),
        (400, "INVALID_ARGUMENT", False),
        (401, "THIRD_PARTY_AUTH_ERROR", True),
    ],
)
def test_fcms_own_refusals(status: int, code: str, channel: bool) -> None:
    outcome = read(status, error("ANY", code))

    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.channel) == (code, channel)


@pytest.mark.parametrize(("status", "channel"), [(400, False), (401, True), (403, True), (404, True)])
def test_a_refusal_without_a_code_is_judged_by_its_status(status: int, channel: bool) -> None:
    outcome = read(status, b"<html>")

    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.channel) == (f"http-{status}", channel)


@pytest.mark.parametrize(
    ("status", "code"),
    [(503, "UNAVAILABLE"), (500, "INTERNAL"), (403, "UNAVAILABLE"), (418, "SOMETHING_NEW")],
)
def test_what_passes_by_itself_is_tried_again(status: int, code: str) -> None:
    assert read(status, error("ANY", code)) == RetryLater(code)


def test_retry_after_is_honoured() -> None:
    assert read(503, b"", {"retry-after": "7"}) == RetryLater("http-503", 7.0)


def test_a_quota_that_names_no_time_is_given_a_minute() -> None:
    assert read(429, b"") == RetryLater("http-429", 60.0)
    assert read(400, error("ANY", "QUOTA_EXCEEDED")) == RetryLater("QUOTA_EXCEEDED", 60.0)
    assert read(429, error("ANY", "QUOTA_EXCEEDED"), {"retry-after": "5"}) == RetryLater("QUOTA_EXCEEDED", 5.0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 5 ", 5.0),
        ("0", 0.0),
        ("999999", 3600.0),
        ("Mon, 23 Nov 2026 08:00:30 GMT", 30.0),
        ("Mon, 23 Nov 2026 08:00:30 -0000", 30.0),
        ("Mon, 23 Nov 2026 07:00:00 GMT", 0.0),
        ("Mon, 23 Nov 2099 08:00:00 GMT", 3600.0),
        ("", None),
        ("soon", None),
        ("-3", None),
        ("٣", None),
        ("Mon, 99 Nov 2026 08:00:30 GMT", None),
    ],
)
def test_retry_after_names_seconds_or_a_date_or_nothing(value: str, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


@given(st.text())
def test_no_header_breaks_retry_after(value: str) -> None:
    seconds = retry_after(value, NOW)

    assert seconds is None or 0.0 <= seconds <= 3600.0


@pytest.mark.parametrize(
    ("status", "body", "refused"),
    [
        (401, error("UNAUTHENTICATED", info="ACCESS_TOKEN_EXPIRED"), True),
        (401, b"", True),
        (401, error("UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"), False),
        (403, error("PERMISSION_DENIED"), False),
        (200, b"{}", False),
    ],
)
def test_only_our_own_token_is_worth_a_new_one(status: int, body: bytes, refused: bool) -> None:
    assert token_refused(status, body) == refused


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b'{"error":"text"}', b"[" * 100_000, b'{"error":{"status":"no code","details":{}}}'],
)
def test_a_body_that_is_not_googles_has_no_codes(body: bytes) -> None:
    assert read_error(body) == FcmError()


def test_all_codes_are_found_and_the_first_of_a_kind_counts() -> None:
    details = [
        {"@type": FCM, "errorCode": "INTERNAL"},
        {"@type": FCM, "errorCode": "UNAVAILABLE"},
        {"@type": INFO, "reason": "FIRST"},
        {"@type": INFO, "reason": "SECOND"},
        {"@type": FCM, "errorCode": 7},
    ]
    body = json.dumps({"error": {"status": "ABORTED", "details": details}}).encode()

    assert read_error(body) == FcmError("ABORTED", "INTERNAL", "FIRST")


def test_the_most_telling_code_names_an_error() -> None:
    assert FcmError("A", "B", "C").name(400) == "B"
    assert FcmError("A", "", "C").name(400) == "C"
    assert FcmError("A").name(400) == "A"
    assert FcmError().name(400) == "http-400"
