from datetime import UTC, datetime, timedelta

import pytest

from relay.domain.challenge import LASTS, MOST, WINDOW, Challenge, Spent, hash_nonce, is_answered, spend

NOW = datetime(2026, 11, 24, 8, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)
NONCE = "o0Z3kqXb1vT9sWm2cYgRPA"
CHALLENGE = Challenge(hash_nonce(NONCE), NOW)


@pytest.mark.parametrize(
    ("challenge", "nonce", "after", "answered"),
    [
        (CHALLENGE, NONCE, 0 * SECOND, True),
        (CHALLENGE, NONCE, LASTS, True),
        (CHALLENGE, NONCE, LASTS + SECOND, False),
        (CHALLENGE, NONCE, -SECOND, True),
        (CHALLENGE, NONCE, -LASTS - SECOND, False),
        (CHALLENGE, NONCE + "A", 0 * SECOND, False),
        (CHALLENGE, "", 0 * SECOND, False),
        (CHALLENGE, "\ud800", 0 * SECOND, False),
        (Challenge(None, NOW), NONCE, 0 * SECOND, False),
        (Challenge(None, None), "", 0 * SECOND, False),
        (Challenge(hash_nonce(NONCE), None), NONCE, 0 * SECOND, False),
    ],
)
def test_a_challenge_is_answered_by_its_nonce_in_time(
    challenge: Challenge, nonce: str, after: timedelta, answered: bool
) -> None:
    assert is_answered(challenge, nonce, NOW + after) is answered


def test_a_hash_says_nothing_of_its_nonce() -> None:
    assert len(hash_nonce(NONCE)) == 32
    assert NONCE.encode() not in hash_nonce(NONCE)


def test_a_device_gets_few_challenges_within_an_hour() -> None:
    spent: Spent | None = None
    for number in range(1, MOST + 1):
        found = spend(spent, NOW + number * SECOND)
        assert found == Spent(number, NOW + SECOND)
        assert isinstance(found, Spent)
        spent = found

    assert spend(spent, NOW + 11 * SECOND) == WINDOW.total_seconds() - 10
    assert spend(spent, NOW + SECOND + WINDOW) == 1.0
    assert spend(spent, NOW + 2 * SECOND + WINDOW) == Spent(1, NOW + 2 * SECOND + WINDOW)
    later = NOW - timedelta(days=1)
    assert spend(spent, later) == Spent(1, later), "one of the future was counted by a wrong clock"
