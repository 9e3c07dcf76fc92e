"""How far the clock of this host is from those of its peers, by the header Date of their answers [RFC 9110 6.6.1].

A clock that is ahead does as much harm as one that is behind: certificates count as expired, tickets and provider
tokens as made in the future. One peer may itself be wrong, so the others are counted, too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

PRECISE: Final = 5.0  # seconds that an exchange may take: a held request may carry the date of its beginning
EVERY: Final = timedelta(minutes=1)  # between two looks at one peer
TOLERATED: Final = 60.0  # seconds; tokens and tickets live for minutes, and an exchange takes some seconds itself
STALE: Final = timedelta(hours=6)  # an older comparison says nothing about now
MOST_PEERS: Final = 64


@dataclass(frozen=True, slots=True)
class Difference:
    """The greatest difference to a peer, and how many other peers differ or agree."""

    peer: str
    """The host of one peer, whose clock differs most."""
    ahead: float
    """Seconds by which this host's clock is ahead of it; negative: behind."""
    others: int
    """How many other peers differ by more than is tolerated."""
    agree: int
    """How many peers' clocks agree with this host's."""


class PeerClocks:
    """The differences to all peers that answered lately."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        """Compare with a clock of aware UTC datetimes."""
        self._now = now
        self._seen: dict[str, tuple[datetime, float]] = {}

    def answered(self, peer: str, date: str, took: float) -> None:
        """Note the Date of an answer that came `took` seconds after its request; one that is no date is ignored."""
        if took > PRECISE or not date:
            return
        now = self._now()
        known = self._seen.get(peer)
        if known is not None and abs(now - known[0]) < EVERY:
            return
        try:
            moment = parsedate_to_datetime(date)
        except (ValueError, OverflowError):  # no date, or one with a number beyond all bounds
            return
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        self._seen.pop(peer, None)
        if len(self._seen) >= MOST_PEERS:
            del self._seen[next(iter(self._seen))]
        self._seen[peer] = now, (now - moment).total_seconds()

    def differences(self) -> dict[str, float]:
        """Return by how many seconds this host's clock is ahead of each peer's; a Date has whole seconds."""
        now = self._now()
        return {peer: ahead for peer, (at, ahead) in self._seen.items() if abs(now - at) < STALE}

    @property
    def difference(self) -> Difference | None:
        """The greatest difference; None while all clocks agree within TOLERATED."""
        differences = self.differences()
        wrong = {peer: ahead for peer, ahead in differences.items() if abs(ahead) > TOLERATED}
        if not wrong:
            return None
        peer = max(wrong, key=lambda peer: abs(wrong[peer]))
        return Difference(peer, wrong[peer], len(wrong) - 1, len(differences) - len(wrong))
