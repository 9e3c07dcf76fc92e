"""Own the decision what an outcome leaves on its registration: its last words, and the quarantine; no SQL."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final

from relay.model import DuePush, RegistrationId, RegistrationState
from relay.ports import Settlement
from relay.push import backoff
from relay.push.outcome import Delivered, Outcome, Refused, RetryLater, TokenGone
from relay.store.rows import AnyRow

RELEASED: Final[Mapping[str, Any]] = {
    "quarantined_at": None,
    "quarantine_reason": "",
    "quarantine_remedy": "",
    "rechecks": 0,
    "recheck_at": None,
}
"""What ends a quarantine."""


def take_notes(
    settlements: Sequence[Settlement], tokens: Mapping[str, AnyRow], now: datetime, random: Random
) -> list[dict[str, Any]]:
    """Tell which columns change on each registration that is still there, in the order of their keys."""
    notes: dict[RegistrationId, dict[str, Any]] = {}
    for settlement in settlements:
        push, outcome = settlement.push, settlement.outcome
        token = tokens.get(push.registration_id)
        if token is None:
            continue
        note = notes.setdefault(push.registration_id, {"_registration": push.registration_id})
        note["last_outcome"] = describe(outcome)
        if isinstance(outcome, Delivered):
            note["last_push_at"] = now
            note["pushed"] = (note.get("pushed") or token.pushed or {}) | {push.mark.value: now.timestamp()}
        if same_token(push, token) and token.state == RegistrationState.ACTIVE.value:
            note |= _quarantine(outcome, {name: note.get(name, getattr(token, name)) for name in RELEASED}, now, random)
    return [notes[id_] for id_ in sorted(notes)]


def same_token(push: DuePush, token: AnyRow) -> bool:
    """Tell whether a push went to the device token that the registration has now."""
    return bool(token.device_token == push.device_token and token.environment == push.environment.value)


def describe(outcome: Outcome) -> str:
    """Say in one line what the provider answered."""
    match outcome:
        case Delivered():
            return "delivered"
        case TokenGone(reason):
            return f"token-gone: {reason}"
        case RetryLater(reason):
            return f"retry-later: {reason}"
        case Refused(reason):
            return f"refused: {reason}"


def _quarantine(outcome: Outcome, before: Mapping[str, Any], now: datetime, random: Random) -> Mapping[str, Any]:
    """Begin, lengthen or end a quarantine; pushes that were under way when it began do not lengthen it."""
    since, until = before["quarantined_at"], before["recheck_at"]
    match outcome:
        case Delivered() | TokenGone() if since is not None:
            return RELEASED
        case Refused(reason, remedy, channel=False) if since is None or until is None or until <= now:
            rechecks = before["rechecks"] + 1
            return {
                "quarantined_at": since or now,
                "quarantine_reason": reason,
                "quarantine_remedy": remedy,
                "rechecks": rechecks,
                "recheck_at": now + timedelta(seconds=backoff.recheck(rechecks, random)),
            }
        case _:
            return {}
