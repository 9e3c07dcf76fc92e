"""What health, metrics and console read of pushes: counters, and the faults, outages and accounts of now."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from relay.domain.model import Environment, Platform
from relay.domain.outcome import OutcomeKind


@dataclass(frozen=True, slots=True)
class ChannelFault:
    """Why one app's channel to its provider is away, and what an operator can do."""

    app: str
    environment: Environment
    reason: str
    remedy: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Outage:
    """Why an environment of a provider is away, and what an operator can do."""

    environment: Environment
    reason: str
    remedy: str
    since: datetime


@dataclass(frozen=True, slots=True)
class AccountState:
    """One account at Apple, or one Firebase project."""

    table: str
    """Its table in relay.toml."""
    apps: tuple[str, ...]
    environments: tuple[Environment, ...]
    in_flight: int
    """Pushes that wait for a connection or for an answer."""
    reason: str
    """Why it takes no push; empty: it does, as far as is known."""
    remedy: str


class Accounts(Protocol):
    """What knows the accounts at Apple."""

    @property
    def states(self) -> Sequence[AccountState]:
        """The accounts of now."""


def _ignore(platform: Platform, seconds: float) -> None:
    """Do nothing with an accepted push."""


@dataclass(slots=True)
class PushStats:
    """The counters of one dispatcher."""

    outcomes: Counter[OutcomeKind] = field(default_factory=Counter)
    lowered: int = 0
    """Pushes that were delivered with a lower priority than their mode asks for."""
    shadowed: int = 0
    """Pushes that shadow mode held back."""
    in_flight: int = 0
    """Pushes that the sender has and the provider has not answered."""
    faults: dict[tuple[str, Environment], ChannelFault] = field(default_factory=dict)
    """By app and environment; empty while all channels work."""
    channels: set[tuple[str, Environment]] = field(default_factory=set)
    """The channels that were pushed to since the start, by app and environment."""
    outages: dict[Environment, Outage] = field(default_factory=dict)
    """By environment; their pushes wait until the provider serves again."""
    doubts: dict[Environment, Outage] = field(default_factory=dict)
    """By environment; the newest answer that a push cannot be served now, if no push was taken since the first."""
    on_accepted: Callable[[Platform, float], None] = _ignore
    """Called when a provider accepts a push, with the seconds since the first change that it reports."""

    @property
    def fault(self) -> ChannelFault | None:
        """The oldest fault; None while all channels work."""
        return min(self.faults.values(), key=lambda fault: fault.since, default=None)

    @property
    def outage(self) -> Outage | None:
        """The oldest outage; None while the provider serves."""
        return min(self.outages.values(), key=lambda outage: outage.since, default=None)

    @property
    def dead(self) -> bool:
        """True if every channel that was pushed to has a fault, which only an operator can correct."""
        return bool(self.faults) and self.channels <= self.faults.keys()
