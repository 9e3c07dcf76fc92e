from datetime import timedelta

import pytest

from relay.domain.canary import CanaryLog, Goal, Judgement, Result
from relay.domain.model import Platform
from relay.ops.canary import canary
from relay.ops.health import OK, Finding, PartState
from tests.fakes.ops import NOON, HandClock

GOAL = Goal(frozenset({Platform.WEBPUSH}), seconds=30.0, share=0.9)


def finding(log: CanaryLog) -> Finding:
    return canary(log, GOAL, HandClock()).check()


def noted(*results: Result, why: str = "") -> CanaryLog:
    log = CanaryLog()
    for result in results:
        log.note(Judgement(result, {}), NOON - timedelta(minutes=1), why)
    return log


def test_a_canary_that_was_shown_or_not_sent_yet_is_well() -> None:
    assert finding(CanaryLog()) == OK
    assert finding(noted(Result.SHOWN)) == OK
    assert finding(noted(Result.LATE)) == OK, "one mail is too little to say"


@pytest.mark.parametrize(
    ("result", "why", "says", "todo"),
    [
        (Result.NOT_SENT, "smtp-550", "does not take the canary's mails: smtp-550", "canary.smtp_host"),
        (Result.NOT_WATCHED, "credential-refused", "is not watched: credential-refused", "canary.password_file again"),
        (Result.NOT_NOTICED, "", "came to no notice", "in the Inbox"),
        (Result.NOT_ACCEPTED, "", "no provider took the push", "parts of the providers"),
        (Result.NOT_SHOWN, "", "its device did not show it", "phone of the canary"),
    ],
)
def test_a_mail_that_was_not_shown_says_how_far_it_came(result: Result, why: str, says: str, todo: str) -> None:
    once, again = finding(noted(result, why=why)), finding(noted(result, result, why=why))

    assert (once.state, again.state) == (PartState.DEGRADED, PartState.FAILED)
    assert says in once.reason
    assert todo in once.remedy


def test_mails_that_are_late_too_often_miss_the_goal() -> None:
    found = finding(noted(Result.LATE, *[Result.SHOWN] * 7))

    assert found.state is PartState.DEGRADED
    assert found.reason == "87.5% of the canary's mails of the last day were shown within 30 s"
    assert "90.0%" in found.remedy
    assert finding(noted(Result.LATE, *[Result.SHOWN] * 9)) == OK
