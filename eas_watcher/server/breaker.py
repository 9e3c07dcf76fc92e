"""Own whether a mail server's mailboxes may send: what one learnt about the server holds for all of them.

    Open -> Closed <-> Ramping -> Open

`Open`: everybody passes. `Closed`: everybody waits but one probe at a time, later and later. `Ramping`: the server is
back, or mailboxes arrive that were never let through, as at the start of a process; they pass one after the other, at a
measured rate. Who has passed since the gate closed last may send freely: the rate is one of mailboxes, not of requests.

One mailbox's trouble does not close the gate: its store may be offline, its user throttled. A request that no server
took (a refused connection, TLS) does, and so do several mailboxes that fail within a short time while fewer are
answered. Nothing here does I/O or reads a clock: `now` is seconds of any monotonic clock.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final, TypeAlias

from eas_watcher import backoff
from eas_watcher.errors import EasError, ServerBusy, Unreachable

DISTINCT: Final = 3  # mailboxes that must fail within WINDOW
WINDOW: Final = 30.0  # seconds
CEILING: Final = 60.0  # seconds between two probes: one request a minute hurts nobody, and tells soon of the return
JITTER: Final = 0.5  # up to half an interval more or less
SLACK: Final = 0.1  # seconds a late timer may be made up for, so that a busy loop lets no crowd through at once


@dataclass(frozen=True, slots=True)
class Tally:
    """Count who failed and who was answered since the first failure of the present window."""

    began: float = 0.0
    failing: frozenset[Hashable] = frozenset()
    answered: int = 0
    told: float = 0.0
    """Until when the server asked to be left alone, the latest moment of all that it named; 0: it named none."""


@dataclass(frozen=True, slots=True)
class Open:
    """Let everybody pass."""

    tally: Tally = field(default_factory=Tally)


@dataclass(frozen=True, slots=True)
class Closed:
    """Let nobody pass before `until`, then one probe at a time."""

    detail: str
    until: float
    tries: int
    """How many times in a row the gate was closed, or a probe failed."""
    probing: bool = False
    told: float = 0.0
    """Until when the server asked to be left alone: no probe goes before, and none that went opens the gate."""


@dataclass(frozen=True, slots=True)
class Ramping:
    """Let one mailbox pass from `next_at` on."""

    next_at: float
    tries: int = 0
    tally: Tally = field(default_factory=Tally)
    starting: bool = False
    """Whether those who wait were never let through; False: they return."""


Gate: TypeAlias = Open | Closed | Ramping


def concerns_server(error: EasError) -> bool:
    """Tell whether a failure says something about the server, and not only about the mailbox that asked."""
    if isinstance(error, Unreachable):
        return not error.stale
    return isinstance(error, ServerBusy) and error.shared


def failed(gate: Gate, who: Hashable, error: EasError, now: float, random: Random) -> Gate:
    """Learn that a request of `who`, which had passed, failed in a way that concerns the server."""
    told = _told(error, now)
    if isinstance(gate, Closed):
        if told <= gate.told:
            return gate
        # What was under way when it closed brings a longer wait than the one it closed for.
        ends = now + backoff.told(told - now, random)
        return replace(gate, until=max(gate.until, ends), told=ends)
    tally = _count(gate.tally, who, told, now)
    certain = isinstance(error, Unreachable) and not error.reached
    if certain or (len(tally.failing) >= DISTINCT and tally.answered < len(tally.failing)):
        tries = gate.tries + 1 if isinstance(gate, Ramping) else 1
        return _closed(str(error), tries, tally.told, now, random)
    return replace(gate, tally=tally)


def probe_failed(gate: Closed, error: EasError, now: float, random: Random) -> Gate:
    """Learn that the probe failed in a way that concerns the server: wait longer for the next one."""
    return _closed(str(error), gate.tries + 1, max(gate.told, _told(error, now)), now, random)


def answered(gate: Gate) -> Gate:
    """Learn that the server answered somebody who had passed; a closed gate opens by its probe alone."""
    if isinstance(gate, Closed) or not gate.tally.failing:
        return gate
    return replace(gate, tally=replace(gate.tally, answered=gate.tally.answered + 1))


def probe_answered(gate: Closed, now: float) -> Gate:
    """Learn that the server answered the probe: the others may follow, unless it asked another to wait meanwhile."""
    return replace(gate, probing=False, until=gate.told) if now < gate.told else Ramping(now, gate.tries)


def probe_lost(gate: Closed, now: float) -> Gate:
    """Learn that the probe was given up without an answer: the next one may go at once, unless the server said no."""
    return replace(gate, probing=False, until=max(gate.told, min(gate.until, now)))


def admit(gate: Gate, now: float, rate: float, random: Random) -> tuple[Gate, bool]:
    """Tell whether the first in the queue may pass now."""
    match gate:
        case Open():
            return gate, True
        case Closed(until=until, probing=probing):
            if probing or now < until:
                return gate, False
            return replace(gate, probing=True), True
        case Ramping(next_at=next_at):  # pragma: no branch -- mypy proves that there is no other
            if now < next_at:
                return gate, False
            interval = (1.0 + random.uniform(-JITTER, JITTER)) / rate
            return replace(gate, next_at=max(next_at, now - SLACK) + interval), True


def arrived(gate: Gate, now: float) -> Gate:
    """Learn that a mailbox comes for the first time: thousands of them start like those that return."""
    return Ramping(now, tally=gate.tally, starting=True) if isinstance(gate, Open) else gate


def emptied(gate: Gate, now: float) -> Gate:
    """Learn that nobody waits any more: a return is complete, a start once the next in line could have passed."""
    if isinstance(gate, Ramping) and (not gate.starting or now >= gate.next_at):
        return Open(gate.tally)
    return gate


def due(gate: Gate) -> float | None:
    """Tell when the first in the queue should look again; None: when something is learnt."""
    match gate:
        case Closed(until=until, probing=False):
            return until
        case Ramping(next_at=next_at):
            return next_at
        case _:
            return None


def _count(tally: Tally, who: Hashable, told: float, now: float) -> Tally:
    if not tally.failing or now - tally.began > WINDOW:
        return Tally(now, frozenset({who}), told=told)
    return replace(tally, failing=tally.failing | {who}, told=max(tally.told, told))


def _told(error: EasError, now: float) -> float:
    """Tell until when the server asked to be left alone; 0: it did not."""
    return now + error.retry_after if isinstance(error, ServerBusy) and error.retry_after else 0.0


def _closed(detail: str, tries: int, told: float, now: float, random: Random) -> Closed:
    if told > now:
        until = now + backoff.told(told - now, random)
        return Closed(detail, until, tries, told=until)
    return Closed(detail, now + min(CEILING, backoff.delay(tries, random)), tries)
