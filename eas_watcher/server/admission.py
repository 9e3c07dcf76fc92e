"""Admission to one mail server: which mailboxes may send now, and which wait, in one queue with one timer.

`breaker.py` decides whether the server is served, `mass_refusals.py` whether a refused credential is tried again; this
module gives both what they need of the event loop. A client enters before each request and reports how it ended.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Final, Literal, TypeAlias

from eas_watcher.breaker import Away, Breaker, Returning, Serving
from eas_watcher.breaker import Turn as BreakerTurn
from eas_watcher.errors import EasError, Unauthorized, Unreachable
from eas_watcher.heartbeat import HELD, Heartbeat
from eas_watcher.machine.counters import MOST_REFUSALS
from eas_watcher.ports import Now
from eas_watcher.server.breaker import concerns_server, read_failure, rules
from eas_watcher.server.idle_timeout import PathKnowledge
from eas_watcher.server.mass_refusals import MassRefusals

Turn: TypeAlias = Literal["probes", "returns", "confirms"]
"""As what a queued watch is let through: to find out how the server is, as one of many, or to confirm a refusal."""
NEVER: Final = -1  # a watch has not passed so far
LAST_TRY: Final = MOST_REFUSALS - 1  # refusals after which the next one is the last


@dataclass(slots=True)
class WatchAdmission:
    """Hold how one watch stands with the door."""

    mailbox: Hashable
    refusals: int = 0
    """How often its credential was refused in a row."""
    passed: int = NEVER
    """After which of the server's absences it passed last."""
    probe: bool = False
    """Whether its request is the one that finds out how the server is."""
    confirms: bool = False
    """Whether its request is the one that finds out how the server takes refused credentials."""
    began: float = 0.0
    """When its request was let through, by the loop's clock."""
    holding: asyncio.TimerHandle | None = None
    """Tells when a Ping that probes has been held long enough."""


log = logging.getLogger(__name__)

State: TypeAlias = Literal["serving", "away", "returning", "starting"]
"""How the server is; "starting" lets in mailboxes that were never here, "returning" those that an absence held up."""


