"""What the outcomes of pushes change: marks, registrations and their quarantines. Values in, values out.

The store reads the present registrations and marks under its locks, calls `settle`, and writes what `settle` returns in
the same transaction. A change of what a delivery does must also be made in `relay/store/deliveries.py`, which has the
plain case as statements for each database.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random
from typing import Final, NamedTuple, TypeAlias

from relay.domain.model import (
    DuePush,
    Environment,
    Mark,
    Platform,
    PushTestState,
    Quarantine,
    RegistrationId,
    RegistrationState,
)
from relay.domain.outcome import Delivered, LastOutcome, PushEnd, Refused, RetryLater, Shadowed, TokenGone
from relay.domain.pacing import Pacing
from relay.domain.ports.outbox import Settlement
from relay.push import backoff

STALE_GONE: Final = timedelta(minutes=15)
"""How long a mark waits when the 410's timestamp is older than our device token; the provider may know better soon."""
FAREWELL: Final = timedelta(days=1)
"""How long a wiped registration is kept for a provider that does not take its last push."""

PUSHED: Final = frozenset({RegistrationState.ACTIVE, RegistrationState.PROVING})
"""States whose device tokens a provider's answers concern; of a proving one it answers challenges."""
TEST_LASTS: Final = timedelta(hours=1)
"""How long a test push is tried: a person waits for it."""

MarkKey: TypeAlias = tuple[RegistrationId, Mark]


@dataclass(frozen=True, slots=True)
class Recipient:
    """What settlement needs of a registration."""

    id: RegistrationId
    environment: Environment
    device_token: str = field(repr=False)
    token_since: datetime
    state: RegistrationState
    pushed: Mapping[str, float]
    """When each mark was last delivered, or would have been in shadow mode, in seconds since 1970."""
    quarantine: Quarantine | None


@dataclass(frozen=True, slots=True)
class PendingMark:
    """What settlement needs of a mark in the outbox."""

    count: int
    generation: int
    first_at: datetime
    last_at: datetime
    attempts: int
    paced: bool


class RegistrationUpdate(NamedTuple):
    """New values of a registration."""

    id: RegistrationId
    pushed: Mapping[str, float]
    quarantine: Quarantine | None
    last_outcome: LastOutcome
    last_push_at: datetime | None
    """None: no push was delivered; the moment of the last delivery stays."""


@dataclass(frozen=True, slots=True)
class MarkUpdate:
    """New values of a mark that stays; its claim ends."""

    registration_id: RegistrationId
    mark: Mark
    count: int
    first_at: datetime
    due_at: datetime
    attempts: int
    paced: bool
    parked: str
    """Why the mark is parked until `due_at`; empty: it is not."""


@dataclass(frozen=True, slots=True)
class PushTestResult:
    """What a provider said about the test push of a registration; QUEUED: it is tried again."""

    registration_id: RegistrationId
    state: PushTestState
    reason: str
    channel: bool


@dataclass(frozen=True, slots=True)
class Settled:
    """What a group of settlements changes; each list is in the order of its keys."""

    updated: list[RegistrationUpdate]
    gone: list[RegistrationId]
    """Registrations whose device token is gone."""
    forgotten: list[RegistrationId]
    """Wiped registrations that get no more pushes: they cannot be told of the wipe."""
    done: list[MarkKey]
    """Marks to delete."""
    kept: list[MarkUpdate]
    wake: frozenset[Platform]
    """Platforms that have kept marks which fall due earlier than their dispatcher expects."""
    tests: list[PushTestResult] = field(default_factory=list)


