"""What the relay knows of each push service: whether it is away, and what its answers say of one subscription.

Everybody can run a push service, so one that is away, slow or wrongly set up must not affect the others. And an answer
to one subscription proves little: the path to the service may be wrong, or one phone may have named an endpoint that
refuses the relay. So doubts are kept here until there is evidence. Every moment is `loop.time()` in seconds.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final

from eas_watcher.breaker import Failure
from relay.domain.model import Environment, Lane
from relay.domain.ports.outbox import Capacity
from relay.push.breaker import OWN, SERVICE, LaneBreaker, Witnesses
from relay.push.webpush.answers import KEY_REFUSALS, NOT_FOUND, TAKEN, passes

FEW: Final = 3
"""Subscriptions that must be refused, with none taken in between, until the relay's key is taken to be at fault."""
PROVED: Final = 1000  # subscriptions per service that took the present key; those that took it last are remembered
SILENCE: Final = 1800.0
"""Seconds between two answers of 404 before a subscription counts as expired: restarts and slips last less."""
MOST: Final = 10_000  # subscriptions with a 404 that are remembered per service; the oldest are forgotten
PROBE_WAIT: Final = 5.0  # seconds a push waits while another one probes its service
BUSY_WAIT: Final = 0.1  # seconds a push waits while its service has no free slot; `capacities` prevents most of these


@dataclass(frozen=True, slots=True)
class AwayService:
    """A push service that is away, why, and what an operator can do."""

    service: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class KnownService:
    """What is known of a push service."""

    service: str
    under_way: int
    """Pushes without an answer."""
    away: bool
    reason: str
    """Why it is away; empty unless it is."""
    accepted_at: float | None
    """When it took a push last, by `loop.time()`; None: never so far."""


@dataclass(frozen=True, slots=True)
class Held:
    """A push that may not be sent now."""

    seconds: float
    """How long it waits."""
    reason: str


@dataclass(slots=True)
class _Service:
    breaker: LaneBreaker
    witnesses: Witnesses = field(default_factory=Witnesses)
    under_way: int = 0
    remedy: str = ""
    accepted_at: float | None = None
    refused: set[bytes] = field(default_factory=set)
    proved: "OrderedDict[bytes, None]" = field(default_factory=OrderedDict)
    """Subscriptions whose pushes were taken with the present key."""
    missing: "OrderedDict[bytes, float]" = field(default_factory=OrderedDict)


class Services:
    """All push services that were asked; the settings list them, so there are not many.

    A push is any object that stands for one push under way; a device is the digest of its subscription.
    """

    def __init__(self, slots: int | None, random: Random) -> None:
        """Take how many pushes may be under way to one service; None: no limit."""
        self._slots = slots
        self._random = random
        self._services: dict[str, _Service] = {}

    @property
    def away(self) -> list[AwayService]:
        """The services that are away: no push was answered since several failed."""
        found = ((name, state) for name, state in self._services.items() if state.breaker.away)
        return [AwayService(name, state.breaker.detail, state.remedy) for name, state in found]

    @property
    def known(self) -> int:
        """How many services were asked."""
        return len(self._services)

    @property
    def states(self) -> list[KnownService]:
        """All services that were asked, by name."""
        return [
            KnownService(name, state.under_way, state.breaker.away, state.breaker.detail, state.accepted_at)
            for name, state in sorted(self._services.items())
        ]

    def capacities(self, now: float) -> Iterator[Capacity]:
        """List the services that take no push now, one that probes them, or not many more."""
        for name, state in self._services.items():
            lane = Lane(Environment.PRODUCTION, service=name)
            if state.breaker.away:
                yield from state.breaker.capacities(lane, state.under_way, now)
            elif self._slots is not None and state.under_way * 2 >= self._slots:
                yield Capacity(lane, max(0, self._slots - state.under_way))

    def admit(self, service: str, push: object, device: bytes, now: float, *, retried: bool = False) -> Held | None:
        """Return how long a push must wait and why; None: send it now, and report here how it ends.

        `retried`: its mark has failed before.
        """
        state = self._services.get(service)
        if state is None:
            state = self._services[service] = _Service(LaneBreaker(SERVICE, self._random))
        breaker = state.breaker
        retried = retried or device in state.witnesses
        if breaker.away and breaker.capacity(state.under_way, now, retried=retried) == 0:
            due = breaker.due(retried=retried)
            wait = PROBE_WAIT if due is None else due - now
            return Held(wait, f"push-service-rests: {breaker.detail}")
        if self._slots is not None and state.under_way >= self._slots:
            return Held(BUSY_WAIT, "push-service-busy")
        breaker.began(push, now, retried=retried)
        state.under_way += 1
        return None

    def ended(self, service: str, push: object, now: float) -> None:
        """Free the slot of a push that `admit` let go, after everything else was reported of it."""
        state = self._services[service]
        state.under_way -= 1
        state.breaker.undecided(push, now)

    def failed(
        self, service: str, push: object, device: bytes, failure: Failure, now: float, *, remedy: str = ""
    ) -> bool:
        """Note that a push cannot be taken now, or had no answer; return whether that is its subscription's own fault.

        One subscription alone may be the reason of its failures, so several must fail before the service is away, and
        one that fails while others are answered counts no more: after OWN such failures it is the reason itself. A
        fault in which no subscription has a part and that no waiting mends, such as its certificate, is `certain`.
        """
        state = self._services[service]
        contradicted = 0 if failure.certain else state.witnesses.failed(device)
        if contradicted and not state.breaker.away:
            state.breaker.undecided(push, now)
        elif state.breaker.failed(push, None if failure.certain else device, failure, now):
            state.remedy = remedy
        return contradicted >= OWN

    def key_changed(self) -> None:
        """Note that the relay shows another key from now on, of which no answer is known."""
        for state in self._services.values():
            state.proved.clear()
            state.refused.clear()

    def answered(self, service: str, push: object, device: bytes, status: int, now: float) -> bool:
        """Note an answer's status; return whether other answers prove what it says (for 404, and for a refused key).

        Every answer about a single push shows that the service is there.
        """
        if passes(status):
            return False
        state = self._services[service]
        state.breaker.answered(push, now)
        state.witnesses.answered(device)
        if status in TAKEN:
            state.accepted_at = now
            state.refused.clear()
            state.missing.pop(device, None)
            state.proved[device] = None
            state.proved.move_to_end(device)
            if len(state.proved) > PROVED:
                state.proved.popitem(last=False)
            return True
        if status in KEY_REFUSALS:
            return self._key_refused(state, device)
        return status == NOT_FOUND and _missing(state, device, now)

    def _key_refused(self, state: _Service, device: bytes) -> bool:
        """Return whether the relay's key is at fault.

        It is when several subscriptions were refused and none taken in between, and every other service that was asked
        refuses it too. Where the service has taken pushes with this key, only the subscriptions of those can show that
        it does so no longer: the others may have been made for another key.
        """
        if state.proved and device not in state.proved:
            return False
        if len(state.refused) < FEW:
            state.refused.add(device)
        return len(state.refused) >= FEW and all(other.refused for other in self._services.values())


def _missing(state: _Service, device: bytes, now: float) -> bool:
    """Return whether the subscription is gone, and not the path to the service.

    It is when the answer is the same half an hour later, and the service took another push in between.
    """
    first = state.missing.setdefault(device, now)
    if len(state.missing) > MOST:
        state.missing.popitem(last=False)
    taken_since = state.accepted_at is not None and state.accepted_at > first
    return taken_since and now - first >= SILENCE
