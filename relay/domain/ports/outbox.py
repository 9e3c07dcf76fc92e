"""What the push role needs, a store of marks and senders; and what it offers to those who set marks."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from eas_watcher.values import by_slots
from relay.domain.handover import Offer
from relay.domain.model import DuePush, Lane, Platform, RegistrationId
from relay.domain.outcome import PushEnd


@by_slots
@dataclass(frozen=True, slots=True)
class Settlement:
    """How one claimed push ended, and when a failed one is due again."""

    push: DuePush
    outcome: PushEnd
    next_try_at: datetime | None = None
    counted: bool = True
    """Whether a failed try counts for the mark; False when the provider or its channel is at fault."""
    parked: str = ""
    """Why the mark is parked until `next_try_at`; empty: it is not."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What one claim returns."""

    pushes: tuple[DuePush, ...] = ()
    delayed_until: datetime | None = None
    """When the first of the marks falls due that this claim put off; None: it put none off."""
    unfinished: bool = False
    """True if it put off so many marks that it did not look at all that are due: claim again at once."""


class OutboxStore(Protocol):
    """The dirty marks, for senders."""

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

        `only` and `without` choose lanes. Of a wiped registration the `attention` mark is claimed too; it has no other.
        Of a registration in quarantine one mark is claimed once its re-check is due. Marks that their pace holds back
        are put off, expired ones are left to `expire`, and those that cannot be read are parked.
        """

    async def settle(self, settlements: Sequence[Settlement], now: datetime) -> None:
        """Record outcomes, in one transaction or a few.

        Delivered: delete the mark if its generation is still the one sent, else keep the changes that came meanwhile,
        due as their pace allows; the quarantine ends. TokenGone: unless the device token is younger than `gone_since`,
        set the registration `token-gone`, delete its marks and mark its mailbox dirty. RetryLater and Refused: count an
        attempt if `counted`, due again at `next_try_at`. Refused for its device token puts the registration into
        quarantine, longer with each re-check. An answer about a device token that was replaced meanwhile has no effect
        on the new one. Shadowed: as Delivered, whatever the device token is now, but a quarantine goes on. Every
        outcome ends the claim and sets `last_push_at` (delivered only) and `last_outcome`. A wiped registration is
        deleted by every outcome except RetryLater and Refused, and by these from a day after the wipe on.
        """

    async def park(self, push: DuePush, reason: str, until: datetime) -> None:
        """End the claim of a mark whose outcome cannot be recorded; it is not claimed before `until`."""

    async def expire(self, platform: Platform, now: datetime) -> int:
        """Drop the unclaimed marks whose newest change is too old for a push; return how many.

        `attention` never expires, since it stays true. The registration's last outcome becomes `expired`.
        """

    async def release(self, owner: str | None) -> None:
        """End all claims of one owner, or every claim when None (the other owners are known to be dead)."""

    async def next_due(self, platform: Platform, without: Collection[Lane] = ()) -> datetime | None:
        """Return when the next mark of a platform falls due, claims running out included; None when there is none.

        Marks of the lanes in `without` are left out.
        """


class Handover(Protocol):
    """Takes over marks from the transactions of its own process that set them, so that they need no claim."""

    def offer(self) -> Mapping[Platform, Offer]:
        """Reserve free slots for one transaction; nothing for a platform that no dispatcher of this process serves.

        Each offer is taken back with `take`, however the transaction ends.
        """

    def take(self, offers: Mapping[Platform, Offer], pushes: Sequence[DuePush]) -> None:
        """Send the pushes of marks that were born claimed, now that they are durable, and free the other slots.

        None if the transaction failed. If its end is unknown, its claims run out.
        """


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many more pushes a sender takes in one lane."""

    lane: Lane
    slots: int
    until: float | None = None
    """When slots are free again, in `loop.time()`; None: when a push under way ends."""


class Capacities(Protocol):
    """The lanes where a sender takes few pushes or none."""

    def __call__(self, now: float, /) -> Iterable[Capacity]:
        """Return these lanes; every other lane takes as many pushes as there are slots. `now` is `loop.time()`."""


class ChallengeStore(Protocol):
    """The challenges of registrations, for senders."""

    async def issue(self, push: DuePush, nonce_hash: bytes, now: datetime) -> float | None:
        """Note the nonce of a challenge that is about to leave; return the seconds to wait instead, None: it may leave.

        It replaces the nonce of an earlier challenge of the registration. The challenges of a device and of a mailbox
        are limited.
        """

    async def take_back(self, push: DuePush) -> None:
        """Count a challenge no more that the provider did not take: it reached no device."""


class ServerNames(Protocol):
    """The mail servers of registrations, for senders."""

    async def server_of(self, registration_id: RegistrationId) -> str | None:
        """Return the name of the mail server that a registration's mailbox is on; None: it was deleted."""


class PushSender(Protocol):
    """Hands pushes to a provider."""

    async def send(self, push: DuePush) -> PushEnd:
        """Return the provider's answer in bounded time; never raises for anything that a provider or network does."""
