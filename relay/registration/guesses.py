"""How often a key of idempotency may come with another credential: who has the key must not try passwords with it.

Such a request is answered without the mail server, so no try of the account is counted for it. Pure.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from relay.domain.clock import Clock
from relay.domain.model import RegistrationId
from relay.registration.errors import NotAuthorized, TooManyRefusals

LIMIT: Final = 3
"""Wrong credentials within WINDOW, those whose answer is on its way included; then the right one is refused too."""
WINDOW: Final = timedelta(hours=1)
KEPT: Final = 10_000
"""Registrations that are remembered, some 200 bytes each; the oldest goes first. Each is one that a server accepted."""


@dataclass(slots=True)
class _Count:
    number: int
    since: datetime


class Guesses:
    """Counts the wrong credentials that came for each registration."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: OrderedDict[RegistrationId, _Count] = OrderedDict()

    @contextmanager
    def one(self, id_: RegistrationId) -> Iterator[None]:
        """Let one credential be compared, and count it if that raises NotAuthorized; raises TooManyRefusals."""
        now = self._clock()
        count = self._counts.setdefault(id_, _Count(0, now))
        if abs(now - count.since) > WINDOW:  # a moment ahead was noted while the clock was wrong
            count.number, count.since = 0, now
        if count.number >= LIMIT:
            raise TooManyRefusals((count.since + WINDOW - now).total_seconds())
        count.number += 1
        if len(self._counts) > KEPT:
            self._counts.popitem(last=False)
        try:
            yield
        except NotAuthorized:
            raise
        except BaseException:
            self._take_back(id_, count)
            raise
        else:
            self._take_back(id_, count)

    def _take_back(self, id_: RegistrationId, count: _Count) -> None:
        count.number = max(0, count.number - 1)
        if count.number == 0 and self._counts.get(id_) is count:
            del self._counts[id_]
