"""Own the count of what must not happen too often within an hour."""

from dataclasses import dataclass
from typing import Final

HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Recent:
    """Count how often something happened, and for how many seconds this count has gone on; after an hour it is void."""

    times: int = 0
    seconds: float = 0.0

    def again(self) -> "Recent":
        """Count once more."""
        return Recent(self.times + 1, self.seconds if self.times else 0.0)

    def later(self, seconds: float) -> "Recent":
        """Return the count after some time."""
        if not self.times or self.seconds + seconds >= HOUR:
            return Recent()
        return Recent(self.times, self.seconds + seconds)
