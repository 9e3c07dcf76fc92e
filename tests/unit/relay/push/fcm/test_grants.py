import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.domain.outcome import Reach, Refused, RetryLater
from relay.push.fcm.grants import SHORTEST, read_grant
from relay.push.fcm.tokens import AccessToken, TokenNotGiven

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)


def refused(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> RetryLater | Refused:
    with pytest.raises(TokenNotGiven) as caught:
        read_grant(status, body, headers or {}, NOW)
    return caught.value.outcome


@pytest.mark.parametrize(
    ("lives", "seconds"),
    [
        (3599, 3599.0),
        (SHORTEST, SHORTEST),
        (10**9, 86400.0),
        ("3599", 3600.0),
        (None, 3600.0),
        (0, 3600.0),
        (True, 3600.0),
    ],
)
def test_a_token_lives_as_long_as_google_says(lives: object, seconds: float) -> None:
    body = json.dumps({"access_token": "ya29.abc-_~+/=", "expires_in": lives, "token_type": "Bearer"}).encode()

    assert read_grant(200, body, {}, NOW) == AccessToken("ya29.abc-_~+/=", NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize("lives", [0.5, 5, SHORTEST - 1])
def test_a_token_with_too_short_a_lifetime_is_refused(lives: float) -> None:
    outcome = refused(200, json.dumps({"access_token": "ya29.abc", "expires_in": lives}).encode())

    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.channel, outcome.reach) == ("token-too-short-lived", True, Reach.UNANSWERED)
    assert "token_uri" in outcome.remedy


@pytest.mark.parametrize(
    "body",
    [b"<html>Sign in", b"[]", b"{}", b'{"access_token":7}', b'{"access_token":"a\\r\\nHost: b"}', b"[" * 100_000],
)
def test_a_200_without_a_token_came_from_something_else(body: bytes) -> None:
    outcome = refused(200, body)

    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.channel, outcome.reach) == ("token-not-from-google", True, Reach.UNANSWERED)
    assert "token_uri" in outcome.remedy


def test_a_refused_key_is_a_fault_of_the_channel_and_only_the_code_is_kept() -> None:
    outcome = refused(400, b'{"error":"invalid_grant","error_description":"free text"}')

    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.channel, outcome.reach) == ("token-refused: invalid_grant", True, Reach.UNANSWERED)
    assert "fcm.service_account_file" in outcome.remedy


@pytest.mark.parametrize(("status", "body"), [(302, b""), (403, b"<html>"), (404, b"{}"), (400, b'{"error":"a b"}')])
def test_a_refusal_in_another_form_came_from_something_else(status: int, body: bytes) -> None:
    outcome = refused(status, body)

    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.channel, outcome.reach) == (f"token-refused: http-{status}", True, Reach.UNANSWERED)
    assert "proxy" in outcome.remedy


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (503, b"", "http-503"),
        (429, b"{}", "http-429"),
        (408, b"", "http-408"),
        (400, b'{"error":"temporarily_unavailable"}', "temporarily_unavailable"),
        (500, b'{"error":"internal_failure"}', "internal_failure"),
    ],
)
def test_a_passing_fault_concerns_the_provider(status: int, body: bytes, reason: str) -> None:
    outcome = refused(status, body, {"retry-after": "4"})

    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.after, outcome.provider) == (f"token-refused: {reason}", 4.0, True)


@given(st.integers(200, 599), st.binary())
def test_answers_of_any_form_are_read_without_an_error(status: int, body: bytes) -> None:
    assert refused(status, body).reason
