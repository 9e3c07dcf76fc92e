from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.domain.outcome import Delivered, Reach, Refused, RetryLater, TokenGone
from relay.push.apns.answers import CHANNEL, TOKEN, read_apns, read_body


def test_200_is_delivered() -> None:
    assert read_apns(200, "", None) == Delivered()


def test_410_is_a_gone_token_with_its_timestamp() -> None:
    assert read_apns(410, "Unregistered", 1_795_420_800_123) == TokenGone(
        "Unregistered", datetime(2026, 11, 23, 8, 0, 0, 123_000, tzinfo=UTC)
    )


@pytest.mark.parametrize("timestamp", [None, 0, -1, 253_402_300_800_000])
def test_410_without_a_valid_timestamp_is_gone_since_an_unknown_time(timestamp: int | None) -> None:
    assert read_apns(410, "ExpiredToken", timestamp) == TokenGone("ExpiredToken", None)


@given(st.integers(100, 599), st.text(), st.none() | st.integers())
def test_only_410_ends_a_token(status: int, reason: str, timestamp: int | None) -> None:
    assert isinstance(read_apns(status, reason, timestamp), TokenGone) == (status == 410)


@given(st.integers(201, 599), st.text())
def test_free_text_never_becomes_a_reason(status: int, reason: str) -> None:
    outcome = read_apns(status, reason, None)

    assert not isinstance(outcome, Delivered)
    assert outcome.reason == f"http-{status}" or outcome.reason.isalnum()


@pytest.mark.parametrize("reason", sorted(TOKEN))
def test_a_bad_token_is_refused_alone(reason: str) -> None:
    outcome = read_apns(400, reason, None)

    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.channel, outcome.reach) == (reason, False, Reach.CHECKED)
    assert "environment" in outcome.remedy


@pytest.mark.parametrize(("reason", "remedy"), sorted(CHANNEL.items()))
def test_a_fault_of_key_certificate_or_topic_concerns_the_channel(reason: str, remedy: str) -> None:
    assert read_apns(403, reason, None) == Refused(reason, remedy, channel=True)


@pytest.mark.parametrize(
    ("reason", "setting"),
    [
        ("TopicDisallowed", "apns.topics"),
        ("InvalidProviderToken", "apns.key_file"),
        ("BadCertificate", "apns.certificate_file"),
        ("BadCertificateEnvironment", "apns.accounts"),
        ("BadEnvironmentKeyIdInToken", "apns.accounts"),
        ("ExpiredProviderToken", "clock"),
    ],
)
def test_the_remedy_names_the_setting(reason: str, setting: str) -> None:
    outcome = read_apns(403, reason, None)

    assert isinstance(outcome, Refused)
    assert setting in outcome.remedy


@pytest.mark.parametrize("status", [403, 413])
def test_some_statuses_concern_the_channel_whatever_the_reason(status: int) -> None:
    outcome = read_apns(status, "SomethingNew", None)

    assert isinstance(outcome, Refused)
    assert outcome.channel


@pytest.mark.parametrize("status", [400, 404, 405, 302])
def test_an_unknown_refusal_concerns_its_token_alone(status: int) -> None:
    outcome = read_apns(status, "SomethingNew", None)

    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.channel, outcome.reach) == ("SomethingNew", False, Reach.ANSWERED)


@pytest.mark.parametrize(
    ("status", "reason", "provider"),
    [
        (429, "TooManyRequests", False),
        (500, "InternalServerError", True),
        (503, "ServiceUnavailable", True),
        (503, "", True),
        (400, "IdleTimeout", False),
    ],
)
def test_a_passing_fault_is_tried_again_after_the_time_that_apple_names(
    status: int, reason: str, provider: bool
) -> None:
    for after in None, 7.0:
        outcome = read_apns(status, reason, None, after)

        assert isinstance(outcome, RetryLater)
        assert (outcome.reason, outcome.after) == (reason or "http-503", after)
        assert (outcome.provider, bool(outcome.remedy)) == (provider, provider)
        assert outcome.reach is Reach.ANSWERED


def test_too_many_provider_tokens_means_to_wait_a_minute_at_least() -> None:
    waits = []
    for after in None, 7.0, 90.0:
        outcome = read_apns(429, "TooManyProviderTokenUpdates", None, after)
        assert isinstance(outcome, RetryLater)
        assert outcome.provider
        waits.append(outcome.after)

    assert waits == [60.0, 60.0, 90.0]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"reason":"Unregistered","timestamp":1795420800123}', ("Unregistered", 1_795_420_800_123)),
        (b'{"reason":"BadDeviceToken"}', ("BadDeviceToken", None)),
        (b'{"reason":7,"timestamp":"x"}', ("", None)),
        (b"{}", ("", None)),
        (b"[]", ("", None)),
        (b"", ("", None)),
        (b"<html>", ("", None)),
        (b"\xff", ("", None)),
        (b"[" * 100_000, ("", None)),
    ],
)
def test_reason_and_timestamp_are_found_or_not(body: bytes, found: tuple[str, int | None]) -> None:
    assert read_body(body) == found