def settle(
    settlements: Sequence[Settlement],
    recipients: Mapping[RegistrationId, Recipient],
    marks: Mapping[MarkKey, PendingMark],
    now: datetime,
    pacing: Pacing,
) -> Settled:
    """Return what a group of settlements changes, given the present registrations and marks.

    Where a settlement's registration or mark is missing, it was deleted meanwhile. A mark with another `first_at` than
    the push is a new one: the old one was settled by another process after our claim ran out. It stays as it is.
    """
    present = [each for each in settlements if each.push.registration_id in recipients]
    updated = _update_registrations(present, recipients, now, pacing.random)
    failed = [each for each in present if not isinstance(each.outcome, Delivered)]
    forgotten = {s.push.registration_id for s in failed if _forgets(s, recipients[s.push.registration_id], now)}
    gone = {s.push.registration_id for s in failed if _ends_token(s, recipients[s.push.registration_id])} - forgotten
    ended = gone | forgotten
    tests: list[PushTestResult] = []
    done: list[MarkKey] = []
    kept: list[MarkUpdate] = []
    wake: set[Platform] = set()
    for settlement in sorted(present, key=lambda each: (each.push.registration_id, each.push.mark)):
        push = settlement.push
        mark = marks.get((push.registration_id, push.mark))
        if mark is None or mark.first_at != push.first_at:
            continue
        if push.mark is Mark.TEST and _is_for(push, recipients[push.registration_id]):
            tests += _test_results(settlement, mark, now, ended=push.registration_id in ended)
        if push.registration_id in ended:
            continue
        update = _update_mark(settlement, mark, recipients[push.registration_id], now, pacing)
        if update is None:
            done.append((push.registration_id, push.mark))
            continue
        kept.append(update)
        if update.due_at <= now or isinstance(settlement.outcome, (Delivered, Shadowed)):
            # Kept all the same: the mark grew meanwhile, and the dispatcher does not know when the rest falls due.
            wake.add(push.platform)
    healed = {each.id for each in updated if each.quarantine is None and recipients[each.id].quarantine is not None}
    healed -= ended
    # The marks that the quarantine held back fall due now.
    wake |= {each.push.platform for each in present if each.push.registration_id in healed}
    return Settled(updated, sorted(gone), sorted(forgotten), done, kept, frozenset(wake), tests)


def may_end_registrations(settlements: Iterable[Settlement]) -> list[RegistrationId]:
    """Return the registrations that a group may end, in order: their mailboxes are locked before anything else.

    More may be named than end in fact: the watch role reads their mailboxes once more, which does no harm.
    """
    return sorted({s.push.registration_id for s in settlements if isinstance(s.outcome, TokenGone)})


def _update_registrations(
    settlements: Sequence[Settlement], recipients: Mapping[RegistrationId, Recipient], now: datetime, random: Random
) -> list[RegistrationUpdate]:
    updates: dict[RegistrationId, RegistrationUpdate] = {}
    seconds = now.timestamp()
    for settlement in settlements:
        push, outcome = settlement.push, settlement.outcome
        recipient, update = recipients[push.registration_id], updates.get(push.registration_id)
        before: Recipient | RegistrationUpdate = update or recipient
        pushed, quarantine = before.pushed, before.quarantine
        last_push_at = None if update is None else update.last_push_at
        if recipient.state in PUSHED and _is_for(push, recipient):
            quarantine = _quarantine(outcome, quarantine, now, random)
        if isinstance(outcome, (Delivered, Shadowed)):
            pushed = {**pushed, push.mark.value: seconds}
        if isinstance(outcome, Delivered):
            last_push_at = now
        updates[recipient.id] = RegistrationUpdate(
            recipient.id, pushed, quarantine, LastOutcome.of(outcome), last_push_at
        )
    return [updates[id_] for id_ in sorted(updates)]


def _quarantine(outcome: PushEnd, before: Quarantine | None, now: datetime, random: Random) -> Quarantine | None:
    """Begin, lengthen or end a quarantine; pushes that were under way when it began do not lengthen it."""
    match outcome:
        case Delivered() | TokenGone():
            return None
        case Refused(reason, remedy, channel=False, passing=passing) if before is None or before.due_at(now) <= now:
            rechecks = 1 if before is None else before.rechecks + 1
            since = now if before is None else min(before.since, now)
            recheck_at = now + timedelta(seconds=backoff.recheck(rechecks, random, passing=passing))
            return Quarantine(since, reason, remedy, recheck_at, rechecks, refused_at=now)
        case _:
            return before


def _is_for(push: DuePush, recipient: Recipient) -> bool:
    """Return True if a push went to the device token that the registration has now."""
    return recipient.device_token == push.device_token and recipient.environment is push.environment


