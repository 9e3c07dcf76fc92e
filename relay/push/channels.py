"""Own which channels of a provider rest after a fault of theirs, and how each is tried again.

A channel is one app in one environment: a topic that Apple does not know must not silence the other apps. A resting
channel is tried with one push at a time; the first that passes ends its rest.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from relay.domain.model import Environment
from relay.push import backoff

Channel = tuple[str, Environment]


@dataclass(slots=True)
class _Rest:
    faults: int
    until: float
    trying: bool = False


class Channels:
    """Hold the resting channels; every moment is `loop.time()` in seconds."""

    def __init__(self) -> None:
        self._rests: dict[Channel, _Rest] = {}

    def resting(self, now: float) -> Iterator[tuple[Channel, bool, float]]:
        """List the resting channels: whether one push may try now, and when its rest is over."""
        for channel, rest in self._rests.items():
            yield channel, now >= rest.until and not rest.trying, rest.until

    def began(self, channel: Channel) -> None:
        """Hear that a push is under way; on a resting channel it is the trial."""
        rest = self._rests.get(channel)
        if rest is not None:
            rest.trying = True

    def faulted(self, channel: Channel, now: float) -> float:
        """Take a channel fault; return for how many seconds the channel rests.

        Faults of pushes that were under way when the rest began do not lengthen it.
        """
        rest = self._rests.get(channel)
        if rest is None:
            rest = self._rests[channel] = _Rest(1, now + backoff.pause(1))
            return rest.until - now
        rest.trying = False  # a push that was claimed before the rest began, and begun after, took the place
        if now >= rest.until:
            rest.faults += 1
            rest.until = now + backoff.pause(rest.faults)
        return rest.until - now

    def passed(self, channel: Channel) -> bool:
        """Take a push that the provider judged by itself; return whether the channel was resting until now."""
        return self._rests.pop(channel, None) is not None

    def undecided(self, channel: Channel) -> None:
        """Take an answer that says nothing about the channel: the next push is the trial."""
        rest = self._rests.get(channel)
        if rest is not None:
            rest.trying = False

    def hurry(self, now: float) -> None:
        """End all rests: something changed that may mend the fault."""
        for rest in self._rests.values():
            rest.until = min(rest.until, now)
