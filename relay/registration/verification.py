"""Own the waiting for what a mailbox's server thinks of a candidate credential, as it appears in the store.

The watch role asks the server. An app is told at once when the server answers soon, else later.
"""

import asyncio
from enum import Enum, auto
from typing import Final

from relay.domain.clock import Clock
from relay.domain.errors import StoreUnavailable
from relay.domain.model import RegistrationId, RegistrationState, RegistrationView
from relay.domain.ports.registration import RegistrationStore
from relay.domain.ports.wakeups import Topic, Wakeups
from relay.registration.errors import Replaced
from relay.registration.lockout import Lockout, Try

VERDICT_WAIT: Final = 6.0  # seconds an app waits for the server's word; well below the time limits of HTTP clients
LOOK: Final = 1.0  # seconds between two looks at the store, for wake-ups may be lost
LOOKS: Final = 500  # per second at most, over all that wait: each verdict wakes them all


class Verdict(Enum):
    """Say what became of a candidate so far."""

    ACCEPTED = auto()
    REFUSED = auto()
    PENDING = auto()


class VerdictWaiter:
    """Wait for verdicts, and tell them to the memory of tries."""

    def __init__(
        self,
        store: RegistrationStore,
        wakeups: Wakeups,
        clock: Clock,
        lockout: Lockout,
        *,
        seconds: float = VERDICT_WAIT,
    ) -> None:
        """Take where verdicts appear and what wakes; `seconds` is the longest wait."""
        self._store = store
        self._wakeups = wakeups
        self._clock = clock
        self._lockout = lockout
        self._seconds = seconds
        self._waiting = 0

    async def wait(self, id_: RegistrationId, begun: Try) -> tuple[Verdict, RegistrationView]:
        """Wait until the candidate of a registration is no longer pending; PENDING when the time is over.

        Raises Replaced when the registration is removed meanwhile, StoreUnavailable when it was not seen at all.
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
                    # The registration is kept; an app that heard a failure now would make a second one.
                    if seen is None and clock() >= until:
                        raise
                if seen is not None and (verdict := read(seen)) is not Verdict.PENDING:
                    self._settle(begun, verdict)
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

    def _settle(self, begun: Try, verdict: Verdict) -> None:
        if verdict is Verdict.ACCEPTED:
            self._lockout.accepted(begun)
        else:
            self._lockout.refused(begun, self._clock())


def read(view: RegistrationView) -> Verdict:
    """Read the verdict on the last candidate of a registration."""
    if view.candidate_pending:
        return Verdict.PENDING
    if view.candidate_refused or view.registration.state is RegistrationState.REFUSED:
        return Verdict.REFUSED
    return Verdict.ACCEPTED
