"""The breaker: whether requests to one party may be sent, decided from how earlier requests ended.

    Serving -> Away <-> Returning -> Serving

`Serving`: every request may be sent. `Away`: requests wait, and one probe at a time is sent, at growing intervals.
`Returning`: the party answers again, and the requests that waited are let through gradually.

The party is a mail server, an environment of a push provider, one app's channel in such an environment, or a push
service; `Rules` hold what differs between them. A source is what a request was sent for, e.g. a mailbox or a phone: one
source alone may be the reason of its failures, so rules can ask for several sources that agree. The source None stands
for a failure in which no source can have a part, e.g. a refused connection: it needs no others that agree.

Nothing here does I/O or reads a clock: `now` is seconds of any monotonic clock, randomness is an argument.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from random import Random
from typing import Final, TypeAlias

from eas_watcher import backoff
from eas_watcher.retry_after import LONGEST
from eas_watcher.values import replace

JITTER: Final = 0.5  # by rate: up to half an interval more or less between two that return
EARLY: Final = (
    0.001  # seconds that a timer may fire before its moment, e.g. uvloop's; what it is for need not wait again
)
SLACK: Final = 0.1  # seconds of delay that a late timer may make up for, so that a busy loop lets no crowd through


@dataclass(frozen=True, slots=True)
class ByRate:
    """Requests return one after the other."""

    per_second: float


@dataclass(frozen=True, slots=True)
class BySlots:
    """Requests return a few at once; each answer adds a slot."""

    first: int
    """Slots after the answer that ended the absence."""
    full: int
    """Slots from which on the party serves."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What differs between parties; by default one failure is enough and any answer ends the absence."""

    first: float
    """Seconds until the first probe; each further failure in a row doubles them."""
    ceiling: float
    """Longest time between two probes, in seconds."""
    spread: float = 0.0
    """Share of the wait by which it is randomly longer or shorter, below the ceiling."""
    failures: int = 1
    """How many failures it takes until the party is away."""
    sources: int = 1
    """How many different sources these failures must have."""
    window: float = inf
    """Seconds within which these failures must happen, counted from the first."""
    lasting: float = inf
    """Seconds after the first failure from which on a second failure is enough: where each takes long, more would take
    minutes."""
    in_a_row: bool = True
    """True: an answer discards the failures before it. False: answers are counted against failing sources, and the
    party is away once more sources failed than requests were answered."""
    probe_decides: bool = False
    """True: only the answer to the probe ends the absence, and not before the moment that the party named. False: any
    answer ends it at once."""
    returns: ByRate | BySlots | None = None
    """How waiting requests return; None: all at once."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that failed in a way that may concern its whole party."""

    detail: str = ""
    certain: bool = False
    """True if this failure alone shows that the party is away."""
    retry_after: float | None = None
    """Seconds for which the party asks to be left alone; None: it named no time."""


@dataclass(frozen=True, slots=True)
class Tally:
    """The failures since the first one of the present window, and the answers among them."""

    began: float = 0.0
    failures: int = 0
    sources: frozenset[Hashable] = frozenset()
    answers: int = 0
    leave_alone_until: float = 0.0
    """The latest moment that the party named in these failures; 0: none."""


@dataclass(frozen=True, slots=True)
class Serving:
    """Every request may be sent."""

    tally: Tally = field(default_factory=Tally)


@dataclass(frozen=True, slots=True)
class Away:
    """No request may be sent before `until`, then one probe at a time."""

    detail: str
    until: float
    tries: int
    """How often in a row the party went away, or a probe failed."""
    probing: bool = False
    """True while a probe is under way."""
    leave_alone_until: float = 0.0
    """The moment before which the party asked not to be asked; 0: none."""


@dataclass(frozen=True, slots=True)
class Returning:
    """Requests that waited are let through gradually."""

    tries: int = 0
    """As in `Away`: a party that fails again while requests return is probed later than the first time."""
    next_at: float = 0.0
    """By rate: when the next request may be sent."""
    slots: int = 0
    """By slots: how many requests may be under way."""
    tally: Tally = field(default_factory=Tally)
    starting: bool = False
    """True: those that wait were never let through before, as at the start of a process. False: they return."""


