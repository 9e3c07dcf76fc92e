"""The health of the canary: whether its mails are sent, noticed and shown, and in time."""

from collections.abc import Mapping
from typing import Final

from relay.domain.canary import CanaryLog, Goal, Result
from relay.domain.clock import Clock
from relay.ops.health import OK, Finding, Part, PartState

FAILING: Final = 2
"""Mails in a row that are not shown: one may be late at the mail server."""

_AGAIN: Final = "After {} write the password into {} again and reload: the relay does not show the refused one again."
_WORDS: Final[Mapping[Result, tuple[str, str]]] = {
    Result.NOT_SENT: (
        "the mail server does not take the canary's mails: {why}",
        f"Look at canary.smtp_host and its other keys. {_AGAIN.format('login-refused', 'canary.smtp_password_file')}",
    ),
    Result.NOT_WATCHED: (
        "the canary's mailbox is not watched: {why}",
        f"Run `relay explain` with canary.user. {_AGAIN.format('credential-refused', 'canary.password_file')}",
    ),
    Result.NOT_NOTICED: (
        "the canary's mail came to no notice",
        "Look whether it is in the Inbox of canary.user; if it is, the watch of the mail server has a fault.",
    ),
    Result.NOT_ACCEPTED: (
        "no provider took the push of the canary's mail",
        "Look at the parts of the providers in canary.platforms, and at the outbox.",
    ),
    Result.NOT_SHOWN: (
        "a provider took the push of the canary's mail, and its device did not show it",
        "Look at the phone of the canary: is it on, does the app run, does it send receipts?",
    ),
}


def canary(log: CanaryLog, goal: Goal, clock: Clock) -> Part:
    """Return the part of the canary in a process that may send its mails."""

    def check() -> Finding:
        if log.last is not None and log.last in _WORDS:
            reason, remedy = _WORDS[log.last]
            state = PartState.FAILED if log.lost >= FAILING else PartState.DEGRADED
            return Finding(state, reason.format(why=log.why), remedy)
        share = log.share(clock())
        if share is None or share >= goal.share:
            return OK
        reason = f"{share:.1%} of the canary's mails of the last day were shown within {goal.seconds:g} s"
        remedy = f"The goal is {goal.share:.1%}: the metric relay_canary_seconds says which stage takes the time."
        return Finding(PartState.DEGRADED, reason, remedy)

    return Part("canary", check)
