"""Own the memory of credential tries per account, so that the API can never lock a user out of the company.

The store counts refused candidates per mailbox too, but forgets them with the mailbox. This memory also counts the
tries under way, for many requests may come at the same moment. It is per process, bounded, and pure.
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
"""Accounts remembered, about 1 kB each; the one not tried for longest is forgotten first."""
SOON: Final = 10.0
"""Seconds to wait when the tries that fill the limit are still under way."""

Account = tuple[str, str]


class _End(Enum):
    UNDER_WAY = auto()
    OPEN = auto()
    REFUSED = auto()


@dataclass(slots=True, eq=False)
class Try:
    """Hold one try of one account, from `Lockout.begin` on."""

    account: Account
    at: datetime
    end: _End = field(default=_End.UNDER_WAY)


class Lockout:
    """Count the tries of each account that were refused, or may yet be, within the window."""

    def __init__(self, *, limit: int = LIMIT, window: timedelta = WINDOW, capacity: int = CAPACITY) -> None:
        self._limit = limit
        self._window = window
        self._capacity = capacity
        self._tries: OrderedDict[Account, list[Try]] = OrderedDict()

    def begin(self, account: Account, now: datetime) -> Try:
        """Count a try that begins; raises TooManyRefusals instead when the account has had its share."""
        tries = [past for past in self._tries.get(account, ()) if now - past.at < self._window]
        if len(tries) >= self._limit:
            if any(past.end is _End.UNDER_WAY for past in tries):
                raise TooManyRefusals(SOON)
            raise TooManyRefusals((min(past.at for past in tries) + self._window - now).total_seconds())
        begun = Try(account, now)
        self._tries[account] = [*tries, begun]
        self._tries.move_to_end(account)
        while len(self._tries) > self._capacity:
            self._tries.popitem(last=False)
        return begun

    def accepted(self, begun: Try) -> None:
        """Forget an account's ended tries: a server forgets them too once the user is in."""
        self._keep(begun, [past for past in self._tries.get(begun.account, ()) if past.end is _End.UNDER_WAY])

    def refused(self, begun: Try, now: datetime) -> None:
        """Note that a try was refused, `now`."""
        begun.at, begun.end = now, _End.REFUSED

    def undecided(self, begun: Try) -> None:
        """Note that nobody waits for a try any more; it counts, for the server may yet refuse it."""
        if begun.end is _End.UNDER_WAY:
            begun.end = _End.OPEN

    def _keep(self, begun: Try, tries: list[Try]) -> None:
        tries = [past for past in tries if past is not begun]
        if tries:
            self._tries[begun.account] = tries
        else:
            self._tries.pop(begun.account, None)