class ServerAdmission:
    """Let the watches of one server send, or wait; made for the running event loop."""

    def __init__(
        self, rate: float, short_requests: int, random: Random, now: Now, path: PathKnowledge | None = None
    ) -> None:
        """Take how many mailboxes per second start or return, and how many short requests go at once.

        `path` is what an earlier process learnt about the path to the server.
        """
        self.short = asyncio.Semaphore(short_requests)
        """Requests other than held Pings that may still be sent now."""
        self.watched = 0
        """How many mailboxes are watched at this server."""
        self.refusals = MassRefusals()
        self.path = path or PathKnowledge()
        self.since: datetime = now()
        """Since when the breaker is in its present state."""
        self._rate = rate
        self._random = random
        self._now = now
        self._breaker = Breaker(rules(rate))
        self._absences = 0
        self._queue: deque[asyncio.Future[Turn]] = deque()
        self._refused: dict[int, deque[asyncio.Future[Turn]]] = {1: deque(), LAST_TRY: deque()}
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0
        self._suspected_at = 0.0

    @property
    def state(self) -> State:
        """The state of the breaker."""
        match self._breaker.state:
            case Serving():
                return "serving"
            case Away():
                return "away"
            case Returning(starting=True):
                return "starting"
            case Returning():  # pragma: no branch -- mypy proves that there is no other
                return "returning"

    @property
    def detail(self) -> str:
        """Why the server is taken to be away; empty unless it is."""
        return self._breaker.state.detail if isinstance(self._breaker.state, Away) else ""

    @property
    def trouble(self) -> str:
        """Say why nobody should ask the server now, as long as somebody here finds out; empty if anybody may."""
        now, state = asyncio.get_running_loop().time(), self._breaker.state
        if isinstance(state, Away) and (state.probing or now < state.until):
            return f"the server is away: {state.detail}"
        if self.refusals.suspected and now < self.refusals.next_at:
            return "the server refuses many credentials at once"
        return ""

    @property
    def waiting(self) -> int:
        """How many watches wait for the server."""
        return sum(not turn.done() for turn in self._queue)

    @property
    def held_back(self) -> int:
        """Count the refused mailboxes that wait because the server is suspected."""
        return sum(not turn.done() for turns in self._refused.values() for turn in turns)

    def expected_wait(self) -> float | None:
        """Return after how many seconds a failed mailbox may send again; None: the server serves, so nothing waits."""
        now = asyncio.get_running_loop().time()
        match self._breaker.state:
            case Serving():
                return None
            case Away(until=until):
                return max(0.0, until - now)
            case Returning():  # pragma: no branch -- mypy proves that there is no other
                return len(self._queue) / self._rate

    def watch_begins(self, mailbox: Hashable, *, refused: bool) -> None:
        """Count one more watched mailbox; `refused`: the server refused its credential before this process began."""
        self.watched += 1
        if refused:
            self.refusals.known(mailbox, asyncio.get_running_loop().time())

    def watch_ends(self) -> None:
        """Count one watched mailbox less."""
        self.watched -= 1

    async def enter(self, visitor: WatchAdmission, *, holds: bool = False) -> None:
        """Return when a request may be sent; `holds`: it is a Ping, whose answer comes late."""
        loop = asyncio.get_running_loop()
        turn: Turn = "confirms"
        if visitor.refusals and self.refusals.suspected:
            turn = await self._wait(self._refused[min(visitor.refusals, LAST_TRY)])
            visitor.confirms = turn == "confirms"
        if turn == "confirms" and not self._passes(visitor):
            try:
                turn = await self._wait(self._queue)
            except asyncio.CancelledError:
                self.leave(visitor)
                raise
        visitor.probe = turn == "probes"
        visitor.passed = self._absences
        visitor.began = loop.time()
        if visitor.probe and holds:
            visitor.holding = loop.call_later(HELD, self._probe_ended, visitor)

    def answered(self, visitor: WatchAdmission) -> None:
        """Learn that the server answered, with success or with what concerns this mailbox alone."""
        visitor.confirms = False
        if visitor.probe:
            self._probe_ended(visitor)
        else:
            self._breaker = self._breaker.answered(asyncio.get_running_loop().time())

    def accepted(self, visitor: WatchAdmission) -> None:
        """Learn that the server accepted a mailbox's credential."""
        if self.refusals.suspected and visitor.began < self._suspected_at:
            return  # it was accepted before the trouble began
        was = self.refusals.suspected
        self.refusals.accepted(visitor.mailbox)
        if was and not self.refusals.suspected:
            log.warning("refused credentials are tried again", extra={"mailboxes": self.held_back})
            self._release()

    def failed(self, visitor: WatchAdmission, error: EasError) -> EasError:
        """Learn that a request failed; return the error as it should be understood.

        A stale connection tells nothing: whoever was to find out something with it hands the turn on, leaving.
        """
        if isinstance(error, Unreachable) and error.stale:
            return error
        visitor.confirms = False
        if isinstance(error, Unauthorized):
            error = self._judge(visitor, error)
        clock = asyncio.get_running_loop().time()
        cut = self.path.cut_off
        expected = isinstance(error, Unreachable) and cut is not None and cut.covers(error.survived)
        if expected or not concerns_server(error):
            self.answered(visitor)
        else:
            probe, visitor.probe = visitor.probe, False
            failure = read_failure(error)
            self._become(self._breaker.failed(visitor.mailbox, failure, clock, self._random, probe=probe))
        return error

    def leave(self, visitor: WatchAdmission) -> None:
        """Learn that a request is over, told of or not: who was given up hands the turn to another."""
        if visitor.holding is not None:
            visitor.holding.cancel()
            visitor.holding = None
        if visitor.probe:
            self._hand_on("probes")
        if visitor.confirms:
            self._hand_on("confirms")
        visitor.probe = visitor.confirms = False

    def held(self, heartbeat: Heartbeat, seconds: float) -> None:
        """Learn that a Ping was held to its end."""
        self.path = self.path.held(heartbeat, seconds)

    def cut(self, heartbeat: Heartbeat, survived: float) -> None:
        """Learn that a held Ping was cut."""
        self.path = self.path.cut(heartbeat, survived, asyncio.get_running_loop().time())

    def _judge(self, visitor: WatchAdmission, error: Unauthorized) -> Unauthorized:
        """Tell whether a refusal is one of many; a mailbox's last try is judged as its own."""
        now = asyncio.get_running_loop().time()
        was = self.refusals.suspected
        self.refusals.refused(visitor.mailbox, self.watched, now)
        if self.refusals.suspected and not was:
            self._suspected_at = now
            log.warning("mail server refuses many credentials at once", extra={"mailboxes": len(self.refusals)})
        if not self.refusals.suspected or visitor.refusals >= LAST_TRY:
            return error
        detail = f"{error}, as those of many others: its directory or its store may be down"
        return Unauthorized(detail, shared=True)

    def _passes(self, visitor: WatchAdmission) -> bool:
        """Return whether a watch need not queue: none does, or it has passed since the server was last away."""
        state = self._breaker.state
        if visitor.passed == NEVER:
            if isinstance(state, Serving):
                self._breaker = self._breaker.arrived(asyncio.get_running_loop().time())
                self.since = self._now()
            return False
        if isinstance(state, Returning):
            return visitor.passed == self._absences
        return isinstance(state, Serving)

    async def _wait(self, queue: "deque[asyncio.Future[Turn]]") -> Turn:
        """Queue up; return as what the watch was let through."""
        turn: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        self._pump()
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._hand_on(turn.result())
            raise

    def _hand_on(self, turn: Turn) -> None:
        """Let another one find out what a watch that was given up was to find out."""
        now = asyncio.get_running_loop().time()
        if turn == "probes":
            self._become(self._breaker.probe_lost(now))
        elif turn == "confirms":
            self.refusals.given_up(now)
            self._pump()

    def _probe_ended(self, visitor: WatchAdmission) -> None:
        """Let the others follow a probe that was answered, or is held."""
        visitor.probe = False
        if self._breaker.away:
            self._absences += 1
            visitor.passed = self._absences
            self._become(self._breaker.answered(asyncio.get_running_loop().time(), probe=True))

    def _release(self) -> None:
        """Let the refused mailboxes return like those of a server that was away."""
        for turns in self._refused.values():
            self._queue.extend(turns)
            turns.clear()
        self._become(self._breaker.released(asyncio.get_running_loop().time()))

    def _become(self, breaker: Breaker) -> None:
        was_away, before = self._breaker.away, self.state
        self._breaker = breaker
        if self.state != before:
            self.since = self._now()
            if breaker.away:
                log.warning("mail server is away: one mailbox probes, the rest wait", extra={"detail": self.detail})
            elif was_away:
                log.warning("mail server is back: its mailboxes return", extra={"mailboxes": self.waiting})
        self._pump()

    def _ring(self) -> None:
        self._timer = None
        self._pump()

    def _pump(self) -> None:
        """Let through who may pass now, and look again when the next may."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        moments = [moment for moment in (self._pump_queue(now), self._pump_refused(now)) if moment is not None]
        if self._timer is not None:
            if moments and self._rings_at == min(moments):
                return
            self._timer.cancel()
            self._timer = None
        if moments:
            self._rings_at = min(moments)  # uvloop's handle of a moment that has all but come does not tell it
            self._timer = loop.call_at(self._rings_at, self._ring)

    def _pump_queue(self, now: float) -> float | None:
        queue = self._queue
        while queue:
            if queue[0].done():
                queue.popleft()
                continue
            self._breaker, turn = self._breaker.admit(now, self._random)
            if turn is BreakerTurn.WAITS:
                return self._breaker.due
            queue.popleft().set_result("probes" if turn is BreakerTurn.PROBES else "returns")
        return self._rest(now)

    def _rest(self, now: float) -> float | None:
        """End a return when no watch waits; return when to look again, if it is too early for that."""
        if not isinstance(self._breaker.state, Returning):
            return None
        due = self._breaker.due
        self._breaker = self._breaker.emptied(now)
        if isinstance(self._breaker.state, Returning):
            return due
        self.since = self._now()
        return None

    def _pump_refused(self, now: float) -> float | None:
        """Let one refused mailbox try, those first that have more than their last try left."""
        for turns in self._refused.values():
            while turns and turns[0].done():
                turns.popleft()
        fewest = next((turns for turns in self._refused.values() if turns), None)
        if fewest is None:
            return None
        if self.refusals.confirm(now):
            fewest.popleft().set_result("confirms")
        return self.refusals.next_at
