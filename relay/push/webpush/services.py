"""Own what is known of each push service: whether it rests, and what its answers say about a single subscription.

Everybody can run a push service, so one of them that is away, slow or wrongly set up must not touch the others. And an
answer to one subscription proves little: the path to the service may be wrong, or one phone may have named an endpoint
that refuses us. So doubts are kept here until there is evidence. Every moment is `loop.time()` in seconds.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from relay.domain.model import Environment, Lane
from relay.domain.ports.outbox import Capacity
from relay.push import backoff
from relay.push.webpush.answers import KEY_REFUSALS, NOT_FOUND, TAKEN, passes

FEW: Final = 3
"""Subscriptions that must fail, none taken in between, until it is the service: it rests; or our key: it is refused."""
SILENCE: Final = 1800.0
"""Seconds between two answers of 404 before a subscription counts as expired: restarts and slips last less."""
MOST: Final = 10_000  # subscriptions with a 404 that are remembered per service; the oldest are forgotten
PROBE_WAIT: Final = 5.0  # seconds a push waits while another one tries a resting service
BUSY_WAIT: Final = 0.1  # seconds a push waits while enough others are under way to its service; then by its `rooms`


@dataclass(frozen=True, slots=True)
class Rest:
    """Tell of a push service that rests, why, and what an operator can do."""

    service: str
    reason: str
    remedy: str


@dataclass(slots=True)
class _Service:
    in_flight: int = 0
    failing: set[bytes] = field(default_factory=set)
    rests: int = 0
    """In a row."""
    until: float = 0.0
    probing: bool = False
    reason: str = ""
    remedy: str = ""
    accepted_at: float | None = None
    refused: set[bytes] = field(default_factory=set)
    missing: "OrderedDict[bytes, float]" = field(default_factory=OrderedDict)


class Services:
    """Remember all push services; they are listed in the settings, so there are not many.

    A device is the digest of its subscription.
    """

    def __init__(self, places: int | None) -> None:
        """Take how many pushes may be under way to one service; None: as many as come."""
        self._places = places
        self._services: dict[str, _Service] = {}

    @property
    def resting(self) -> list[Rest]:
        """List the services that rest, or have rested and were not found well since."""
        return [Rest(name, state.reason, state.remedy) for name, state in self._services.items() if state.rests]

    @property
    def known(self) -> int:
        """Tell how many services were asked so far."""
        return len(self._services)

    def rooms(self, now: float) -> Iterator[Capacity]:
        """Tell which services take nothing now, one push that tries them, or not many more."""
        for name, state in self._services.items():
            lane = Lane(Environment.PRODUCTION, service=name)
            if now < state.until:
                yield Capacity(lane, 0, state.until)
            elif state.rests:
                yield Capacity(lane, 0 if state.probing else 1)
            elif self._places is not None and state.in_flight * 2 >= self._places:
                yield Capacity(lane, max(0, self._places - state.in_flight))

    def wait(self, service: str, now: float) -> tuple[float, str]:
        """Tell how many seconds a push must wait and why; 0: send it now, and tell then what came of it."""
        state = self._services.setdefault(service, _Service())
        if now < state.until:
            return state.until - now, f"push-service-rests: {state.reason}"
        if state.rests and state.probing:
            return PROBE_WAIT, f"push-service-rests: {state.reason}"
        if self._places is not None and state.in_flight >= self._places:
            return BUSY_WAIT, "push-service-busy"
        state.probing = state.rests > 0
        state.in_flight += 1
        return 0.0, ""

    def ended(self, service: str) -> None:
        """Take back the place of a push that `wait` let go, after everything else was told of it."""
        state = self._services[service]
        state.in_flight -= 1
        state.probing = False

    def failed(
        self,
        service: str,
        device: bytes,
        reason: str,
        now: float,
        *,
        remedy: str = "",
        after: float | None = None,
        lasting: bool = False,
    ) -> None:
        """Take an answer that the service cannot take a push now, or none; `after` is the time it named, in seconds.

        One subscription alone may be the reason of its failures, so the service rests only when several fail; at once
        for a fault that no subscription has a part in and no waiting mends (`lasting`), such as its certificate.
        Failures of pushes that were under way when the rest began do not lengthen it.
        """
        state = self._services[service]
        if now < state.until:
            return
        state.failing.add(device)
        if len(state.failing) < FEW and not lasting:
            return
        state.rests += 1
        state.reason, state.remedy = reason, remedy
        state.until = now + max(backoff.pause(state.rests), after or 0.0)

    def told(self, service: str, device: bytes, status: int, now: float) -> bool:
        """Take an answer's status; return whether other answers prove what it says (for 404, and for a refused key).

        Whatever is said of a single push shows that the service is there.
        """
        if passes(status):
            return False
        state = self._services[service]
        state.failing.clear()
        state.rests, state.until = 0, 0.0
        if status in TAKEN:
            state.accepted_at = now
            state.refused.clear()
            state.missing.pop(device, None)
            return True
        if status in KEY_REFUSALS:
            return self._refused(state, device)
        return status == NOT_FOUND and _missing(state, device, now)

    def _refused(self, state: _Service, device: bytes) -> bool:
        """Tell whether it must be our key.

        Several subscriptions were refused and none taken in between, and no other service that was asked takes it.
        """
        if len(state.refused) < FEW:
            state.refused.add(device)
        return len(state.refused) >= FEW and all(other.refused for other in self._services.values())


def _missing(state: _Service, device: bytes, now: float) -> bool:
    """Tell whether it is the subscription that is gone, and not the path to the service.

    It is when the answer is the same half an hour later, and the service took another push in between.
    """
    first = state.missing.setdefault(device, now)
    if len(state.missing) > MOST:
        state.missing.popitem(last=False)
    taken_since = state.accepted_at is not None and state.accepted_at > first
    return taken_since and now - first >= SILENCE
