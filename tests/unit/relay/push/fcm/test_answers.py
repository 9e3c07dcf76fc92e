import json
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.domain.outcome import Delivered, Outcome, Reach, Refused, RetryLater, TokenGone
from relay.push.fcm.answers import read_fcm, token_refused
from relay.push.fcm.errors import Detail

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)


def error(status: str, code: str = "", info: str = "", *details: object) -> bytes:
    every: list[object] = [{"@type": "type.googleapis.com/google.rpc.Help"}, "no object", *details]
    if info:
        every.append({"@type": Detail.ERROR_INFO, "reason": info})
    if code:
        every.append({"@type": Detail.FCM_ERROR, "errorCode": code})
    return json.dumps({"error": {"code": 1, "message": "free text", "status": status, "details": every}}).encode()


def violations(*fields: str) -> Mapping[str, object]:
    return {
        "@type": Detail.BAD_REQUEST,
        "fieldViolations": [{"field": field, "description": "free text"} for field in fields],
    }


def quota(subject: str, description: str = "") -> Mapping[str, object]:
    return {"@type": Detail.QUOTA_FAILURE, "violations": [{"subject": subject, "description": description}]}


def read(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Outcome:
    return read_fcm(status, body, headers or {}, NOW)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"name":"projects/p/messages/0:12%34"}', "projects/p/messages/0:12%34"),
        (b'{"name":"something else"}', ""),
    ],
)
def test_200_is_delivered_under_the_name_of_the_message(body: bytes, name: str) -> None:
    assert read(200, body) == Delivered(name)


@pytest.mark.parametrize("body", [b"", b'{"name":7}', b"[]", b"{}", b"<html>Sign in to the network</html>"])
def test_a_200_that_fcm_did_not_send_delivers_nothing(body: bytes) -> None:
    outcome = read(200, body)

    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.channel) == ("not-from-fcm", True)
    assert "proxy" in outcome.remedy


def test_unregistered_is_a_gone_token() -> None:
    assert read(404, error("NOT_FOUND", "UNREGISTERED")) == TokenGone("UNREGISTERED")


@given(st.integers(201, 599), st.text(), st.text(), st.text())
def test_only_unregistered_ends_a_token(status: int, canonical: str, code: str, info: str) -> None:
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
    assert (outcome.reason, outcome.channel, outcome.reach) == (code, channel, Reach.CHECKED)


@pytest.mark.parametrize("fields", [(), ("message.token",), ("token", "message.token"), ("message.fid",), ("fid",)])
def test_an_argument_that_is_the_device_token_is_refused_alone(fields: tuple[str, ...]) -> None:
    # FCM itself names no field for an invalid token [observed by others in FCM's answers].
    outcome = read(400, error("INVALID_ARGUMENT", "INVALID_ARGUMENT", "", violations(*fields)))

    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.channel) == ("INVALID_ARGUMENT", False)


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", ""])
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (("message.android.ttl",), "INVALID_ARGUMENT: message.android.ttl"),
        (("message.token", "message.data[v]"), "INVALID_ARGUMENT: message.data[v]"),
        (("b", "a"), "INVALID_ARGUMENT: a, b"),
        (("no field, but a text",), "INVALID_ARGUMENT: unknown-field"),
    ],
)
def test_any_other_field_is_a_fault_of_ours_and_never_counts_against_a_token(
    fields: tuple[str, ...], reason: str, code: str
) -> None:
    outcome = read(400, error("INVALID_ARGUMENT", code, "", violations(*fields)))

    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.channel) == (reason, True)
    assert "fault of the relay" in outcome.remedy


@pytest.mark.parametrize(
    ("status", "canonical", "channel"),
    [
        (400, "INVALID_ARGUMENT", False),
        (401, "UNAUTHENTICATED", True),
        (403, "PERMISSION_DENIED", True),
        (404, "NOT_FOUND", True),
    ],
)
def test_a_refusal_without_a_code_of_fcms_own_is_read_by_its_status(status: int, canonical: str, channel: bool) -> None:
    outcome = read(status, error(canonical))

    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.channel) == (canonical, channel)


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 410])
def test_a_refusal_that_google_did_not_send_never_counts_against_a_token(status: int) -> None:
    outcome = read(status, b"<html>")

    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.channel) == (f"http-{status}", True)
    assert ("proxy" in outcome.remedy) == (status != 401)


@pytest.mark.parametrize(
    ("status", "code"), [(503, "UNAVAILABLE"), (500, "INTERNAL"), (403, "UNAVAILABLE"), (500, "SOMETHING_NEW")]
)
def test_a_passing_fault_concerns_fcm_as_a_whole(status: int, code: str) -> None:
    outcome = read(status, error("ANY", code))

    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.after, outcome.provider) == (code, None, True)
    assert "FCM itself" in outcome.remedy


def test_an_unknown_answer_is_tried_again_and_concerns_one_push() -> None:
    assert read(418, error("ANY", "SOMETHING_NEW")) == RetryLater("SOMETHING_NEW", reach=Reach.ANSWERED)


@pytest.mark.parametrize("status", [408, 502, 503, 504])
def test_an_outage_between_the_relay_and_fcm_names_the_proxy(status: int) -> None:
    outcome = read(status, b"<html>", {"retry-after": "7"})

    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.after, outcome.provider) == (f"http-{status}", 7.0, True)
    assert "proxy" in outcome.remedy


@pytest.mark.parametrize(
    ("status", "body", "headers", "reason", "seconds"),
    [
        (429, b"", {}, "http-429", 60.0),
        (400, error("ANY", "QUOTA_EXCEEDED"), {}, "QUOTA_EXCEEDED", 60.0),
        (429, error("ANY", "QUOTA_EXCEEDED"), {"retry-after": "5"}, "QUOTA_EXCEEDED", 5.0),
        (429, error("RESOURCE_EXHAUSTED", info="RATE_LIMIT_EXCEEDED"), {}, "RATE_LIMIT_EXCEEDED", 60.0),
        (429, error("ANY", "QUOTA_EXCEEDED", "", quota("project:1", "per minute")), {}, "QUOTA_EXCEEDED", 60.0),
    ],
)
def test_a_quota_without_a_time_waits_a_minute_and_concerns_all_pushes(
    status: int, body: bytes, headers: Mapping[str, str], reason: str, seconds: float
) -> None:
    outcome = read(status, body, headers)

    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.after, outcome.provider) == (reason, seconds, True)
    assert "quota" in outcome.remedy


@pytest.mark.parametrize("violation", [quota("device:1"), quota("", "Device message rate exceeded"), quota("token")])
def test_the_quota_of_one_device_concerns_that_device_alone(violation: object) -> None:
    outcome = read(429, error("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", "", violation))

    assert outcome == RetryLater("QUOTA_EXCEEDED", 60.0, reach=Reach.ANSWERED)


def test_the_wait_may_stand_in_the_body_and_the_header_comes_first() -> None:
    delay = {"@type": Detail.RETRY_INFO, "retryDelay": "9.5s"}
    body = error("UNAVAILABLE", "UNAVAILABLE", "", delay)

    in_the_body, in_the_header = read(503, body), read(503, body, {"retry-after": "3"})

    assert isinstance(in_the_body, RetryLater)
    assert isinstance(in_the_header, RetryLater)
    assert (in_the_body.after, in_the_header.after) == (9.5, 3.0)


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
def test_only_a_refusal_of_our_own_token_asks_for_a_new_one(status: int, body: bytes, refused: bool) -> None:
    assert token_refused(status, body) == refused
