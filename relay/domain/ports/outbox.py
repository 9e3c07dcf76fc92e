"""What the push role needs: a store of marks, and senders."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from relay.domain.model import (
    DuePush,
    Lane,
    Platform,
)
from relay.domain.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Settlement:
    """Hold how one claimed push ended, and when a failed one is due again."""

    push: DuePush
    outcome: Outcome
    next_try_at: datetime | None = None
    counted: bool = True
    """Whether a failed try counts as one of this mark's; not so when the provider or its channel is at fault."""
    parked: str = ""
    """Why the mark is set aside until `next_try_at`; empty: it is not."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What one claim returns."""

    pushes: tuple[DuePush, ...] = ()
    delayed_until: datetime | None = None
    """When the first of the marks falls due that this claim put off; None: it put none off."""
    unfinished: bool = False
    """True if it put off so many marks that it did not look at all that are due: claim again at once."""


class OutboxStore(Protocol):
    """Keep the dirty marks for senders."""

    async def claim(
        self,
        platform: Platform,
        limit: int,
        owner: str,
        until: datetime,
        now: datetime,
        *,
        only: Lane | None = None,
        without: Collection[Lane] = (),
    ) -> Claims:
        """Claim due marks of one platform's active registrations, longest due first, for `owner` until `until`.

        `only` and `without` choose lanes. Of a wiped registration the `attention` mark is claimed too, the only one
        that it has. A registration in quarantine gives one mark once its re-check is due. Marks whose pace wants them
        later are put off, those that expired are left to `expire`, and those that cannot be read are set aside.
        """

    async def settle(self, settlements: Sequence[Settlement], now: datetime) -> None:
        """Record outcomes in one transaction.

        Delivered: delete the mark if its generation is still the one sent, else keep what came meanwhile, due as its
        pace allows; the quarantine ends. TokenGone: unless the token is younger than `gone_since`, set the
        registration `token-gone`, delete its marks and mark its mailbox dirty. RetryLater and Refused: count an attempt
        if `counted`, due again at `next_try_at`; Refused for its token puts the registration into quarantine, longer
        with each re-check. What was said of a token that was replaced meanwhile counts for nothing. Every outcome ends
        the claim and notes `last_push_at` (delivered only) and `last_outcome`. A wiped registration is deleted by
        every outcome but RetryLater and Refused, and by these from a day after the wipe on.
        """

    async def park(self, push: DuePush, reason: str, until: datetime) -> None:
        """End the claim of a mark whose outcome cannot be recorded; it rests until `until`."""

    async def expire(self, platform: Platform, now: datetime) -> int:
        """Drop the unclaimed marks whose newest change is too old for a push; return how many.

        `attention` never expires, for what it says stays true. The registration's last outcome tells of it.
        """

    async def release(self, owner: str | None) -> None:
        """End all claims of one owner, or every claim when None (the other owners are known to be dead)."""

    async def next_due(self, platform: Platform, without: Collection[Lane] = ()) -> datetime | None:
        """Tell when the next mark of a platform falls due, claims running out included; None when there is none.

        Lanes in `without` do not count.
        """


@dataclass(frozen=True, slots=True)
class Capacity:
    """Tell how many more pushes a sender takes in one lane."""

    lane: Lane
    slots: int
    until: float | None = None
    """Until when there are no more, in `loop.time()`; None: until a push under way ends, if there are none."""


class Capacities(Protocol):
    """Tell which lanes of a sender take few pushes or none, by what the sender itself knows."""

    def __call__(self, now: float, /) -> Iterable[Capacity]:
        """List them; all others take as many as there are slots. `now` is `loop.time()`."""


class PushSender(Protocol):
    """Hand one push to a provider."""

    async def send(self, push: DuePush) -> Outcome:
        """Return what the provider said, in bounded time; never raises for anything a provider or network does."""
