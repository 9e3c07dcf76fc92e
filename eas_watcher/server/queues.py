"""Who waits for a turn at one mail server, in which order, and for what; made for the running event loop.

Watches and candidates queue apart and pass in turns, so that thousands of one kind do not keep the other kind waiting.
A watch probes before a candidate: a server that has just come back may refuse a right password, which a watch confirms,
while a candidate has one try. While the server refuses many credentials at once, candidates wait apart, and so do
refused mailboxes: those that have more than their last try left come first.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from eas_watcher.machine.counters import MOST_REFUSALS

Turn: TypeAlias = Literal["probes", "returns", "confirms"]
"""Why a waiting client is let through: to find out how the server is, as one of many, or to confirm a refusal."""
Waiting: TypeAlias = "asyncio.Future[Turn]"
"""A client that waits; done once it was let through, or gave up."""
Queue: TypeAlias = deque[Waiting]
LAST_TRY: Final = MOST_REFUSALS - 1  # refusals after which the next one is the last


class Queues:
    """The clients that wait until the server is back, or until it is their turn.

    A client that gives up cancels its future; the queue drops it when it comes to the front.
    """

    def __init__(self) -> None:
        """Make empty queues."""
        self._watches: Queue = deque()
        self._candidates: Queue = deque()
        self._suspended: Queue = deque()
        """Candidates that wait because the server is suspected."""
        self._refused: dict[int, Queue] = {1: deque(), LAST_TRY: deque()}
        self._impatient: set[Waiting] = set()
        """Those that do not wait for a server that is away."""
        self._candidate_is_next = False

    @property
    def watches(self) -> int:
        """How many watched mailboxes wait for the server, or for others that it serves."""
        return _count(self._watches)

    @property
    def watches_at_most(self) -> int:
        """The same with those that gave up, which costs nothing to count."""
        return len(self._watches)

    @property
    def candidates(self) -> int:
        """How many candidates wait for the same."""
        return _count(self._candidates)

    @property
    def held_back(self) -> int:
        """How many clients wait because the server refuses many credentials at once."""
        return _count(self._suspended) + sum(map(_count, self._refused.values()))

    @property
    def has_suspended(self) -> bool:
        """Whether candidates wait because the server is suspected."""
        _drop_done(self._suspended)
        return bool(self._suspended)

    def join(self, *, candidate: bool, impatient: bool) -> Waiting:
        """Append a client to its queue; an impatient one does not wait for a server that is away."""
        return self._join(self._candidates if candidate else self._watches, impatient)

    def hold_back(self, refusals: int, *, candidate: bool, impatient: bool) -> Waiting:
        """Append a candidate, or a client whose credential was refused so often in a row, to those held back."""
        return self._join(self._suspended if candidate else self._refused[min(refusals, LAST_TRY)], impatient)

    def leave(self, client: Waiting) -> None:
        """Note that a client waits no more, for whatever reason."""
        self._impatient.discard(client)

    def dismiss(self, error: Callable[[], Exception]) -> None:
        """Raise an error, made for each, in the impatient clients."""
        for client in self._impatient:
            if not client.done():
                client.set_exception(error())

    def next_queue(self, *, probe: bool) -> Queue | None:
        """Return the queue whose first client is the next one, after those that gave up are gone; None: both are empty.

        Watches and candidates take turns, but a watch probes.
        """
        _drop_done(self._watches)
        _drop_done(self._candidates)
        if self._candidate_is_next and not probe:
            return self._candidates or self._watches or None
        return self._watches or self._candidates or None

    def let_through(self, queue: Queue, turn: Turn) -> None:
        """Tell the first client of a queue that it may send, and why."""
        queue.popleft().set_result(turn)
        if turn != "confirms":  # it comes from those held back, beside the turns of the others
            self._candidate_is_next = queue is self._watches

    def first_refused(self) -> Queue | None:
        """Return the queue of the refused mailbox that confirms next, one that has more than its last try left if any.

        None: no refused mailbox waits.
        """
        for queue in self._refused.values():
            _drop_done(queue)
        return next((queue for queue in self._refused.values() if queue), None)

    def free_suspended(self) -> None:
        """Move the suspended candidates to the queue of candidates."""
        self._candidates.extend(self._suspended)
        self._suspended.clear()

    def free_all(self) -> None:
        """Move all clients that were held back to the queues of watches and candidates."""
        for queue in self._refused.values():
            self._watches.extend(queue)
            queue.clear()
        self.free_suspended()

    def _join(self, queue: Queue, impatient: bool) -> Waiting:
        client: Waiting = asyncio.get_running_loop().create_future()
        queue.append(client)
        if impatient:
            self._impatient.add(client)
        return client


def _count(queue: Queue) -> int:
    """Return how many of a queue have not given up."""
    return sum(not client.done() for client in queue)


def _drop_done(queue: Queue) -> None:
    """Remove from the front of a queue those that gave up."""
    while queue and queue[0].done():
        queue.popleft()
