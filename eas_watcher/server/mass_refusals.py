"""Whether a mail server that refuses credentials refuses single users, or has a fault of its own.

Some servers answer 401 to everybody while their directory or store is down [observed: Z-Push 2.7.1, 2026-11]. When a
server refuses many of its mailboxes within minutes, their users have not all changed their passwords. So the relay
suspects the server: it notifies no user, and one mailbox confirms the refusal for all, until one is accepted.

The suspicion also ends when more other mailboxes are accepted than were refused: then the credentials are wrong after
all. Nothing here does I/O or reads a clock: `now` is seconds of any monotonic clock.
"""

from collections.abc import Hashable
from typing import Final

from eas_watcher.machine.counters import CONFIRM_AFTER

WINDOW: Final = 600.0  # seconds, the first heartbeat interval: within it every mailbox sends a request
LEAST: Final = 5  # mailboxes; the users of fewer may have changed their passwords on the same day
SHARE: Final = 0.1  # of the server's watched mailboxes


class MassRefusals:
    """The mailboxes of one server whose credential was refused within WINDOW."""

    __slots__ = ("_confirmations", "_lately", "_others", "next_at", "suspected")

    def __init__(self) -> None:
        """Start without suspicion."""
        self._lately: dict[Hashable, float] = {}
        self._others: set[Hashable] = set()
        self._confirmations = 0
        self.suspected = False
        """True while the server is taken to be at fault, and refused mailboxes wait."""
        self.next_at = 0.0
        """When the next refused mailbox may be tried, while the server is suspected."""

    def __len__(self) -> int:
        """Return how many mailboxes were refused."""
        return len(self._lately)

    def known(self, mailbox: Hashable, now: float) -> None:
        """Count a mailbox that was refused before this process began."""
        self._lately[mailbox] = now

    def refused(self, mailbox: Hashable, watched: int, now: float) -> None:
        """Count a mailbox that was refused; `watched` is the number of the server's watched mailboxes."""
        self._lately.pop(mailbox, None)
        self._lately[mailbox] = now
        if self.suspected:
            return
        while self._lately and now - next(iter(self._lately.values())) > WINDOW:
            del self._lately[next(iter(self._lately))]
        if len(self._lately) >= max(LEAST, watched * SHARE):
            self.suspected = True
            self._others.clear()
            self._confirmations = 0
            self.next_at = now + CONFIRM_AFTER[0]

    def accepted(self, mailbox: Hashable) -> None:
        """Note that a mailbox's credential was accepted."""
        refused = self._lately.pop(mailbox, None) is not None
        if not self.suspected:
            return
        self._others.add(mailbox)
        if refused or len(self._others) > len(self._lately):
            self.suspected = False

    def confirm(self, now: float) -> bool:
        """Return whether one refused mailbox may be tried now; if so, the next one waits for `next_at`."""
        if now < self.next_at:
            return False
        self._confirmations += 1
        self.next_at = now + CONFIRM_AFTER[min(self._confirmations, len(CONFIRM_AFTER) - 1)]
        return True

    def given_up(self, now: float) -> None:
        """Note that the confirming mailbox gave up before it had an answer: another one may be tried at once."""
        if self.suspected:
            self._confirmations = max(0, self._confirmations - 1)
            self.next_at = min(self.next_at, now)
