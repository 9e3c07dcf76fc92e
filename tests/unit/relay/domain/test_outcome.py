from datetime import UTC, datetime, timedelta

import pytest

from relay.domain.outcome import Delivered, LastOutcome, OutcomeKind, PushEnd, Refused, RetryLater, Shadowed, TokenGone

SINCE = datetime(2026, 11, 23, tzinfo=UTC)


def test_outcomes_are_equal_by_value_and_differ_by_remedy() -> None:
    assert TokenGone("Unregistered", SINCE) == TokenGone("Unregistered", SINCE)
    assert len({Delivered(), TokenGone("a"), RetryLater("a"), Refused("a", "b"), Refused("a", "b", channel=True)}) == 5


def test_by_default_a_refusal_concerns_one_token_and_a_retry_names_no_time() -> None:
    assert not Refused("BadDeviceToken", "look").channel
    assert RetryLater("busy").after is None
    assert TokenGone("UNREGISTERED").gone_since is None


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        (Delivered("provider's id"), "delivered"),
        (TokenGone("Unregistered"), "token-gone: Unregistered"),
        (RetryLater("network-failed: Operation not permitted"), "retry-later: network-failed: Operation not permitted"),
        (Refused("BadDeviceToken", "look"), "refused: BadDeviceToken"),
        (Shadowed(), "shadowed"),
    ],
)
def test_a_last_outcome_is_one_line_that_is_read_back(outcome: PushEnd, line: str) -> None:
    last = LastOutcome.of(outcome)

    assert last.line == line
    assert last.kind is OutcomeKind.of(outcome)
    assert LastOutcome.read(line) == last


@pytest.mark.parametrize(
    ("line", "kind", "reason"),
    [
        # As versions up to 0.1.0 wrote them.
        ("expired: not delivered for 24 h", OutcomeKind.EXPIRED, "not delivered for 24 h"),
        ("expired: 24 h; before: refused: BadTopic", OutcomeKind.EXPIRED, "24 h; before: refused: BadTopic"),
        ("retry-later: 503", OutcomeKind.RETRY_LATER, "503"),
        ("retry-later", OutcomeKind.RETRY_LATER, ""),
        # As a newer version may write them.
        ("deferred: for the night", OutcomeKind.UNKNOWN, "deferred: for the night"),
        ("unknown: indeed", OutcomeKind.UNKNOWN, "unknown: indeed"),
    ],
)
def test_a_line_of_another_version_is_kept_as_it_is(line: str, kind: OutcomeKind, reason: str) -> None:
    last = LastOutcome.read(line)

    assert last == LastOutcome(kind, reason)
    assert last.line == line


def test_an_empty_line_is_no_outcome() -> None:
    assert LastOutcome.read("") is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "expired: not delivered for 24 h; no push process took it"),
        ("retry-later: busy", "expired: not delivered for 24 h; before: retry-later: busy"),
        ("expired: not delivered for 12 h", "expired: not delivered for 12 h"),
        ("deferred: for the night", "expired: not delivered for 24 h; before: deferred: for the night"),
    ],
)
def test_what_expires_keeps_the_outcome_before(before: str, after: str) -> None:
    last = LastOutcome.expired(LastOutcome.read(before), timedelta(days=1))

    assert (last.kind, last.line) == (OutcomeKind.EXPIRED, after)
