"""Own how often a phone is woken by high priority: past its budget, pushes go with normal priority.

Google delays messages that collapse after 20 per app and device, of which one comes back every three minutes, and
lowers the priority of apps whose high-priority messages often show nothing [Google: FCM throttling and quotas; Set and
manage Android message priority]. Who lowers it himself in time keeps high priority for the first message after quiet.
"""

from typing import Final

HOUR: Final = 3600.0  # seconds
PER_HOUR: Final = 20
"""High-priority messages per phone and hour: what Google lets through without delay."""
SWEEP: Final = 600.0  # seconds between two looks for phones whose budget is whole again


class HighPriorityBudget:
    """Hold one bucket per device token; every moment is in seconds of one clock that never goes back.

    A phone is remembered only while its bucket is not full, by one number: when it will be.
    """

    def __init__(self, per_hour: int = PER_HOUR) -> None:
        """Take how many messages fit into a bucket; as many flow into it within an hour."""
        self._interval = HOUR / per_hour
        self._most = HOUR - self._interval / 2  # half an interval less than whole: no rounding costs a message
        self._full_at: dict[str, float] = {}
        self._sweep_at = 0.0

    def __len__(self) -> int:
        """Count the phones that are remembered."""
        return len(self._full_at)

    def allows(self, device_token: str, now: float) -> bool:
        """Tell whether one more high-priority message is within the budget."""
        return self._full_at.get(device_token, now) - now < self._most

    def spend(self, device_token: str, now: float) -> None:
        """Take one message out of a bucket."""
        self._full_at[device_token] = max(now, self._full_at.get(device_token, now)) + self._interval
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP
            self._full_at = {token: full_at for token, full_at in self._full_at.items() if full_at > now}
