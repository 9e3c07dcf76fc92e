"""The credential tries of each account, counted so that the API never locks a user out of the company.

The store counts refused candidates per mailbox too, but forgets them with the mailbox. This count also has the tries in
progress, because many requests may come at the same moment. It is per process, bounded, and pure.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final

from relay.registration.errors import TooManyRefusals

LIMIT: Final = 3
"""Refused credentials of one account within the window; fewer than the thresholds at which directories lock."""
WINDOW: Final = timedelta(minutes=15)
CAPACITY: Final = 10_000
"""The most accounts, about 1 kB each; the account without a try for the longest time is dropped first."""
SOON: Final = 10.0
"""Seconds to wait while the tries that fill the limit are still in progress."""

Account = tuple[str, str]


class _End(Enum):
    IN_PROGRESS = auto()
    OPEN = auto()
    REFUSED = auto()


@dataclass(slots=True, eq=False)
class Try:
    """One try of one account, from `Lockout.begin` on."""

    account: Account
    at: datetime
    end: _End = field(default=_End.IN_PROGRESS)


class Lockout:
    """The tries of each account within the window that were refused, or may still be."""

    def __init__(self, *, limit: int = LIMIT, window: timedelta = WINDOW, capacity: int = CAPACITY) -> None:
        self._limit = limit
        self._window = window
        self._capacity = capacity
        self._tries: OrderedDict[Account, list[Try]] = OrderedDict()

    def begin(self, account: Account, now: datetime) -> Try:
        """Count a try that begins; raise TooManyRefusals instead if the account has reached the limit."""
        tries = [past for past in self._tries.get(account, ()) if now - past.at < self._window]
        if len(tries) >= self._limit:
            if any(past.end is _End.IN_PROGRESS for past in tries):
                raise TooManyRefusals(SOON)
            raise TooManyRefusals((min(past.at for past in tries) + self._window - now).total_seconds())
        begun = Try(account, now)
        self._tries[account] = [*tries, begun]
        self._tries.move_to_end(account)
        while len(self._tries) > self._capacity:
            self._tries.popitem(last=False)
        return begun

    def accepted(self, begun: Try) -> None:
        """Drop the ended tries of an account: a server also drops them after a successful login."""
        self._keep(begun, [past for past in self._tries.get(begun.account, ()) if past.end is _End.IN_PROGRESS])

    def refused(self, begun: Try, now: datetime) -> None:
        """Count a try as refused, `now`."""
        begun.at, begun.end = now, _End.REFUSED

    def undecided(self, begun: Try) -> None:
        """Keep counting a try without a verdict: the server may still refuse it."""
        if begun.end is _End.IN_PROGRESS:
            begun.end = _End.OPEN

    def _keep(self, begun: Try, tries: list[Try]) -> None:
        tries = [past for past in tries if past is not begun]
        if tries:
            self._tries[begun.account] = tries
        else:
            self._tries.pop(begun.account, None)
