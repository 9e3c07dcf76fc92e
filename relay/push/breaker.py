"""The breakers of one push provider, and the plan of which lanes may send.

An environment (production, sandbox) is away when its provider serves no push there; a channel, one app in one
environment, when the provider refuses that app's key, topic or project; a push service when several phones' pushes to
it fail in a row. Each has a lane of its own, so that the trouble of one never delays the others.

An answer to one push may concern its phone alone, e.g. a topic of a push service that nobody listens to. So three rules
keep dead phones from resting a lane for living ones: failures of several phones must agree; a phone that fails while
others' pushes are answered counts no more; and while a lane rests, pushes that have failed before and all others probe
it in turns of their own, so that a dead phone never takes a living one's turn.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from eas_watcher.breaker import Away, Breaker, BySlots, Failure, Rules, Serving, Turn
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
AGREE: Final = 3
"""Phones that must fail with no answer in between: one phone alone may be the reason of its failures."""
OWN: Final = 3
"""Failures in a row of one phone, each after an answer to another, from which on the phone is the reason of them."""
SERVICE: Final = Rules(first=2.0, ceiling=300.0, sources=AGREE)
"""Short at first: the phones that failed may be dead, and the next one to be tried may not."""
REMEMBERED: Final = 10_000  # phones that fail, of each party; the oldest are forgotten


def environment_rules(slots: int) -> Rules:
    """Return the rules of an environment that takes so many pushes at once while it serves."""
    # A provider that is back is noticed within a minute.
    returns = BySlots(FIRST_SLOTS, slots)
    return Rules(2.0, 60.0, 0.3, failures=IN_A_ROW, sources=AGREE, lasting=LASTING, returns=returns)


class Witnesses:
    """Which of a party's failing sources are contradicted: the party answered others meanwhile."""

    __slots__ = ("_answers", "_failing")

    def __init__(self) -> None:
        self._answers = 0
        self._failing: OrderedDict[Hashable, tuple[int, int]] = OrderedDict()
        """By source: the answers before its first failure in a row, and its contradicted failures since."""

    def __contains__(self, source: object) -> bool:
        """Return True if a source's last push failed."""
        return source in self._failing

    def failed(self, source: Hashable) -> int:
        """Note that a source's push failed; return how many of its failures in a row are contradicted."""
        before, contradicted = self._failing.get(source, (self._answers, 0))
        if self._answers > before:
            contradicted += 1
        self._failing[source] = before, contradicted
        if len(self._failing) > REMEMBERED:
            self._failing.popitem(last=False)
        return contradicted

    def answered(self, source: Hashable) -> None:
        """Note that the party answered a source's push."""
        if self._failing:
            self._failing.pop(source, None)
        self._answers += 1


class LaneBreaker:
    """The breaker of one lane, which knows the push that probes; every moment is `loop.time()` in seconds.

    While the lane is away for failures of which phones may be the reason, pushes that failed before have a turn of
    their own: their failures do not delay the probes by other pushes.
    """

    __slots__ = ("_breaker", "_probe", "_random", "_retries", "_retry")

    def __init__(self, rules: Rules, random: Random) -> None:
        """Start as serving."""
        self._breaker = Breaker(rules)
        self._random = random
        self._probe: object = None
        self._retries: Breaker | None = None
        """The turn of pushes that failed before; None: all share one."""
        self._retry: object = None
        """The probe of that turn."""

    @property
    def away(self) -> bool:
        """True if the lane's party is away."""
        return self._breaker.away

    @property
    def serves(self) -> bool:
        """True if the lane takes any number of pushes, as nearly always."""
        return self._retries is None and isinstance(self._breaker.state, Serving)

    @property
    def calm(self) -> bool:
        """True if the lane serves, no failure counts and no push probes, as nearly always: answers change nothing."""
        state = self._breaker.state
        return isinstance(state, Serving) and not state.tally.failures and self._probe is None

    @property
    def detail(self) -> str:
        """Why the lane's party is taken to be away; empty unless it is."""
        return self._breaker.state.detail if isinstance(self._breaker.state, Away) else ""

    def due(self, *, retried: bool = False) -> float | None:
        """Return when the next probe may be sent, one that failed before or another; None: not known, or it serves."""
        return self._turn(retried=retried).due

    def capacity(self, under_way: int, now: float, *, retried: bool = False) -> int | None:
        """Return how many more pushes may be sent while so many are under way; None: no limit."""
        return self._turn(retried=retried).capacity(under_way, now)

    def capacities(self, lane: Lane, under_way: int, now: float) -> Iterator[Capacity]:
        """Return the lanes within this one that take few pushes now, or none."""
        turns = {lane: self._breaker}
        if self._retries is not None:
            turns = {replace(lane, retried=False): self._breaker, replace(lane, retried=True): self._retries}
        for each, breaker in turns.items():
            slots = breaker.capacity(under_way, now)
            if slots is not None:
                due = breaker.due
                yield Capacity(each, slots, due if due is not None and now < due else None)

    def began(self, push: object, now: float, *, retried: bool = False) -> Turn:
        """Note that a push is sent, unless it waits; return what it is sent as.

        A push that was claimed before the party went away may be sent although it should wait: it probes nothing.
        """
        if retried and self._retries is not None:
            self._retries, turn = self._retries.admit(now, self._random)
            if turn is Turn.PROBES:
                self._retry = push
            return turn
        self._breaker, turn = self._breaker.admit(now, self._random)
        if turn is Turn.PROBES:
            self._probe = push
        return turn

    def failed(self, push: object, source: Hashable, failure: Failure, now: float) -> bool:
        """Note that a push failed, perhaps by its party's fault; return whether the party is away from now on.

        It is, too, if it was away before and this push was the probe. The source None: no phone can be the reason.
        """
        if self._retries is not None and source is not None and push is not self._probe:
            # What one phone more says, e.g. a time to wait, holds for the phones that fail.
            probe = self._is_retry(push)
            self._retries = self._retries.failed(source, failure, now, self._random, probe=probe)
            return probe
        was_away, probe = self.away, self._is_probe(push)
        self._breaker = self._breaker.failed(source, failure, now, self._random, probe=probe)
        if self.away and not was_away and source is not None:
            why = replace(failure, certain=True)
            self._retries = Breaker(self._breaker.rules).failed(source, why, now, self._random)
        return self.away and (probe or not was_away)

    def answered(self, push: object, now: float) -> bool:
        """Note that the party answered a push; return whether this ends an absence."""
        was_away = self.away
        self._breaker = self._breaker.answered(now, probe=self._is_probe(push))
        if not self.away:
            self._retries = self._retry = None
        return was_away and not self.away

    def undecided(self, push: object, now: float) -> None:
        """Note a push that ended with no sign of its party: if it was the probe, the next push is."""
        if self._is_probe(push):
            self._breaker = self._breaker.probe_lost(now)
        elif self._retries is not None and self._is_retry(push):
            self._retries = self._retries.probe_lost(now)

    def hurry(self, now: float) -> None:
        """Let the next probe go at once: something changed that may end the absence, e.g. a key file."""
        self._breaker = self._breaker.hurried(now)
        if self._retries is not None:
            self._retries = self._retries.hurried(now)

    def _turn(self, *, retried: bool) -> Breaker:
        return self._retries if retried and self._retries is not None else self._breaker

    def _is_retry(self, push: object) -> bool:
        """Return whether a push that has ended was the probe of that turn; from then on there is none."""
        if push is not self._retry:
            return False
        self._retry = None
        return True

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
        return self.blocked.union(lane for lane, _ in self.limited) if self.limited else self.blocked

    def without(self, lane: Lane) -> frozenset[Lane]:
        """Return the lanes to leave out of a claim for one limited lane: all other restricted ones.

        A lane within an environment is not left out for the limits of the environment itself.
        """
        own = {lane, *(Lane(lane.environment, retried=retried) for retried in (None, False, True))}
        return self.restricted.difference(own)


