"""The admissions to all mail servers of a process, by URL."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from random import Random

from eas_watcher.errors import EasError
from eas_watcher.peer_clocks import PeerClocks
from eas_watcher.ports import Now
from eas_watcher.server.admission import ServerAdmission
from eas_watcher.server.idle_timeout import Lesson, PathKnowledge


class Admissions:
    """Makes and keeps one admission for each URL that requests go to.

    Each server has its own, so that a server that hangs delays no other server's mailboxes. A host of Autodiscover has
    one for its origin, apart from that of an ActiveSync URL at the same host: a mailbox is looked for while its mail
    server fails, so the lookup must not wait until that server is back.
    """

    def __init__(
        self,
        short_requests: int,
        random: Random,
        now: Now,
        lessons: Mapping[str, Lesson] | None = None,
        clocks: PeerClocks | None = None,
    ) -> None:
        """Take how many requests other than held Pings may be under way at one server.

        `lessons` are what earlier processes learnt about each server and the path to it, by URL. `clocks` gets the
        dates of answers.
        """
        self.now = now
        self.large_answer = asyncio.Lock()
        """Held while a large answer is read: two threads at once would take the interpreter from the loop."""
        self.clocks = clocks or PeerClocks(now)
        self._short_requests = short_requests
        self._random = random
        self._lessons = dict(lessons or {})
        self._admissions: dict[str, ServerAdmission] = {}
        self.requests: Counter[tuple[str, str]] = Counter()
        """How many requests ended how, those of candidates too: by command and result, as `count` names it."""

    def admission(self, url: str, rate: float) -> ServerAdmission:
        """Return the admission to a server; `rate` is how many mailboxes per second a new one lets in."""
        admission = self._admissions.get(url)
        if admission is None:
            lesson = self._lessons.get(url)
            path = None if lesson is None else PathKnowledge.recalled(lesson)
            capacity = None if lesson is None else lesson.capacity
            admission = ServerAdmission(rate, self._short_requests, self._random, self.now, path, capacity)
            self._admissions[url] = admission
        return admission

    def count(self, command: str, error: EasError | None) -> None:
        """Count a request: its result is "answered", or the kind of error."""
        self.requests[command, "answered" if error is None else type(error).__name__] += 1

    def known(self, url: str) -> ServerAdmission | None:
        """Return the admission to a server; None if no request has gone there."""
        return self._admissions.get(url)

    def items(self) -> list[tuple[str, ServerAdmission]]:
        """Return every URL with its admission."""
        return list(self._admissions.items())
