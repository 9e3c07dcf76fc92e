from datetime import UTC, datetime

from relay.domain.outcome import Delivered, Refused, RetryLater, TokenGone

SINCE = datetime(2026, 11, 23, tzinfo=UTC)


def test_outcomes_are_equal_by_value_and_differ_by_remedy() -> None:
    assert TokenGone("Unregistered", SINCE) == TokenGone("Unregistered", SINCE)
    assert len({Delivered(), TokenGone("a"), RetryLater("a"), Refused("a", "b"), Refused("a", "b", channel=True)}) == 5


def test_a_refusal_blames_one_token_and_a_retry_names_no_time_unless_told_otherwise() -> None:
    assert not Refused("BadDeviceToken", "look").channel
    assert RetryLater("busy").after is None
    assert TokenGone("UNREGISTERED").gone_since is None
