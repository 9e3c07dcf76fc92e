"""The budget of high priority of each phone; pushes beyond it go with normal priority.

Google lets 20 collapsible messages per app and device through at once and one more every three minutes, delays
the others, and lowers the priority of apps whose high-priority messages often show nothing [Google: FCM throttling and
quotas; Set and manage Android message priority]. Normal priority in time keeps high priority for the first message
after a quiet time.
"""

from typing import Final

HOUR: Final = 3600.0  # seconds
PER_HOUR: Final = 20
"""High-priority messages per phone and hour that Google lets through without delay."""
SWEEP: Final = 600.0  # seconds between two searches for phones whose budget is whole again


class HighPriorityBudget:
    """One bucket per phone, by `FcmDevice.phone`; moments are seconds of a clock that never goes back.

    The budget remembers a phone only while its bucket is not full, by one number: the moment when it will be.
    """

    def __init__(self, per_hour: int = PER_HOUR) -> None:
        """Set how many messages fit into a bucket; as many flow into it within an hour."""
        self._interval = HOUR / per_hour
        self._most = HOUR - self._interval / 2  # half an interval less than whole: no rounding costs a message
        self._full_at: dict[str, float] = {}
        self._sweep_at = 0.0

    def __len__(self) -> int:
        """Return the number of phones in memory."""
        return len(self._full_at)

    def allows(self, phone: str, now: float) -> bool:
        """Return True if one more high-priority message is within the budget."""
        return self._full_at.get(phone, now) - now < self._most

    def spend(self, phone: str, now: float) -> None:
        """Take one message out of a bucket."""
        self._full_at[phone] = max(now, self._full_at.get(phone, now)) + self._interval
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP
            self._full_at = {phone: full_at for phone, full_at in self._full_at.items() if full_at > now}
