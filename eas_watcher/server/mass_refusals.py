"""Whether a mail server that refuses credentials refuses single users, or has a fault of its own.

Some servers answer 401 to everybody while their directory or store is down [observed: Z-Push 2.7.1, 2026-11]. When a
server refuses many of its mailboxes within minutes, their users have not all changed their passwords. So the relay
suspects the server: it notifies no user, and one mailbox confirms the refusal for all, until one is accepted.

The suspicion also ends when more other mailboxes are accepted than were refused: then the credentials are wrong, or
the server has lost a part of its mailboxes.

A mailbox that is refused for the last time may be one of very few. What counts then is whether the server accepted
another one since it last refused this one: if so, it is the credential. An acceptance that was followed by a refusal of
the same mailbox does not count, nor one in the REMEMBERED seconds after the first refusal: servers remember passwords
while their directory or store has gone.

Nothing here does I/O or reads a clock: `now` is seconds of any monotonic clock.
"""

from collections.abc import Hashable
from typing import Final

from eas_watcher.machine.counters import CONFIRM_AFTER

WINDOW: Final = 600.0  # seconds, the first heartbeat interval: within it every mailbox sends a request
LEAST: Final = 5  # mailboxes; the users of fewer may have changed their passwords on the same day
SHARE: Final = 0.1  # of the server's watched mailboxes
REMEMBERED: Final = 300.0  # seconds for which a server remembers a password [SOGo: SOGoCacheCleanupInterval]
SKEW: Final = 120.0  # seconds by which the clocks of two processes' hosts may differ


class MassRefusals:
    """The mailboxes of one server whose credential was refused within WINDOW."""

    __slots__ = (
        "_accepted",
        "_confirmations",
        "_elsewhere",
        "_lately",
        "_mass",
        "_others",
        "_refused",
        "next_at",
        "suspected",
    )

    def __init__(self) -> None:
        """Start without suspicion."""
        self._lately: dict[Hashable, float] = {}
        self._others: set[Hashable] = set()
        self._confirmations = 0
        self._refused: dict[Hashable, tuple[float, float]] = {}
        """When each mailbox was refused first and last, until it is accepted or watched no longer."""
        self._accepted: dict[Hashable, float] = {}
        """When the last accepted request of each mailbox began; only the latest one's unless any mailbox is refused.

        One is kept because a watch that was refused before this process may begin after others were accepted.
        """
        self._elsewhere = float("-inf")
        """As in `_accepted`, of the mailboxes that other processes watch."""
        self._mass: set[Hashable] = set()
        """The mailboxes that were refused when the server was suspected, and since then."""
        self.suspected = False
        """True while the server is taken to be at fault, and refused mailboxes wait."""
        self.next_at = 0.0
        """When the next refused mailbox may be tried, while the server is suspected."""

    def __len__(self) -> int:
        """Return how many mailboxes were refused."""
        return len(self._lately)

    def known(self, mailbox: Hashable, now: float, ago: float) -> None:
        """Count a mailbox that was refused before this process began, at least `ago` seconds before."""
        self._lately[mailbox] = now
        self._refused[mailbox] = now - ago, now - ago

    @property
    def refused_now(self) -> int:
        """How many mailboxes were refused last time."""
        return len(self._refused)

    @property
    def example(self) -> Hashable | None:
        """A mailbox that is refused; None: none is."""
        return next(iter(self._refused), None)

    def others_accepted(self, mailbox: Hashable) -> bool:
        """Return whether another mailbox was accepted since this one was refused last."""
        if mailbox not in self._refused:
            return False
        first, last = self._refused[mailbox]
        since = max(first + REMEMBERED, last)
        own = any(began > since for other, began in self._accepted.items() if other != mailbox)
        return own or self._elsewhere - SKEW > since

    def is_one_of_many(self, mailbox: Hashable, watched: int) -> bool:
        """Return whether a mailbox was refused together with many."""
        return mailbox in self._mass and len(self._mass) >= max(LEAST, watched * SHARE)

    def elsewhere(self, began: float) -> None:
        """Note when a mailbox that another process watches was accepted, by the clock of its host."""
        self._elsewhere = max(self._elsewhere, began)

    def forget(self, mailbox: Hashable) -> None:
        """Forget a mailbox that is watched no longer, or with another credential."""
        self._refused.pop(mailbox, None)
        self._accepted.pop(mailbox, None)
        self._mass.discard(mailbox)

    def refused(self, mailbox: Hashable, watched: int, now: float) -> None:
        """Count a mailbox that was refused; `watched` is the number of the server's watched mailboxes."""
        self._lately.pop(mailbox, None)
        self._lately[mailbox] = now
        self._accepted.pop(mailbox, None)
        first, _ = self._refused.get(mailbox, (now, now))
        self._refused[mailbox] = first, now
        if self.suspected:
            self._mass.add(mailbox)
            return
        while self._lately and now - next(iter(self._lately.values())) > WINDOW:
            del self._lately[next(iter(self._lately))]
        if len(self._lately) >= max(LEAST, watched * SHARE):
            self.suspected = True
            self._mass.update(self._lately)
            self._others.clear()
            self._confirmations = 0
            self.next_at = now + CONFIRM_AFTER[0]

    def accepted(self, mailbox: Hashable, began: float) -> bool:
        """Note that a mailbox's credential was accepted with a request of `began`; return whether it was refused."""
        refused = self._lately.pop(mailbox, None) is not None
        was_refused = self._refused.pop(mailbox, None) is not None
        self._mass.discard(mailbox)
        if not self._refused:
            self._accepted.clear()
        self._accepted[mailbox] = began
        if self.suspected:
            self._others.add(mailbox)
            if refused or len(self._others) > len(self._lately):
                self.suspected = False
        return was_refused

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
