"""Which marks are born claimed: the dispatcher of the process that sets them gets their pushes with the commit. Pure.

A dispatcher offers its free slots to a transaction that sets marks. Marks that it would claim at once anyway are set as
claimed by it, and pushed as soon as the transaction is durable, with no claim in between. All others are set free, and
claimed in their turn.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from eas_watcher.values import by_slots
from relay.domain.model import DuePush, Lane, Platform
from relay.domain.pacing import AT_ONCE, Pacing
from relay.domain.subscription import naming


@by_slots
@dataclass(frozen=True, slots=True)
class Offer:
    """What the dispatcher of one platform takes over with a transaction."""

    owner: str
    """The name under which it claims."""
    until: datetime
    """When these claims run out."""
    slots: int
    """How many pushes it takes."""
    shut: frozenset[Lane] = frozenset()
    """The lanes of which it takes none."""
    pacing: Pacing = AT_ONCE


class NewPush(NamedTuple):
    """The push of a new mark, which is due at once, and what decides whether it leaves at once."""

    push: DuePush
    pushed_at: datetime | None
    """When its class was last pushed to this registration."""
    quarantined: bool
    """Whether the provider refuses the registration's device token."""


def taken(pushes: Iterable[NewPush], offers: Mapping[Platform, Offer], now: datetime) -> list[DuePush]:
    """Return the pushes whose marks are born claimed: the first of each platform for which its offer has slots.

    They are those that a claim would choose now: of open lanes, within their pace, with no quarantine.
    """
    found: list[DuePush] = []
    slots = {platform: offer.slots for platform, offer in offers.items()}
    for push, pushed_at, quarantined in pushes:
        offer = offers.get(push.platform)
        if offer is None or not slots[push.platform] or quarantined:
            continue
        if any(holds(lane, push) for lane in offer.shut) or offer.pacing.wait(push.mark, pushed_at, now) > 0.0:
            continue
        slots[push.platform] -= 1
        found.append(push)
    return found


def holds(lane: Lane, push: DuePush) -> bool:
    """Return True if a push belongs to a lane."""
    return (
        lane.environment is push.environment
        and lane.app in {None, push.app}
        and (lane.service is None or naming(lane.service) in push.device_token)
        and lane.retried in {None, push.attempts > 0}
    )


class Nobody:
    """What a process has that does not push: it offers nothing, so all marks are set free."""

    def offer(self) -> Mapping[Platform, Offer]:
        """Return no offer."""
        return {}

    def take(self, offers: Mapping[Platform, Offer], pushes: Sequence[DuePush]) -> None:
        """Take nothing, for nothing was offered."""


NOBODY: Final = Nobody()
