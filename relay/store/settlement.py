"""Own the decision how an outcome changes its mark, and whether it ends a registration; no SQL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final

from relay.domain.model import DuePush, Mark, Platform, RegistrationId, RegistrationState
from relay.domain.outcome import Delivered, Outcome, Refused, RetryLater, TokenGone
from relay.domain.pacing import Pacing
from relay.domain.ports.outbox import Settlement
from relay.push import backoff
from relay.store.claims import FREE, key
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


STALE_GONE: Final = timedelta(minutes=15)
"""How long a mark rests whose token was called gone as of before we got it; the provider may know better soon."""

FAREWELL: Final = timedelta(days=1)
"""How long a wiped registration is kept for a provider that does not take its last push."""


@dataclass(slots=True)
class Verdict:
    """Hold the rows that a group of settlements leads to, in the order of their keys."""

    notes: list[dict[str, Any]] = field(default_factory=list)
    """Keys and new values of registrations."""
    gone: list[RegistrationId] = field(default_factory=list)
    over: list[RegistrationId] = field(default_factory=list)
    """Wiped registrations that were told, or cannot be: to delete."""
    done: list[tuple[RegistrationId, Mark]] = field(default_factory=list)
    """Keys of marks to delete."""
    kept: list[dict[str, Any]] = field(default_factory=list)
    """Keys and new values of marks that stay."""
    due: set[Platform] = field(default_factory=set)
    """The platforms of those that are to be looked at before their old moment."""


def settle(
    settlements: Sequence[Settlement],
    tokens: Mapping[str, AnyRow],
    marks: Mapping[tuple[str, str], AnyRow],
    now: datetime,
    pacing: Pacing,
) -> Verdict:
    """Decide over settlements, given the present tokens by registration and the present marks by key.

    A mark that began at another moment than the one sent is another one: ours was delivered by somebody else
    meanwhile, after our claim had run out. It stays as it is.
    """
    verdict = Verdict(take_notes(settlements, tokens, now, pacing.random))
    verdict.over = sorted({s.push.registration_id for s in settlements if _over(s, tokens, now)})
    verdict.gone = sorted({s.push.registration_id for s in settlements if _gone(s, tokens)}.difference(verdict.over))
    ended = frozenset(verdict.gone).union(verdict.over)
    for settlement in sorted(settlements, key=lambda s: (s.push.registration_id, s.push.mark)):
        push = settlement.push
        mark = marks.get((push.registration_id, push.mark.value))
        if mark is None or mark.first_at != push.first_at or push.registration_id in ended:
            continue
        values = _after(settlement, mark, tokens[push.registration_id], now, pacing)
        if values is None:
            verdict.done.append((push.registration_id, push.mark))
        else:
            # One statement sets all of them, so each names every column.
            present = {
                "count": mark.changes,
                "first_at": mark.first_at,
                "paced": mark.paced,
                "aside": settlement.parked,
            }
            verdict.kept.append({**key(push), **FREE, **present, **values})
            if values["due_at"] <= now or "count" in values:
                verdict.due.add(push.platform)
    return verdict


def _over(settlement: Settlement, tokens: Mapping[str, AnyRow], now: datetime) -> bool:
    """Tell whether a wiped registration has no more to hear."""
    push, outcome = settlement.push, settlement.outcome
    token = tokens.get(push.registration_id)
    if token is None or token.state != RegistrationState.WIPED.value:
        return False
    if isinstance(outcome, Delivered):
        return push.mark is Mark.ATTENTION
    return isinstance(outcome, TokenGone) or now - push.first_at >= FAREWELL


def _gone(settlement: Settlement, tokens: Mapping[str, AnyRow]) -> bool:
    """Tell whether the registration's present token is the one that is gone."""
    push, outcome = settlement.push, settlement.outcome
    token = tokens.get(push.registration_id)
    if token is None or not isinstance(outcome, TokenGone) or token.device_token != push.device_token:
        return False
    return outcome.gone_since is None or bool(token.token_since <= outcome.gone_since)


def _after(settlement: Settlement, mark: AnyRow, token: AnyRow, now: datetime, pacing: Pacing) -> dict[str, Any] | None:
    """Return the new values of a mark; None: it is done."""
    push, later = settlement.push, settlement.next_try_at
    match settlement.outcome:
        case Delivered() | TokenGone() | Refused(channel=False) if not same_token(push, token):
            # The old token may have been another phone's by now; the one we know since must hear of it.
            return {"attempts": 0, "due_at": now}
        case Delivered() if mark.generation == push.generation:
            return None
        case Delivered():
            left = max(1, mark.changes - push.count)
            due_at = pacing.next_due(push.mark, now)
            return {"count": left, "first_at": mark.last_at, "attempts": 0, "due_at": due_at, "paced": False}
        case TokenGone():
            return {"attempts": mark.attempts + 1, "due_at": later or now + STALE_GONE}
        case Refused(channel=False) if token.state == RegistrationState.ACTIVE.value:
            # Its registration's quarantine holds it back, and lets it go as soon as any push shows the token good.
            return {"attempts": mark.attempts + settlement.counted, "due_at": now}
        case RetryLater() | Refused():
            return {"attempts": mark.attempts + settlement.counted, "due_at": later or now}
