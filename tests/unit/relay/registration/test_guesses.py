from datetime import UTC, datetime, timedelta

import pytest

from relay.domain.model import RegistrationId
from relay.registration import guesses
from relay.registration.errors import CredentialRefused, NotAuthorized, TooManyRefusals
from relay.registration.guesses import LIMIT, WINDOW, Guesses

NOW = datetime(2026, 11, 24, 8, 30, tzinfo=UTC)
ANN, BEN = RegistrationId("ann"), RegistrationId("ben")


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def guess(counted: Guesses, id_: RegistrationId = ANN) -> None:
    with pytest.raises(NotAuthorized), counted.one(id_):
        raise NotAuthorized("no")


def test_after_a_few_wrong_credentials_none_is_compared_for_an_hour() -> None:
    clock = Clock()
    counted = Guesses(clock)
    for _ in range(LIMIT):
        guess(counted)

    clock.now += timedelta(minutes=10)
    with pytest.raises(TooManyRefusals) as refused, counted.one(ANN):
        raise AssertionError
    assert refused.value.retry_after == 50 * 60
    with counted.one(BEN):
        pass
    for moment in (NOW + WINDOW + timedelta(seconds=1), NOW - WINDOW - timedelta(seconds=1)):
        clock.now = moment
        with counted.one(ANN):
            pass


def test_requests_that_come_at_once_are_counted_before_they_are_answered() -> None:
    counted = Guesses(Clock())

    with counted.one(ANN), counted.one(ANN), counted.one(ANN), pytest.raises(TooManyRefusals), counted.one(ANN):
        raise AssertionError


def test_what_opens_or_fails_otherwise_does_not_count() -> None:
    counted = Guesses(Clock())

    for _ in range(2 * LIMIT):
        with counted.one(ANN):
            pass
        with pytest.raises(CredentialRefused), counted.one(ANN):
            raise CredentialRefused("wrong", "credential")

    assert counted._counts == {}


def test_it_remembers_no_more_than_it_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "KEPT", 1)
    counted = Guesses(Clock())

    for id_ in (ANN, BEN):
        guess(counted, id_)

    assert list(counted._counts) == [BEN]
