"""The wait for the mail server's verdict on a candidate, which the watch role writes into the store.

If the server answers soon, the app gets the verdict with the answer to its request, else later.
"""

import asyncio
from enum import Enum, auto
from typing import Final

from relay.domain.errors import StoreUnavailable
from relay.domain.model import RegistrationId, RegistrationState, RegistrationView
from relay.domain.ports.registration import RegistrationStore
from relay.domain.ports.wakeups import Topic, Wakeups
from relay.registration.errors import Replaced

VERDICT_WAIT: Final = 6.0  # seconds a request waits for the verdict; well below the time limits of HTTP clients
LOOK: Final = 1.0  # seconds between two looks at the store, since wake-ups may be lost
LOOKS: Final = 500  # per second at most, over all waiting requests: each verdict wakes all of them


class Verdict(Enum):
    """The mail server's verdict on a candidate."""

    ACCEPTED = auto()
    REFUSED = auto()
    PENDING = auto()


class VerdictWaiter:
    """Waits for verdicts."""

    def __init__(self, store: RegistrationStore, wakeups: Wakeups, *, seconds: float = VERDICT_WAIT) -> None:
        """Set up with the store and its wake-ups; `seconds` is the longest wait."""
        self._store = store
        self._wakeups = wakeups
        self._seconds = seconds
        self._waiting = 0

    async def wait(self, id_: RegistrationId) -> tuple[Verdict, RegistrationView]:
        """Return the verdict on the candidate of a registration; PENDING if there is none in time.

        Raises Replaced if the registration is removed meanwhile, StoreUnavailable if it was never read.
        """
        waiter = self._wakeups.waiter(Topic.VERDICTS)
        clock = asyncio.get_running_loop().time
        until = clock() + self._seconds
        seen: RegistrationView | None = None
        self._waiting += 1
        try:
            while True:
                try:
                    seen = await self._look(id_)
                except StoreUnavailable:
                    # The registration exists; after a failure the app would make a second one.
                    if seen is None and clock() >= until:
                        raise
                if seen is not None and (verdict := read(seen)) is not Verdict.PENDING:
                    return verdict, seen
                if seen is not None and clock() >= until:
                    return Verdict.PENDING, seen
                await waiter.wait(min(LOOK, until - clock()))
                await asyncio.sleep(max(0.0, min(self._waiting / LOOKS, until - clock())))
        finally:
            self._waiting -= 1

    async def _look(self, id_: RegistrationId) -> RegistrationView:
        view = await self._store.view(id_)
        if view is None:
            raise Replaced("it was removed, or the same app on the same device registered again")
        return view


def read(view: RegistrationView) -> Verdict:
    """Return the verdict on the last candidate of a registration."""
    if view.candidate_pending or view.registration.state is RegistrationState.VERIFYING:
        return Verdict.PENDING  # a verifying registration without a candidate has none that was judged
    if view.candidate_refused or view.registration.state is RegistrationState.REFUSED:
        return Verdict.REFUSED
    return Verdict.ACCEPTED
