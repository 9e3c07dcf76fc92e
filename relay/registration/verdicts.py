"""The wait for the mail server's verdict on a candidate, which the watch role writes into the store.

If the server answers soon, the app gets the verdict with the answer to its request, else later. All requests that wait
share one task, which looks for the verdicts on all their candidates at once: each verdict wakes it, and thousands of
phones may register at the same time.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from relay.domain.errors import RelayError, StoreUnavailable
from relay.domain.model import RegistrationId, RegistrationState, RegistrationView
from relay.domain.ports.registration import RegistrationStore
from relay.domain.ports.wakeups import Topic, Waiter, Wakeups
from relay.registration.errors import Replaced

VERDICT_WAIT: Final = 6.0  # seconds a request waits for the verdict; well below the time limits of HTTP clients
LOOK: Final = 1.0  # seconds between two looks at the store, since wake-ups may be lost
PAUSE: Final = 0.02  # seconds between two looks at least, so that the verdicts of a storm are read in groups


class Verdict(Enum):
    """The mail server's verdict on a candidate."""

    ACCEPTED = auto()
    REFUSED = auto()
    PENDING = auto()
    WIPED = auto()
    """An administrator wiped the mailbox's device, which ended the registration."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request that waits for the verdict on the candidate of a registration."""

    id: RegistrationId
    until: float
    """When it is answered without a verdict, by the loop's clock."""
    answer: "asyncio.Future[tuple[Verdict, RegistrationView]]"
    seen: RegistrationView | None = field(default=None)
    """How the registration was when it was read last."""


class VerdictWaiter:
    """Waits for verdicts."""

    def __init__(self, store: RegistrationStore, wakeups: Wakeups, *, seconds: float = VERDICT_WAIT) -> None:
        """Set up with the store and its wake-ups; `seconds` is the longest wait of a request that comes."""
        self._store = store
        self._wakeups = wakeups
        self.seconds = seconds
        self._waiting: set[_Waiting] = set()
        self._looking: asyncio.Task[None] | None = None
        """Looks for verdicts while a request waits for one."""

    async def wait(self, id_: RegistrationId) -> tuple[Verdict, RegistrationView]:
        """Return the verdict on the candidate of a registration; PENDING if there is none in time.

        Raises Replaced if the registration is removed meanwhile, StoreUnavailable if it was never read.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(id_, loop.time() + self.seconds, loop.create_future())
        self._waiting.add(waiting)
        if self._looking is None:
            self._looking = loop.create_task(self._look(self._wakeups.waiter(Topic.VERDICTS)), name="verdicts")
            self._looking.add_done_callback(self._looked)
        try:
            return await waiting.answer
        finally:
            self._waiting.discard(waiting)

    async def _look(self, waiter: Waiter) -> None:
        """Look for the verdicts on all candidates whenever one was stored, until no request waits any more."""
        clock = asyncio.get_running_loop().time
        try:
            while self._waiting:
                until = min(waiting.until for waiting in self._waiting)
                await waiter.wait(max(0.0, min(LOOK, until - clock())))
                await self._look_once(list(self._waiting))
                await asyncio.sleep(PAUSE)
        finally:
            self._looking = None

    async def _look_once(self, requests: Sequence[_Waiting]) -> None:
        found: Mapping[RegistrationId, RegistrationView | None] = {}
        trouble: StoreUnavailable | None = None
        seen = [waiting.id for waiting in requests if waiting.seen is not None]
        try:
            found = await self._store.look_at([waiting.id for waiting in requests], seen)
        except StoreUnavailable as error:
            trouble = error
        clock = asyncio.get_running_loop().time
        for waiting in requests:
            view = found.get(waiting.id)
            if view is not None:
                waiting.seen = view
                self._answer(waiting, None)
            elif trouble is not None:
                self._answer(waiting, trouble)
            elif waiting.id not in found or clock() >= waiting.until:
                await self._look_for(waiting)

    async def _look_for(self, waiting: _Waiting) -> None:
        """Look for one registration: it is gone, its row cannot be read, or there was no verdict on it in time."""
        try:
            view = await self._store.view(waiting.id)
        except StoreUnavailable as error:
            self._answer(waiting, error)
            return
        if view is None:
            self._end(waiting, Replaced("it was removed, or the same app on the same device registered again"))
            return
        waiting.seen = view
        self._answer(waiting, None)

    def _answer(self, waiting: _Waiting, trouble: StoreUnavailable | None) -> None:
        """Answer a request that has its verdict, or has waited long enough."""
        if waiting.seen is not None and (verdict := read(waiting.seen)) is not Verdict.PENDING:
            self._end(waiting, (verdict, waiting.seen))
        elif asyncio.get_running_loop().time() < waiting.until:
            return
        elif waiting.seen is not None:
            # The registration exists; after a failure the app would make a second one.
            self._end(waiting, (Verdict.PENDING, waiting.seen))
        elif trouble is not None:
            self._end(waiting, trouble)

    def _end(self, waiting: _Waiting, answer: tuple[Verdict, RegistrationView] | RelayError) -> None:
        self._waiting.discard(waiting)
        if waiting.answer.done():
            return
        if isinstance(answer, RelayError):
            waiting.answer.set_exception(answer)
        else:
            waiting.answer.set_result(answer)

    def _looked(self, looking: "asyncio.Task[None]") -> None:
        """End all waits with the fault that ended the looks."""
        if looking.cancelled() or (error := looking.exception()) is None:
            return
        for waiting in self._waiting:
            if not waiting.answer.done():
                waiting.answer.set_exception(error)


def read(view: RegistrationView) -> Verdict:
    """Return the verdict on the last candidate of a registration."""
    if view.registration.state is RegistrationState.WIPED:
        return Verdict.WIPED
    if view.candidate_pending or view.registration.state is RegistrationState.VERIFYING:
        return Verdict.PENDING  # a verifying registration without a candidate has none that was judged
    if view.candidate_refused or view.registration.state is RegistrationState.REFUSED:
        return Verdict.REFUSED
    return Verdict.ACCEPTED
