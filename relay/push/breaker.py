"""The breakers of one push provider, and the plan of which lanes may send.

An environment (production, sandbox) is away when its provider serves no push there; a channel, one app in one
environment, when the provider refuses that app's key, topic or project; a push service when several phones' pushes to
it fail in a row. Each has a lane of its own, so that the trouble of one never delays the others.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from random import Random
from typing import Final

from eas_watcher.breaker import Away, Breaker, BySlots, Failure, Rules, Turn
from relay.domain.model import DuePush, Environment, Lane
from relay.domain.ports.outbox import Capacities, Capacity

IN_A_ROW: Final = 5
"""Failures in a row after which an environment is away: a single lost connection is no outage."""
LASTING: Final = 10.0
"""Seconds without an answer after which a second failure is enough: where each takes its time, five take minutes."""
FIRST_SLOTS: Final = 2
"""Pushes at once after the first answer of an environment that was away; each further answer adds one."""
CHANNEL: Final = Rules(first=30.0, ceiling=300.0)
"""One fault is enough, for no retry mends it; a key that was corrected works within five minutes."""
SERVICE: Final = Rules(first=30.0, ceiling=300.0, sources=3)
"""Pushes to three phones must fail with no answer in between: one phone alone may be the reason of its failures."""


def environment_rules(slots: int) -> Rules:
    """Return the rules of an environment that takes so many pushes at once while it serves."""
    # A provider that is back is noticed within a minute.
    return Rules(2.0, 60.0, 0.3, failures=IN_A_ROW, lasting=LASTING, returns=BySlots(FIRST_SLOTS, slots))


class LaneBreaker:
    """The breaker of one lane, which knows the push that probes; every moment is `loop.time()` in seconds."""

    __slots__ = ("_breaker", "_probe", "_random")

    def __init__(self, rules: Rules, random: Random) -> None:
        """Start as serving."""
        self._breaker = Breaker(rules)
        self._random = random
        self._probe: object = None

    @property
    def away(self) -> bool:
        """True if the lane's party is away."""
        return self._breaker.away

    @property
    def detail(self) -> str:
        """Why the lane's party is taken to be away; empty unless it is."""
        return self._breaker.state.detail if isinstance(self._breaker.state, Away) else ""

    @property
    def due(self) -> float | None:
        """When the next probe may be sent; None: not known, or the party serves."""
        return self._breaker.due

    def capacity(self, under_way: int, now: float) -> int | None:
        """Return how many more pushes may be sent while so many are under way; None: no limit."""
        return self._breaker.capacity(under_way, now)

    def began(self, push: object, now: float) -> Turn:
        """Note that a push is sent, unless it waits; return what it is sent as.

        A push that was claimed before the party went away may be sent although it should wait: it probes nothing.
        """
        self._breaker, turn = self._breaker.admit(now, self._random)
        if turn is Turn.PROBES:
            self._probe = push
        return turn

    def failed(self, push: object, source: Hashable, failure: Failure, now: float) -> bool:
        """Note that a push failed, perhaps by its party's fault; return whether the party is away from now on.

        It is, too, if it was away before and this push was the probe.
        """
        was_away, probe = self.away, self._is_probe(push)
        self._breaker = self._breaker.failed(source, failure, now, self._random, probe=probe)
        return self.away and (probe or not was_away)

    def answered(self, push: object, now: float) -> bool:
        """Note that the party answered a push; return whether this ends an absence."""
        was_away = self.away
        self._breaker = self._breaker.answered(now, probe=self._is_probe(push))
        return was_away and not self.away

    def undecided(self, push: object, now: float) -> None:
        """Note a push that ended with no sign of its party: if it was the probe, the next push is."""
        if self._is_probe(push):
            self._breaker = self._breaker.probe_lost(now)

    def hurry(self, now: float) -> None:
        """Let the next probe go at once: something changed that may end the absence, e.g. a key file."""
        self._breaker = self._breaker.hurried(now)

    def _is_probe(self, push: object) -> bool:
        """Return whether a push that has ended was the probe; from then on there is none."""
        if push is not self._probe:
            return False
        self._probe = None
        return True


@dataclass(frozen=True, slots=True)
class Plan:
    """What may be claimed now."""

    blocked: frozenset[Lane]
    """Lanes of which nothing may be claimed."""
    limited: tuple[tuple[Lane, int], ...]
    """Lanes of which so many pushes may be claimed; those within an environment come after its own."""
    next_at: float | None
    """When the next blocked lane may be tried, in `loop.time()`; None: not known."""

    @property
    def restricted(self) -> frozenset[Lane]:
        """All lanes that are blocked or limited."""
        return self.blocked.union(lane for lane, _ in self.limited)

    def without(self, lane: Lane) -> frozenset[Lane]:
        """Return the lanes to leave out of a claim for one limited lane: all other restricted ones."""
        return self.restricted.difference({lane, Lane(lane.environment)})


def unbounded(_: float) -> tuple[Capacity, ...]:
    """Return the capacities of a sender that takes every push it is given: none is limited."""
    return ()


class ProviderBreakers:
    """The breakers of one provider's environments and channels; every moment is `loop.time()` in seconds."""

    def __init__(self, slots: int, random: Random, capacities: Capacities = unbounded) -> None:
        """Take how many pushes at once an environment gets while it serves, and where its sender takes fewer."""
        self._random = random
        self._capacities = capacities
        self._environments = {each: LaneBreaker(environment_rules(slots), random) for each in Environment}
        self._channels: dict[tuple[str, Environment], LaneBreaker] = {}
        self._under_way = dict.fromkeys(Environment, 0)

    def environment(self, push: DuePush) -> LaneBreaker:
        """Return the breaker of a push's environment."""
        return self._environments[push.environment]

    def channel(self, push: DuePush) -> LaneBreaker:
        """Return the breaker of a push's channel."""
        key = push.app, push.environment
        breaker = self._channels.get(key)
        if breaker is None:
            breaker = self._channels[key] = LaneBreaker(CHANNEL, self._random)
        return breaker

    def plan(self, now: float) -> Plan:
        """Decide what may be claimed now."""
        found = [
            Capacity(Lane(environment), capacity, breaker.due)
            for environment, breaker in self._environments.items()
            if (capacity := breaker.capacity(self._under_way[environment], now)) is not None
        ]
        found += [
            Capacity(Lane(environment, app), capacity, breaker.due)
            for (app, environment), breaker in self._channels.items()
            if (capacity := breaker.capacity(0, now)) is not None
        ]
        blocked: set[Lane] = set()
        limited: list[tuple[Lane, int]] = []
        moments: list[float] = []
        for each in (*found, *self._capacities(now)):
            if each.slots and Lane(each.lane.environment) not in blocked:
                limited.append((each.lane, each.slots))
            else:
                blocked.add(each.lane)
            if each.until is not None and each.until > now:
                moments.append(each.until)
        return Plan(frozenset(blocked), tuple(limited), min(moments, default=None))

    def began(self, push: DuePush, now: float) -> None:
        """Note that a push is under way."""
        self._under_way[push.environment] += 1
        self.environment(push).began(push, now)
        self.channel(push).began(push, now)

    def ended(self, push: DuePush) -> None:
        """Note that a push is no longer under way; what its end says of its lanes comes after this."""
        self._under_way[push.environment] -= 1

    def hurry(self, now: float) -> None:
        """Let all lanes be tried at once: something changed that may mend them, e.g. a key file."""
        for breaker in (*self._environments.values(), *self._channels.values()):
            breaker.hurry(now)