State: TypeAlias = Serving | Away | Returning


class Turn(Enum):
    """What a request may do."""

    WAITS = "waits"
    """It may not be sent yet."""
    PASSES = "passes"
    """It may be sent."""
    PROBES = "probes"
    """It may be sent; its end shows whether the party is back."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """The breaker of one party."""

    rules: Rules
    state: State = field(default_factory=Serving)

    @property
    def away(self) -> bool:
        """True if the party is away."""
        return isinstance(self.state, Away)

    @property
    def due(self) -> float | None:
        """The moment from which on the next waiting request may be sent; None: it depends on how another one ends."""
        match self.state:
            case Away(until=until, probing=False):
                return until
            case Returning(next_at=next_at) if isinstance(self.rules.returns, ByRate):
                return next_at
            case _:
                return None

    def capacity(self, under_way: int, now: float) -> int | None:
        """Return how many more requests may be sent while so many are under way; None: no limit."""
        match self.state:
            case Away(until=until, probing=probing):
                return 0 if probing or now < until - EARLY else 1
            case Returning(slots=slots) if isinstance(self.rules.returns, BySlots):
                return max(0, slots - under_way)
            case _:
                return None

    def admit(self, now: float, random: Random) -> tuple["Breaker", Turn]:
        """Return what the next request may do, and the breaker after that."""
        match self.state:
            case Away(until=until, probing=probing):
                if probing or now < until - EARLY:
                    return self, Turn.WAITS
                return self._with(replace(self.state, probing=True)), Turn.PROBES
            case Returning(next_at=next_at) if isinstance(self.rules.returns, ByRate):
                if now < next_at - EARLY:
                    return self, Turn.WAITS
                interval = (1.0 + random.uniform(-JITTER, JITTER)) / self.rules.returns.per_second
                return self._with(replace(self.state, next_at=max(next_at, now - SLACK) + interval)), Turn.PASSES
            case _:
                return self, Turn.PASSES

    def failed(
        self, source: Hashable, failure: Failure, now: float, random: Random, *, probe: bool = False
    ) -> "Breaker":
        """Return the breaker after a request failed; `probe`: it was the one that probes.

        Failures of requests that were under way when the party went away do not delay the next probe, unless the party
        names a later moment.
        """
        named = now + min(failure.retry_after, LONGEST) if failure.retry_after else 0.0
        state = self.state
        if isinstance(state, Away):
            later = named > state.leave_alone_until
            leave_alone_until = _at_least(named, now, random) if later else state.leave_alone_until
            if probe and state.probing:
                return self._gone(failure.detail, state.tries + 1, leave_alone_until, now, random)
            if not later:
                return self
            until = max(state.until, leave_alone_until)
            return self._with(replace(state, until=until, leave_alone_until=leave_alone_until))
        tally = self._count(state.tally, source, named, now)
        if failure.certain or self._enough(tally, now):
            tries = state.tries + 1 if isinstance(state, Returning) else 1
            leave_alone_until = _at_least(tally.leave_alone_until, now, random)
            return self._gone(failure.detail, tries, leave_alone_until, now, random)
        return self._with(replace(state, tally=tally))

    def answered(self, now: float, *, probe: bool = False) -> "Breaker":
        """Return the breaker after the party answered a request; `probe`: it was the one that probes."""
        match self.state:
            case Away(leave_alone_until=leave_alone_until) as state:
                if self.rules.probe_decides and not probe:
                    return self
                if self.rules.probe_decides and now < leave_alone_until:
                    return self._with(replace(state, probing=False, until=leave_alone_until))
                return self._back(state.tries, now)
            case Returning(slots=slots, tally=tally) as state if isinstance(self.rules.returns, BySlots):
                if slots + 1 >= self.rules.returns.full:
                    return self._with(Serving(self._answer(tally)))
                return self._with(replace(state, slots=slots + 1, tally=self._answer(tally)))
            case Serving(tally=tally) | Returning(tally=tally) as state:  # pragma: no branch -- mypy proves it
                return self._with(replace(state, tally=self._answer(tally))) if tally.failures else self

    def probe_lost(self, now: float) -> "Breaker":
        """Return the breaker after the probe ended without a sign of its party: the next one may go at once.

        It waits, though, for a moment that the party named meanwhile.
        """
        state = self.state
        if not isinstance(state, Away) or not state.probing:
            return self
        return self._with(replace(state, probing=False, until=max(state.leave_alone_until, min(state.until, now))))

    def hurried(self, now: float) -> "Breaker":
        """Return the breaker after something changed that may end the absence: the next probe may go at once."""
        state = self.state
        if not isinstance(state, Away):
            return self
        leave_alone_until = min(state.leave_alone_until, now)
        return self._with(replace(state, until=min(state.until, now), leave_alone_until=leave_alone_until))

    def arrived(self, now: float) -> "Breaker":
        """Return the breaker after a source came that was never let through: thousands start as gradually as return."""
        if isinstance(self.state, Serving) and isinstance(self.rules.returns, ByRate):
            return self._with(Returning(next_at=now, tally=self.state.tally, starting=True))
        return self

    def emptied(self, now: float) -> "Breaker":
        """Return the breaker after the last waiting request was let through.

        A return is complete then, a start once one more request could have been sent.
        """
        state, returns = self.state, self.rules.returns
        early = min(EARLY, JITTER / returns.per_second) if isinstance(returns, ByRate) else EARLY
        if isinstance(state, Returning) and (not state.starting or now >= state.next_at - early):
            return self._with(Serving(state.tally))
        return self

    def released(self, now: float) -> "Breaker":
        """Return the breaker after requests that waited for another reason may be sent, gradually."""
        return self._back(0, now) if isinstance(self.state, Serving) else self

    def _with(self, state: State) -> "Breaker":
        return Breaker(self.rules, state)

    def _gone(self, detail: str, tries: int, leave_alone_until: float, now: float, random: Random) -> "Breaker":
        until = max(now + self._wait(tries, random), leave_alone_until)
        return self._with(Away(detail, until, tries, leave_alone_until=leave_alone_until))

    def _back(self, tries: int, now: float) -> "Breaker":
        match self.rules.returns:
            case ByRate():
                return self._with(Returning(tries, next_at=now))
            case BySlots(first=first, full=full) if first < full:
                return self._with(Returning(tries, slots=first))
            case _:
                return self._with(Serving())

    def _wait(self, tries: int, random: Random) -> float:
        rules = self.rules
        doubled: float = rules.first * 2.0 ** min(tries - 1, 32)
        return min(rules.ceiling, doubled * (1.0 + random.uniform(-rules.spread, rules.spread)))

    def _count(self, tally: Tally, source: Hashable, named: float, now: float) -> Tally:
        if not tally.failures or now - tally.began > self.rules.window:
            return Tally(now, 1, frozenset({source}), leave_alone_until=named)
        return replace(
            tally,
            failures=tally.failures + 1,
            sources=tally.sources | {source},
            leave_alone_until=max(tally.leave_alone_until, named),
        )

    def _enough(self, tally: Tally, now: float) -> bool:
        rules = self.rules
        agreed = None in tally.sources or len(tally.sources) >= rules.sources
        if not agreed or not (rules.in_a_row or tally.answers < len(tally.sources)):
            return False
        lasts = tally.failures > 1 and now - tally.began >= rules.lasting
        return lasts or tally.failures >= rules.failures

    def _answer(self, tally: Tally) -> Tally:
        if self.rules.in_a_row:
            return Tally()
        return replace(tally, answers=tally.answers + 1) if tally.failures else tally


def _at_least(moment: float, now: float, random: Random) -> float:
    """Return a moment that the party named, or one a little later; 0 if it is past."""
    return now + backoff.at_least(moment - now, random) if moment > now else 0.0
