"""Which requests the API serves while more come than it can: decided before body and database are read."""

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from relay.api.rate import Allowance, RateLimit
from relay.registration.errors import Busy, TooManyOfRegistration, TooManyRegistrations, TooManyRequests
from relay.registration.secret import Access

STRANGERS: Final = 6_000.0
"""Requests per minute of all clients whose secret the relay does not know yet: 100 a second, some 50 ms of the loop."""
AT_ONCE: Final = 50.0  # of these, after a pause
FILES: Final = 6_000.0
"""Files of the web app per minute for all clients: 100 a second, some 30 ms of the loop."""
FILES_AT_ONCE: Final = 500.0  # of these, after a pause
FILES_OF_ONE: Final = 1_500.0
"""Of these for one client: 100 phones behind one address load the web app within a minute, some 15 files each."""
ONE: Final = 60.0  # requests per minute of a registration whose secret the relay knows
KNOWN: Final = (
    10_000  # secrets that are remembered, some 150 bytes each; the one unused for the longest time goes first
)
PAUSE: Final = 5  # seconds until a client asks again
EVERYBODY: Final = "everybody"
CODES: Final[Mapping[type[TooManyRequests], str]] = {
    TooManyRequests: "too-many-requests",
    TooManyRegistrations: "too-many-registrations",
    TooManyOfRegistration: "too-many-for-registration",
}
"""The code of the problem for each limit."""


class Guard:
    """Counts the requests of each client, of all strangers together, and of each registration that showed its secret.

    Files of the web app are counted apart: a page loads a dozen of them, and they ask nothing of the database.

    A registration that showed its secret is counted by itself alone: it gets through while strangers, perhaps behind
    the same NAT address, use up the shares of all others. A wrong secret costs what no secret costs, so the answers
    say nothing about a guess but that it was wrong.
    """

    def __init__(
        self,
        per_minute: float,
        registrations: float,
        clock: Callable[[], float],
        refused: Counter[str] | None = None,
        *,
        strangers: float = STRANGERS,
    ) -> None:
        """Set up with the requests and the new registrations per minute of one client, and a clock in seconds.

        `refused` counts refused requests by the code of the problem; `strangers` are the requests per minute of all
        clients whose secret the relay does not know.
        """
        self._clients = RateLimit(per_minute, clock)
        self._registering = RateLimit(registrations, clock, refusal=TooManyRegistrations)
        self._strangers = RateLimit(strangers, clock, burst=AT_ONCE, capacity=1)
        self._files = RateLimit(FILES, clock, burst=FILES_AT_ONCE, capacity=1)
        self._files_of_one = RateLimit(FILES_OF_ONE, clock)
        self._registrations = RateLimit(ONE, clock, refusal=TooManyOfRegistration)
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._refused = Counter[str]() if refused is None else refused

    def allow(self, per_minute: float, registrations: float) -> None:
        """Allow one client so many requests and new registrations per minute from now on."""
        self._clients.allow(per_minute)
        self._registering.allow(registrations)

    def admit(self, client: str, access: Access | None, *, registers: bool) -> None:
        """Count a request, perhaps for a new registration; raise TooManyRequests or Busy if it must not be served."""
        with self._counting_refusals():
            if access is not None and _digest(access) in self._known:
                self._registrations.take(access.registration_id)
                return
            self._clients.take(client)
            if registers:
                self._registering.take(client)
        self._take_of_all(self._strangers)

    def admit_file(self, client: str) -> None:
        """Count a request for a file of the web app; raise TooManyRequests or Busy if it must not be served."""
        with self._counting_refusals():
            self._files_of_one.take(client)
        self._take_of_all(self._files)

    def allowances(self, client: str, access: Access | None, *, registers: bool) -> tuple[Allowance, ...]:
        """Return what each limit that counts such a request leaves to its client."""
        if access is not None and _digest(access) in self._known:
            return (self._registrations.allowance("registration", access.registration_id),)
        address = self._clients.allowance("address", client)
        return (address, self._registering.allowance("registrations", client)) if registers else (address,)

    def opened(self, access: Access) -> None:
        """Remember a secret that opened its registration."""
        digest = _digest(access)
        self._known[digest] = None
        self._known.move_to_end(digest)
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)

    def proved(self) -> None:
        """Give all strangers the share of a request back whose credential a mail server has accepted: it was none."""
        self._strangers.give_back(EVERYBODY)

    @contextmanager
    def _counting_refusals(self) -> Iterator[None]:
        try:
            yield
        except TooManyRequests as error:
            self._refused[CODES[type(error)]] += 1
            raise

    def _take_of_all(self, limit: RateLimit) -> None:
        """Take from what all clients have together; raises Busy."""
        try:
            limit.take(EVERYBODY)
        except TooManyRequests as error:
            self._refused["busy"] += 1
            raise Busy("too many requests come at once; ask again") from error

    def gate(self, most: int) -> "Gate":
        """Return a gate to the database, whose refusals count here."""
        return Gate(most, self._refused)


class Gate:
    """Lets so many requests to the database at once, and refuses the next ones before they wait there."""

    def __init__(self, most: int, refused: Counter[str]) -> None:
        self._most = most
        self._inside = 0
        self._refused = refused

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Pass; raises Busy."""
        if self._inside >= self._most:
            self._refused["busy"] += 1
            raise Busy("as many requests as the relay serves at once are being served; ask again")
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1


def _digest(access: Access) -> bytes:
    return hashlib.sha256(f"{access.registration_id} {access.secret}".encode()).digest()
