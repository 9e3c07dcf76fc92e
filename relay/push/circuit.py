"""Own when pushes to a provider that does not serve anybody stop, how it is tried, and how they return.

Pure: moments are `loop.time()` in seconds, randomness comes in.
"""

from random import Random
from typing import Final

from relay.push import backoff

IN_A_ROW: Final = 5
"""Failures without an answer in between that open a circuit: a single lost connection is no outage."""
LASTING: Final = 10.0
"""Seconds without an answer after which a second failure opens it: where each takes its time, five are minutes."""
FIRST_ROOM: Final = 2
"""Pushes at once after the first answer; each further answer adds one."""
LONGEST: Final = 3600.0
"""Seconds; a provider that asks for more is asked again all the same."""


class Circuit:
    """Hold one provider environment: closed (all may go), open (one tries at a time), or ramping up."""

    def __init__(self, places: int, random: Random) -> None:
        """Take how many pushes at once a healthy provider gets."""
        self._places = places
        self._random = random
        self._in_a_row = 0
        self._failing_since = 0.0
        self._pauses = 0
        self._until: float | None = None
        self._trying = False
        self._limit: int | None = None
        self._under_way = 0

    @property
    def open(self) -> bool:
        """Tell whether the provider is taken for away."""
        return self._until is not None

    def opens_at(self, now: float) -> float | None:
        """Tell when the next trial may begin, if that is later than now."""
        return self._until if self._until is not None and self._until > now else None

    def room(self, now: float) -> int | None:
        """Tell how many more pushes may begin; None: as many as there are places."""
        if self._until is not None:
            return 0 if now < self._until or self._trying else 1
        return None if self._limit is None else max(0, self._limit - self._under_way)

    def began(self) -> None:
        """Hear that a push is under way."""
        self._under_way += 1
        self._trying = self.open

    def ended(self) -> None:
        """Hear that a push is not under way any more; what it says comes after this."""
        self._under_way -= 1

    def failed(self, now: float, after: float | None) -> bool:
        """Take a failure of the provider as a whole; tell whether it opens the circuit.

        A provider that names a time is left alone until then. Failures of pushes that were under way when the circuit
        opened do not lengthen the pause.
        """
        if self._in_a_row == 0:
            self._failing_since = now
        self._in_a_row += 1
        if self._until is not None:
            self._trying = False  # a push that was claimed before the circuit opened, and begun after, took the place
            if now >= self._until:
                self._pause(now, after)
            elif after is not None:
                self._until = max(self._until, now + self._told(after))
            return False
        if after is None and self._in_a_row < IN_A_ROW and now - self._failing_since < LASTING:
            return False
        self._pause(now, after)
        return True

    def answered(self) -> bool:
        """Take an answer, whatever it says of its push; tell whether the circuit was open until now."""
        self._in_a_row = 0
        was_open, self._until, self._trying = self.open, None, False
        if was_open:
            self._limit = FIRST_ROOM
        elif self._limit is not None:
            self._limit += 1
            if self._limit >= self._places:
                self._limit, self._pauses = None, 0
        return was_open

    def undecided(self) -> None:
        """Take an end that says nothing of the provider: the next push is the trial."""
        self._trying = False

    def hurry(self, now: float) -> None:
        """End the pause: something changed that may mend it."""
        if self._until is not None:
            self._until = min(self._until, now)

    def _pause(self, now: float, after: float | None) -> None:
        self._pauses += 1
        self._trying = False
        self._limit = None
        seconds = backoff.trial(self._pauses, self._random)
        if after is not None:
            seconds = max(seconds, self._told(after))
        self._until = max(self._until or now, now + seconds)

    def _told(self, after: float) -> float:
        return backoff.told(min(after, LONGEST), self._random)
