"""Own what a dispatcher lets others see: plain numbers and the channel faults of now, read whenever wanted."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from relay.domain.model import DuePush, Environment
from relay.domain.outcome import OutcomeKind


@dataclass(frozen=True, slots=True)
class ChannelFault:
    """Tell what ails one app's channel to its provider, and what to do."""

    app: str
    environment: Environment
    reason: str
    remedy: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Outage:
    """Tell that a provider serves nobody in one of its environments, and what to do."""

    environment: Environment
    reason: str
    remedy: str
    since: datetime


def _nobody(push: DuePush) -> None:
    """Hear of an accepted push and do nothing."""


@dataclass(slots=True)
class PushStats:
    """Count what one dispatcher does."""

    outcomes: Counter[OutcomeKind] = field(default_factory=Counter)
    lowered: int = 0
    """Pushes delivered with less priority than their mode asks for."""
    in_flight: int = 0
    """Pushes handed to the sender and not answered."""
    faults: dict[tuple[str, Environment], ChannelFault] = field(default_factory=dict)
    """By app and environment; empty while all channels work."""
    channels: set[tuple[str, Environment]] = field(default_factory=set)
    """Those that were pushed to since the start, by app and environment."""
    outages: dict[Environment, Outage] = field(default_factory=dict)
    """Of environments whose pushes wait until the provider serves again."""
    on_accepted: Callable[[DuePush], None] = _nobody
    """Called when a provider took a push, e.g. to measure the time since `first_at`."""

    @property
    def fault(self) -> ChannelFault | None:
        """Give the oldest fault, or None while all channels work."""
        return min(self.faults.values(), key=lambda fault: fault.since, default=None)

    @property
    def outage(self) -> Outage | None:
        """Give the oldest outage, or None while the provider serves."""
        return min(self.outages.values(), key=lambda outage: outage.since, default=None)

    @property
    def dead(self) -> bool:
        """Tell whether every channel that was pushed to has a fault that only an operator can mend."""
        return bool(self.faults) and self.channels <= self.faults.keys()