def _forgets(settlement: Settlement, recipient: Recipient, now: datetime) -> bool:
    """Return True if a wiped registration that did not get its push cannot be told of the wipe."""
    if recipient.state is not RegistrationState.WIPED:
        return False
    return isinstance(settlement.outcome, TokenGone) or now - settlement.push.first_at >= FAREWELL


def _ends_token(settlement: Settlement, recipient: Recipient) -> bool:
    """Return True if the registration's present device token is the one that is gone."""
    push, outcome = settlement.push, settlement.outcome
    if not isinstance(outcome, TokenGone) or recipient.device_token != push.device_token:
        return False
    if recipient.state not in PUSHED:
        return False  # a new token would make one active whose credential was never accepted
    # An app that registers with FCM again keeps its FID, and APNs may issue the same token again: what the app has sent
    # since the push was claimed is newer than the answer.
    return recipient.token_since <= (outcome.gone_since or push.token_since)


def _test_results(settlement: Settlement, mark: PendingMark, now: datetime, *, ended: bool) -> list[PushTestResult]:
    """Return the result of a test push; none if a later test was asked for meanwhile, which is still to be sent."""
    push, outcome = settlement.push, settlement.outcome
    if mark.generation != push.generation and not ended:
        return []
    match outcome:
        case Delivered():
            state, reason, channel = PushTestState.DELIVERED, "", False
        case TokenGone(reason=reason):
            state, channel = (PushTestState.REFUSED if ended else PushTestState.QUEUED), False
        case Refused(reason=reason, channel=channel):
            state = PushTestState.REFUSED
        case Shadowed():
            return []  # shadow mode holds back no test push
        case RetryLater(reason=reason):  # pragma: no branch -- mypy proves that no other outcome is left
            state, channel = (PushTestState.EXPIRED if _is_too_old(push, now) else PushTestState.QUEUED), False
    return [PushTestResult(push.registration_id, state, reason, channel)]


def _is_too_old(push: DuePush, now: datetime) -> bool:
    return now - push.first_at >= TEST_LASTS


def _ends_test(settlement: Settlement, now: datetime) -> bool:
    """Return True for a test push or a challenge that is not tried again: the app sees its refusal and asks again."""
    push, outcome = settlement.push, settlement.outcome
    if push.mark is Mark.CHALLENGE:
        return isinstance(outcome, Refused) and not outcome.channel
    if push.mark is not Mark.TEST:
        return False
    return isinstance(outcome, Refused) or (isinstance(outcome, RetryLater) and _is_too_old(push, now))


def _update_mark(
    settlement: Settlement, mark: PendingMark, recipient: Recipient, now: datetime, pacing: Pacing
) -> MarkUpdate | None:
    """Return the new values of a mark; None: the mark is done."""
    push, later = settlement.push, settlement.next_try_at
    held_back = isinstance(settlement.outcome, Shadowed)  # whatever device token the registration has by now
    same_push = mark.generation == push.generation and (held_back or _is_for(push, recipient))
    if same_push and (held_back or isinstance(settlement.outcome, Delivered) or _ends_test(settlement, now)):
        return None
    same = MarkUpdate(
        push.registration_id, push.mark, mark.count, mark.first_at, now, mark.attempts, mark.paced, settlement.parked
    )
    match settlement.outcome:
        case Delivered() | TokenGone() | Refused(channel=False) if not _is_for(push, recipient):
            # The old device token may have moved to another phone; the new one gets the push.
            return replace(same, attempts=0)
        case Delivered() | Shadowed():
            left, due_at = max(1, mark.count - push.count), pacing.next_due(push.mark, now)
            return replace(same, count=left, first_at=mark.last_at, due_at=due_at, attempts=0, paced=False)
        case TokenGone():
            return replace(same, attempts=mark.attempts + 1, due_at=later or now + STALE_GONE)
        case Refused(channel=False) if recipient.state is RegistrationState.ACTIVE:
            # The registration's quarantine holds the mark back, and ends as soon as any push shows the token good.
            return replace(same, attempts=mark.attempts + settlement.counted)
        case RetryLater() | Refused():  # pragma: no branch  -- mypy proves that no other outcome is left
            return replace(same, attempts=mark.attempts + settlement.counted, due_at=later or now)
