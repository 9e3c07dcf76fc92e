"""Own which lanes of one provider are open, shut or on trial, by faults, outages, and what its sender knows."""

from dataclasses import dataclass
from random import Random

from relay.domain.model import DuePush, Environment, Lane
from relay.domain.ports.outbox import Capacities, Capacity
from relay.push.channels import Channels
from relay.push.circuit import Circuit


@dataclass(frozen=True, slots=True)
class Plan:
    """Say what may be claimed now."""

    shut: frozenset[Lane]
    """Lanes that take nothing."""
    trials: tuple[tuple[Lane, int], ...]
    """Lanes that take so many pushes and no more; those within an environment come after its own."""
    opens_at: float | None
    """When the next lane may be tried, in `loop.time()`."""

    @property
    def special(self) -> frozenset[Lane]:
        """Name all lanes that are not simply open."""
        return self.shut.union(lane for lane, _ in self.trials)

    def without(self, lane: Lane) -> frozenset[Lane]:
        """Name what a trial of a lane leaves out: what is shut, and what has a trial of its own."""
        return self.special.difference({lane, Lane(lane.environment)})


def unbounded(_: float) -> tuple[Capacity, ...]:
    """Be the rooms of a sender that takes whatever it is given."""
    return ()


class Gates:
    """Hold the channels and circuits of one provider; every moment is `loop.time()` in seconds."""

    def __init__(self, places: int, random: Random, rooms: Capacities = unbounded) -> None:
        """Take how many pushes at once a healthy provider gets, and where its sender takes fewer."""
        self.channels = Channels()
        self._rooms = rooms
        self._circuits = {environment: Circuit(places, random) for environment in Environment}

    def circuit(self, environment: Environment) -> Circuit:
        """Give the circuit of an environment."""
        return self._circuits[environment]

    def plan(self, now: float) -> Plan:
        """Decide what may be claimed now."""
        shut: set[Lane] = set()
        trials: list[tuple[Lane, int]] = []
        moments: list[float] = []
        for environment, circuit in self._circuits.items():
            room = circuit.room(now)
            if room == 0:
                shut.add(Lane(environment))
            elif room is not None:
                trials.append((Lane(environment), room))
            moments += [moment for moment in [circuit.opens_at(now)] if moment is not None]
        for (app, environment), ripe, until in self.channels.resting(now):
            if ripe and Lane(environment) not in shut:
                trials.append((Lane(environment, app), 1))
            else:
                shut.add(Lane(environment, app))
            moments += [until] if until > now else []
        for narrow in self._rooms(now):
            if narrow.slots and Lane(narrow.lane.environment) not in shut:
                trials.append((narrow.lane, narrow.slots))
            else:
                shut.add(narrow.lane)
            moments += [] if narrow.until is None else [narrow.until]
        return Plan(frozenset(shut), tuple(trials), min(moments, default=None))

    def began(self, push: DuePush) -> None:
        """Hear that a push is under way."""
        self._circuits[push.environment].began()
        self.channels.began((push.app, push.environment))

    def ended(self, push: DuePush) -> None:
        """Hear that a push is not under way any more; what it says comes after this."""
        self._circuits[push.environment].ended()

    def hurry(self, now: float) -> None:
        """Try all lanes again now: something changed that may mend them, e.g. a key file."""
        self.channels.hurry(now)
        for circuit in self._circuits.values():
            circuit.hurry(now)
