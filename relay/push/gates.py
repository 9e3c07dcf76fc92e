"""Own which lanes of one provider are open, shut or on trial, by the faults of channels and by outages."""

from dataclasses import dataclass
from random import Random

from relay.model import DuePush, Environment, Lane
from relay.push.channels import Channels
from relay.push.circuit import Circuit


@dataclass(frozen=True, slots=True)
class Plan:
    """Say what may be claimed now."""

    shut: frozenset[Lane]
    """Lanes that take nothing."""
    trials: tuple[tuple[Lane, int], ...]
    """Lanes that take so many pushes and no more; those of one app come after that of their environment."""
    opens_at: float | None
    """When the next lane may be tried, in `loop.time()`."""

    @property
    def special(self) -> frozenset[Lane]:
        """Name all lanes that are not simply open."""
        return self.shut.union(lane for lane, _ in self.trials)

    def without(self, lane: Lane) -> frozenset[Lane]:
        """Name what a trial of a lane leaves out: what is shut, and what has a trial of its own."""
        return self.special.difference({lane, Lane(lane.environment)})


class Gates:
    """Hold the channels and circuits of one provider; every moment is `loop.time()` in seconds."""

    def __init__(self, places: int, random: Random) -> None:
        """Take how many pushes at once a healthy provider gets."""
        self.channels = Channels()
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
