"""Takes receipts: counts what apps have shown, and notes it in the timeline.

A receipt that comes again to the same process changes nothing. No row is written but the event of the timeline.
"""

from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from relay.domain.clock import Clock
from relay.domain.model import Platform, RegistrationId, RegistrationView
from relay.domain.receipts import PushId, Receipt, read_receipts
from relay.domain.timeline import Timeline
from relay.registration.secret import Access

REMEMBERED: Final = 20_000
"""Receipts that are remembered, some 250 bytes each; the oldest goes first."""
PER_HOUR: Final = 500
"""Receipts of one registration that are counted within an hour: a phone gets fewer pushes that a person could see."""
HOUR: Final = timedelta(hours=1)


def _ignore(platform: Platform, seconds: float) -> None:
    """Do nothing with a push that was shown."""


@dataclass(slots=True)
class ReceiptStats:
    """What metrics read of receipts."""

    taken: Counter[Platform] = field(default_factory=Counter)
    on_shown: Callable[[Platform, float], None] = _ignore
    """Called with the seconds from the change until the push was shown."""


class Receipts:
    """The receipts of all apps that this process serves."""

    def __init__(
        self,
        open_: Callable[[Access], Awaitable[RegistrationView]],
        clock: Clock,
        timeline: Timeline,
        stats: ReceiptStats,
        canary: Callable[[RegistrationView, Receipt], Awaitable[None]] | None = None,
    ) -> None:
        """Set up with `open_`, which returns the registration of a secret or raises why there is none.

        `canary` is called with each receipt that counts.
        """
        self._canary = canary
        self._open = open_
        self._clock = clock
        self._timeline = timeline
        self._stats = stats
        self._known: OrderedDict[tuple[RegistrationId, PushId], None] = OrderedDict()
        self._counted: Counter[RegistrationId] = Counter()
        self._hour_ends: datetime | None = None

    async def take(self, access: Access, sent: Sequence[tuple[str, float]]) -> None:
        """Take ids of pushes, each with the seconds since the app showed it.

        What cannot be true is ignored, as is what came before. Raises NotAuthorized, Wiped, Gone, StoreUnavailable.
        """
        view = await self._open(access)
        own, now = view.registration, self._clock()
        for receipt in read_receipts(sent, own, now):
            if self._is_new(own.id, receipt, now):
                self._stats.taken[own.platform] += 1
                self._stats.on_shown(own.platform, receipt.waited)
                self._timeline.shown(own, receipt)
                if self._canary is not None:
                    await self._canary(view, receipt)

    def _is_new(self, registration: RegistrationId, receipt: Receipt, now: datetime) -> bool:
        """Return True for a receipt that is to be counted, and remember it."""
        if self._hour_ends is None or not now < self._hour_ends <= now + HOUR:
            self._counted.clear()
            self._hour_ends = now + HOUR
        key = registration, receipt.push
        if key in self._known or self._counted[registration] >= PER_HOUR:
            return False
        self._counted[registration] += 1
        self._known[key] = None
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return True