OPEN: Final = Plan(frozenset(), (), None)
"""All lanes take as many pushes as there are slots."""


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
        self._phones = {each: Witnesses() for each in Environment}
        self._apps = {each: Witnesses() for each in Environment}

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
        found: list[Capacity] = []
        shut: set[Environment] = set()
        for environment, breaker in self._environments.items():
            if breaker.serves:
                continue
            own = list(breaker.capacities(Lane(environment), self._under_way[environment], now))
            found += own
            if own and not any(each.slots for each in own):
                shut.add(environment)
        others = list(self._capacities(now))
        for (app, environment), breaker in self._channels.items():
            if breaker.serves:
                continue
            found += breaker.capacities(Lane(environment, app), 0, now)
        if not found and not others:
            return OPEN
        closed = (each.lane for each in others if not each.slots)
        shut |= {lane.environment for lane in closed if lane == Lane(lane.environment)}
        blocked: set[Lane] = set()
        limited: dict[Lane, int] = {}
        moments: list[float] = []
        for each in (*found, *others):
            if each.slots and each.lane.environment not in shut:
                limited[each.lane] = min(each.slots, limited.get(each.lane, each.slots))
            else:
                blocked.add(each.lane)
            if each.until is not None and each.until > now:
                moments.append(each.until)
        # An app's lane may be limited by its sender and blocked by its channel: the narrower of the two counts.
        free = (
            (lane, slots) for lane, slots in limited.items() if blocked.isdisjoint((lane, replace(lane, retried=None)))
        )
        return Plan(frozenset(blocked), tuple(free), min(moments, default=None))

    def began(self, push: DuePush, now: float) -> None:
        """Note that a push is under way."""
        self._under_way[push.environment] += 1
        environment, channel = self.environment(push), self.channel(push)
        if not environment.calm:
            retried = push.attempts > 0 or push.registration_id in self._phones[push.environment]
            environment.began(push, now, retried=retried)
        if not channel.calm:
            channel.began(push, now)

    def ended(self, push: DuePush) -> None:
        """Note that a push is no longer under way; what its end says of its lanes comes after this."""
        self._under_way[push.environment] -= 1

    def answered(self, push: DuePush) -> None:
        """Note that the provider answered a push, and not that it cannot serve it now."""
        self._phones[push.environment].answered(push.registration_id)
        self._apps[push.environment].answered(push.app)

    def contradicted(self, push: DuePush) -> int:
        """Note an answer that a push cannot be served now; return how many such answers in a row others contradict.

        They do if pushes to other phones, or of other apps, were answered meanwhile: its environment serves.
        """
        app = self._apps[push.environment].failed(push.app)
        return self._phones[push.environment].failed(push.registration_id) or min(app, 1)

    def hurry(self, now: float) -> None:
        """Let all lanes be tried at once: something changed that may mend them, e.g. a key file."""
        for breaker in (*self._environments.values(), *self._channels.values()):
            breaker.hurry(now)
