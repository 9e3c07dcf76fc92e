"""Own whether a mail server that refuses credentials refuses one user, or is ill itself.

Some servers answer 401 to everybody while their directory or store is down [observed: Z-Push 2.7.1, 2026-11]. When a
good part of a server's mailboxes is refused within minutes, their users have not all changed their passwords: nobody is
told, and the confirmations that each mailbox would make become one for all, until one is accepted.

It ends, too, when more other mailboxes are accepted than were refused: then the credentials are the trouble after all.
Nothing here does I/O or reads a clock: `now` is seconds of any monotonic clock.
"""

from collections.abc import Hashable
from typing import Final

from eas_watcher.machine.counters import CONFIRM_AFTER

WINDOW: Final = 600.0  # seconds, the start of a heartbeat: within it every mailbox is heard of
LEAST: Final = 5  # mailboxes; fewer may well have changed their passwords on one day
SHARE: Final = 0.1  # of the server's watched mailboxes


class MassRefusals:
    """Count the mailboxes of one server whose credential was refused lately."""

    __slots__ = ("_confirmations", "_lately", "_others", "next_at", "suspected")

    def __init__(self) -> None:
        """Begin without suspicion."""
        self._lately: dict[Hashable, float] = {}
        self._others: set[Hashable] = set()
        self._confirmations = 0
        self.suspected = False
        """Whether the server is held to be ill, and refused mailboxes wait."""
        self.next_at = 0.0
        """When the next refused mailbox may try, while the server is suspected."""

    def __len__(self) -> int:
        """Count the mailboxes refused lately."""
        return len(self._lately)

    def known(self, who: Hashable, now: float) -> None:
        """Learn that a mailbox was refused before this process began."""
        self._lately[who] = now

    def refused(self, who: Hashable, watched: int, now: float) -> None:
        """Learn that a mailbox was refused; `watched` counts the server's mailboxes."""
        self._lately.pop(who, None)
        self._lately[who] = now
        if self.suspected:
            return
        while self._lately and now - next(iter(self._lately.values())) > WINDOW:
            del self._lately[next(iter(self._lately))]
        if len(self._lately) >= max(LEAST, watched * SHARE):
            self.suspected = True
            self._others.clear()
            self._confirmations = 0
            self.next_at = now + CONFIRM_AFTER[0]

    def accepted(self, who: Hashable) -> None:
        """Learn that a mailbox's credential was accepted."""
        refused = self._lately.pop(who, None) is not None
        if not self.suspected:
            return
        self._others.add(who)
        if refused or len(self._others) > len(self._lately):
            self.suspected = False

    def confirm(self, now: float) -> bool:
        """Tell whether one refused mailbox may try now; it is the only one for a while."""
        if now < self.next_at:
            return False
        self._confirmations += 1
        self.next_at = now + CONFIRM_AFTER[min(self._confirmations, len(CONFIRM_AFTER) - 1)]
        return True

    def given_up(self, now: float) -> None:
        """Learn that the mailbox that might try was given up before it had an answer: another one may at once."""
        if self.suspected:
            self._confirmations = max(0, self._confirmations - 1)
            self.next_at = min(self.next_at, now)
