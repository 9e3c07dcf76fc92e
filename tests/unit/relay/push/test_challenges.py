import asyncio
from datetime import datetime

from relay.domain.challenge import hash_nonce
from relay.domain.errors import StoreUnavailable
from relay.domain.model import DuePush, Mark
from relay.domain.outcome import Delivered, Outcome, PushEnd, Reach, Refused, RetryLater
from relay.push.challenges import AWAY, ChallengingSender
from tests.unit.relay.push.pushes import BEGAN, due_push


class Provider:
    def __init__(self, outcome: Outcome | None = None) -> None:
        self.outcome = outcome or Delivered()
        self.sent: list[DuePush] = []

    async def send(self, push: DuePush) -> Outcome:
        self.sent.append(push)
        return self.outcome


class Notes:
    """A ChallengeStore that answers as it is told."""

    def __init__(self, answer: float | Exception | None = None) -> None:
        self.answer = answer
        self.noted: list[bytes] = []
        self.taken_back: list[DuePush] = []
        self.fault: Exception | None = None

    async def take_back(self, push: DuePush) -> None:
        if self.fault is not None:
            raise self.fault
        self.taken_back.append(push)

    async def issue(self, push: DuePush, nonce_hash: bytes, now: datetime) -> float | None:
        assert now == BEGAN
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is None:
            self.noted.append(nonce_hash)
        return self.answer


def send(push: DuePush, notes: Notes, provider: Provider) -> PushEnd:
    tokens = iter("abc")
    sender = ChallengingSender(provider, notes, lambda: BEGAN, lambda size: f"{next(tokens)}-{size}")
    return asyncio.run(sender.send(push))


def test_a_challenge_leaves_with_a_new_nonce_whose_hash_is_noted_before() -> None:
    provider, notes = Provider(), Notes()

    outcome = send(due_push(mark=Mark.CHALLENGE), notes, provider)

    assert outcome == Delivered()
    assert [push.nonce for push in provider.sent] == ["a-16"]
    assert notes.noted == [hash_nonce("a-16")]
    assert "a-16" not in repr(provider.sent)


def test_other_pushes_go_as_they_are() -> None:
    provider, notes = Provider(), Notes()

    assert send(due_push(), notes, provider) == Delivered()

    assert (provider.sent, notes.noted) == ([due_push()], [])


def test_a_challenge_that_the_provider_did_not_take_does_not_count() -> None:
    push = due_push(mark=Mark.CHALLENGE)
    away, refused = RetryLater("503", reach=Reach.ANSWERED), Refused("BadDeviceToken", "correct it")
    for outcome, expected in ((away, [push]), (refused, []), (Delivered(), [])):
        notes = Notes()

        assert send(push, notes, Provider(outcome)) == outcome

        assert notes.taken_back == expected


def test_the_outcome_of_a_challenge_stands_when_the_database_is_away_then() -> None:
    for fault in (StoreUnavailable("away"), TimeoutError()):
        notes = Notes()
        notes.fault = fault

        assert send(due_push(mark=Mark.CHALLENGE), notes, Provider(RetryLater("503"))) == RetryLater("503")


def test_beyond_the_limit_of_a_device_nothing_leaves() -> None:
    provider = Provider()

    outcome = send(due_push(mark=Mark.CHALLENGE), Notes(77.0), provider)

    assert outcome == RetryLater("too many challenges for this device or mailbox", after=77.0, reach=Reach.HERE)
    assert provider.sent == []


def test_without_the_database_nothing_leaves() -> None:
    for error in (StoreUnavailable("away"), TimeoutError()):
        provider = Provider()

        outcome = send(due_push(mark=Mark.CHALLENGE), Notes(error), provider)

        assert isinstance(outcome, RetryLater)
        assert (outcome.after, outcome.reach, provider.sent) == (AWAY, Reach.HERE, [])
