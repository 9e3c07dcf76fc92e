"""Admission to one mail server: which clients may send now, and which wait, with one timer for all.

`breaker.py` decides whether the server is served, `mass_refusals.py` whether a refused credential is tried again; this
module gives both what they need of the event loop. A client enters before each request and reports how it ended.

Who waits stands in `queues.py`. What the server says to candidates is not counted among the refusals of its watched
mailboxes: the usual reason is a mistyped password, and a phone that registers wrong ones again and again must not make
the relay hold back the mailboxes of others. Its acceptance is not counted either; the watch that starts with the
accepted credential is.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from random import Random
from typing import Final, Literal, TypeAlias

from eas_watcher.breaker import Away, Breaker, Returning, Serving
from eas_watcher.breaker import Turn as BreakerTurn
from eas_watcher.errors import EasError, ServerBusy, Unauthorized, Unreachable
from eas_watcher.heartbeat import HELD, Heartbeat
from eas_watcher.machine.counters import MOST_REFUSALS
from eas_watcher.places import Places
from eas_watcher.ports import Now
from eas_watcher.reasons import Reason
from eas_watcher.server.breaker import concerns_server, read_failure, rules, source_of
from eas_watcher.server.capacity import Capacity, Hold, Poll
from eas_watcher.server.doubtful import DoubtfulMailboxes
from eas_watcher.server.idle_timeout import Lesson, PathKnowledge
from eas_watcher.server.mass_refusals import SKEW, MassRefusals
from eas_watcher.server.queues import LAST_TRY, Queues, Turn, Waiting
from eas_watcher.server.starts import Starts
from eas_watcher.values import replace

NEVER: Final = -1  # a client has not passed yet


@dataclass(slots=True, eq=False)
class ClientAdmission:
    """How one client stands with the admission to its server."""

    mailbox: Hashable
    refusals: int = 0
    """How often in a row its credential was refused."""
    candidate: bool = False
    """Whether its credential is a candidate, which the server has never accepted."""
    waits: bool = True
    """Whether it waits while the server is away; False: `enter` raises Unreachable, because another host may answer."""
    passed: int = NEVER
    """After which of the server's absences it passed last."""
    probe: bool = False
    """Whether its request is the one that finds out how the server is."""
    confirms: bool = False
    """Whether its request is the one that finds out how the server takes refused credentials."""
    began: float = 0.0
    """When its request was let through, by the loop's clock."""
    sent_at: float = 0.0
    """When it was sent, which may be later: the client may have had to wait for something else, too."""
    sent: Literal["", "short", "Ping"] = ""
    """What its request under way is, once it was sent."""
    holding: asyncio.TimerHandle | None = None
    """Reports that a Ping has been held long enough, while it probes or other mailboxes are refused."""


log = logging.getLogger(__name__)

State: TypeAlias = Literal["serving", "away", "returning", "starting"]
"""How the server is; "starting" lets in mailboxes that were never here, "returning" those that an absence held up."""


class ServerAdmission:
    """Lets the clients of one server send, or wait; made for the running event loop."""

    def __init__(
        self,
        rate: float,
        short_requests: int,
        random: Random,
        now: Now,
        path: PathKnowledge | None = None,
        capacity: int | None = None,
    ) -> None:
        """Take how many mailboxes per second start or return, and how many short requests go at once.

        `path` and `capacity` are what an earlier process learnt about the path to the server, and about the Pings that
        it holds.
        """
        self.short = Places(short_requests)
        """Requests other than held Pings that may still be sent now."""
        self.starts = Starts(self._crowd)
        """Watches that are about to start."""
        self.refusals = MassRefusals()
        self.doubtful = DoubtfulMailboxes(rate)
        """Mailboxes whose credential this server refused three times, and which it may accept again."""
        self.path = path or PathKnowledge()
        self.capacity: Capacity[ClientAdmission] = Capacity(capacity, attrgetter("mailbox"))
        self.since: datetime = now()
        """Since when the breaker is in its present state."""
        self.reason = Reason.UNREACHABLE
        """Why the server was away last: a proxy on the way may be at fault, and not the server."""
        self._rate = rate
        self._random = random
        self._now = now
        self._breaker = Breaker(rules(rate))
        self._absences = 0
        self._queues = Queues()
        self._polling: dict[ClientAdmission, Callable[[], None]] = {}
        """Those that poll, and what to call when it is their turn to hold a Ping."""
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0
        self._suspected_at = 0.0

    def allow(self, rate: float) -> None:
        """Let so many mailboxes per second start or return from now on."""
        self._rate = self.doubtful.rate = rate
        self._breaker = replace(self._breaker, rules=rules(rate))

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
    def obstacle(self) -> str:
        """Why a candidate that comes now waits for more than its turn; empty if it does not."""
        now = asyncio.get_running_loop().time()
        if self._is_away_at(now):
            return f"the server is away: {self.detail}"
        if self.refusals.suspected and now < self.refusals.next_at:
            return "the server refuses many credentials at once"
        return ""

    @property
    def watched(self) -> int:
        """How many mailboxes are watched at this server."""
        return self.capacity.watched

    @property
    def lesson(self) -> Lesson | None:
        """What the next process should know of the server and the path to it; None: nothing."""
        lesson, limit = self.path.lesson, self.capacity.limit
        return lesson if limit is None else replace(lesson or Lesson(None), capacity=limit)

    @property
    def waiting(self) -> int:
        """How many clients wait for the server to return, or for their turn."""
        return self.waiting_mailboxes + self._queues.candidates

    @property
    def waiting_mailboxes(self) -> int:
        """How many of these are watched mailboxes, and not candidates."""
        return len(self.starts) + self._queues.watches

    @property
    def held_back(self) -> int:
        """How many clients wait because the server refuses many credentials at once."""
        return self._queues.held_back

    def expected_wait(self) -> float | None:
        """Return after how many seconds a failed mailbox may send again; None: the server serves, so nothing waits."""
        now = asyncio.get_running_loop().time()
        match self._breaker.state:
            case Serving():
                return None
            case Away(until=until):
                return max(0.0, until - now)
            case Returning():  # pragma: no branch -- mypy proves that there is no other
                return self.waiting / self._rate

    def watch_begins(self, mailbox: Hashable, refused_ago: float | None) -> None:
        """Count one more watched mailbox.

        `refused_ago`: how many seconds ago at least the server refused its credential; None: it accepts it.
        """
        self.capacity.begins()
        if refused_ago is not None:
            self.refusals.known(mailbox, asyncio.get_running_loop().time(), refused_ago)

    def watch_ends(self, client: ClientAdmission) -> None:
        """Count one watched mailbox less."""
        self._polling.pop(client, None)
        self.capacity.ends(client)
        self.refusals.forget(client.mailbox)

    def describe(self, server: str) -> str:
        """Return in words for an operator how many Pings are held, or what cuts them; empty if nothing is wrong."""
        return self.capacity.describe(server) or self.path.describe(server)

    def ask(self, client: ClientAdmission) -> Hold | Poll:
        """Return whether a client may send a Ping now, or Syncs until it is its turn."""
        return self.capacity.ask(client, asyncio.get_running_loop().time())

    def polls(self, client: ClientAdmission, on_turn: Callable[[], None]) -> None:
        """Call `on_turn`, perhaps at once, when it is the turn of a client to hold a Ping, as long as it polls."""
        self._polling[client] = on_turn
        self._give_turns()

    def polls_no_more(self, client: ClientAdmission) -> None:
        """Let a client go that polled, or did not."""
        self._polling.pop(client, None)

    async def enter(self, client: ClientAdmission, *, holds: bool = False) -> None:
        """Return when a request may be sent; `holds`: it is a Ping, whose answer comes late.

        Raises Unreachable for a client that does not wait for a server that is away.
        """
        loop = asyncio.get_running_loop()
        if not client.waits and self._is_away_at(loop.time()):
            raise self._absence()
        turn: Turn | None = None
        waits_for_others = client.candidate or 0 < client.refusals < MOST_REFUSALS
        if self.refusals.suspected and waits_for_others:
            turn = await self._turn_of(
                self._queues.hold_back(client.refusals, candidate=client.candidate, impatient=not client.waits)
            )
            client.confirms = turn == "confirms"
        if turn in {None, "confirms"} and not self._passes(client):
            try:
                turn = await self._turn_of(self._queues.join(candidate=client.candidate, impatient=not client.waits))
            except BaseException:
                self.leave(client)
                raise
        client.probe = turn == "probes"
        client.passed = self._absences
        client.began = loop.time()
        if holds and (client.probe or self.refusals.example is not None):
            client.holding = loop.call_later(HELD, self._holds, client)

    def sends(self, client: ClientAdmission, *, ping: bool) -> None:
        """Note that a client's request goes out now."""
        now = client.sent_at = asyncio.get_running_loop().time()
        client.sent = "Ping" if ping else "short"
        (self.capacity.ping_sent if ping else self.capacity.short_sent)(client, now)

    def answered(self, client: ClientAdmission) -> None:
        """Note that the server answered, with success or with a refusal that concerns this mailbox alone."""
        now = asyncio.get_running_loop().time()
        if client.sent:
            sent, client.sent = client.sent, ""
            (self.capacity.ping_answered if sent == "Ping" else self.capacity.short_answered)(client, now)
            self._give_turns()
        self._served(client, now)

    def _served(self, client: ClientAdmission, now: float) -> None:
        """Note that a request ended with a sign that the server serves."""
        client.confirms = False
        if client.probe:
            self._probe_ended(client)
        else:
            self._breaker = self._breaker.answered(now)

    def accepted(self, client: ClientAdmission) -> None:
        """Note that the server accepted a mailbox's credential."""
        if client.candidate or (self.refusals.suspected and client.began < self._suspected_at):
            return  # it is not counted, or it was accepted before the trouble began
        was = self.refusals.suspected
        was_refused = self.refusals.accepted(client.mailbox, client.began)
        self.doubtful.accepted(client.mailbox, client.began, was_refused=was_refused)
        if was and not self.refusals.suspected:
            log.warning("refused credentials are tried again", extra={"mailboxes": self.held_back})
            self._release()

    def failed(self, client: ClientAdmission, error: EasError) -> EasError:
        """Note that a request failed; return the error as the client should understand it.

        A stale connection shows nothing, nor does a token endpoint or a KDC: a client that was to find something out
        hands its turn on when it leaves. A client whose connection failed with many others starts again: they return
        one after the other.
        """
        if error.elsewhere or (isinstance(error, Unreachable) and error.stale):
            return error
        client.confirms = False
        if isinstance(error, Unauthorized) and not client.candidate:
            error = self._compare(client, error)
        clock = asyncio.get_running_loop().time()
        if self._is_full(client, error, clock):
            # After a 503 nobody looked at a credential; a gateway's 502 or 504 leaves that open.
            reached = not isinstance(error, ServerBusy) or error.reached
            return ServerBusy(f"no worker of the server was free ({error})", reached=reached, shared=True, full=True)
        cut = self.path.cut_off
        shared = isinstance(error, Unreachable) and error.connection != 0
        expected = isinstance(error, Unreachable) and not shared and cut is not None and cut.covers(error.survived)
        if expected:
            self._served(client, clock)
        elif not concerns_server(error):
            self.answered(client)
        elif not self._is_of_the_absence(client, error):
            probe, client.probe = client.probe, False
            failure = read_failure(error)
            source = source_of(error, client.mailbox)
            breaker = self._breaker.failed(source, failure, clock, self._random, probe=probe)
            if breaker is not self._breaker:  # else it is one more of the thousands that an absence cut
                self._become(breaker)
            if self.detail == failure.detail:
                self.reason = error.reason if isinstance(error, Unreachable) else Reason.UNREACHABLE
        if shared:
            client.passed = NEVER
        return error

    def _is_of_the_absence(self, client: ClientAdmission, error: EasError) -> bool:
        """Return True if a request was lost that went out before the absence from which the server returns now.

        What cut thousands of Pings is still being noted when the probe has its answer.
        """
        late = isinstance(error, Unreachable) and client.passed != self._absences
        return late and isinstance(self._breaker.state, Returning)

    def leave(self, client: ClientAdmission) -> None:
        """Note that a request is over, reported or not: a client that gave up hands its turn to another."""
        if client.holding is not None:
            client.holding.cancel()
            client.holding = None
        if client.sent == "Ping":
            self.capacity.ping_over(client, asyncio.get_running_loop().time())
        elif client.sent:
            self.capacity.short_over(client)
        client.sent = ""
        self._give_turns()
        if client.probe:
            self._hand_on("probes")
        if client.confirms:
            self._hand_on("confirms")
        client.probe = client.confirms = False

    def held(self, heartbeat: Heartbeat, seconds: float) -> None:
        """Note that a Ping was held to its end."""
        self.path = self.path.held(heartbeat, seconds)

    def cut(self, heartbeat: Heartbeat, survived: float) -> None:
        """Note that a held Ping was cut."""
        self.capacity.ping_lost()
        self.path = self.path.cut(heartbeat, survived, asyncio.get_running_loop().time())

    def accepted_elsewhere(self, began: float) -> None:
        """Note that the server accepted a mailbox that another process watches, by the clock of that process's host."""
        self.refusals.elsewhere(began)
        self.doubtful.accepted(None, began - SKEW, was_refused=False)

    def _crowd(self) -> int:
        """Return how many clients wait for the server, or for others that it serves."""
        return self._queues.watches_at_most + self.short.waiting

    def _is_full(self, client: ClientAdmission, error: EasError, now: float) -> bool:
        """Return True if a request failed because Pings occupy all workers of the server."""
        if not client.sent or client.probe:
            return False
        match error:
            case Unreachable(reached=True, connection=0):
                turned_away = False
            case ServerBusy(shared=True, retry_after=None, reached=reached):
                turned_away = not reached
            case _:
                return False
        return self.capacity.explains(client, now, ping=client.sent == "Ping", turned_away=turned_away)

    def _give_turns(self) -> None:
        """Wake those whose turn it is to hold a Ping."""
        if not self._polling:
            return
        for client in self.capacity.turns(self._polling, asyncio.get_running_loop().time()):
            self._polling.pop(client)()

    def _compare(self, client: ClientAdmission, error: Unauthorized) -> Unauthorized:
        """Return a refusal with what it means beside those of other mailboxes."""
        now = asyncio.get_running_loop().time()
        was = self.refusals.suspected
        others_accepted = self.refusals.others_accepted(client.mailbox)
        self.refusals.refused(client.mailbox, self.watched, now)
        if self.refusals.suspected and not was:
            self._suspected_at = now
            log.warning("mail server refuses many credentials at once", extra={"mailboxes": len(self.refusals)})
        last = client.refusals >= LAST_TRY
        shared = self.refusals.is_one_of_many(client.mailbox, self.watched) if last else self.refusals.suspected
        if not shared:
            return Unauthorized(str(error), others_accepted=others_accepted) if others_accepted else error
        detail = f"{error}, as those of many others: its directory or its store may be down"
        return Unauthorized(detail, shared=True, others_accepted=others_accepted)

    def _passes(self, client: ClientAdmission) -> bool:
        """Return whether a client need not queue: none does, or it has passed since the server was last away."""
        state = self._breaker.state
        if client.passed == NEVER:
            self._arrive(asyncio.get_running_loop().time())
            return False
        if isinstance(state, Returning):
            return client.passed == self._absences
        return isinstance(state, Serving)

    def _arrive(self, now: float) -> None:
        """Let clients that were never here pass at the rate."""
        if isinstance(self._breaker.state, Serving):
            self._breaker = self._breaker.arrived(now)
            self.since = self._now()

    def _is_away_at(self, now: float) -> bool:
        """Return whether the server is away and no probe may go now."""
        return self._breaker.away and self._breaker.capacity(0, now) == 0

    def _absence(self) -> Unreachable:
        return Unreachable(f"the server is away: {self.detail}", reached=False, reason=self.reason)

    async def _turn_of(self, waiting: Waiting) -> Turn:
        """Return why a client that waits in a queue is let through, once it is."""
        self._pump()
        try:
            return await waiting
        except asyncio.CancelledError:
            if not waiting.cancelled() and waiting.exception() is None:
                self._hand_on(waiting.result())
            raise
        finally:
            self._queues.leave(waiting)

    def _hand_on(self, turn: Turn) -> None:
        """Let another client find out what one that gave up was to find out."""
        now = asyncio.get_running_loop().time()
        if turn == "probes":
            self._become(self._breaker.probe_lost(now))
        elif turn == "confirms":
            self.refusals.given_up(now)
            self._pump()

    def _holds(self, client: ClientAdmission) -> None:
        """Note that the server holds a Ping: it serves, and it accepted the credential, else it would have answered."""
        client.holding = None
        if client.probe:
            self._probe_ended(client)
        self.accepted(client)

    def _probe_ended(self, client: ClientAdmission) -> None:
        """Let the others follow a probe that was answered, or is held."""
        client.probe = False
        if self._breaker.away:
            self._absences += 1
            client.passed = self._absences
            self._become(self._breaker.answered(asyncio.get_running_loop().time(), probe=True))
            self.doubtful.changed()

    def _release(self) -> None:
        """Let those that waited because the server was suspected return like those of a server that was away."""
        self._queues.free_all()
        self._become(self._breaker.released(asyncio.get_running_loop().time()))

    def _become(self, breaker: Breaker) -> None:
        was_away, before = self._breaker.away, self.state
        self._breaker = breaker
        if self.state != before:
            self.since = self._now()
            if breaker.away:
                self.capacity.lost()
                log.warning("mail server is away: one mailbox probes, the rest wait", extra={"detail": self.detail})
                self._queues.dismiss(self._absence)
            elif was_away:
                log.warning("mail server is back: its mailboxes return", extra={"mailboxes": self.waiting})
        self._pump()

    def _ring(self) -> None:
        self._timer = None
        self._pump()

    def _pump(self) -> None:
        """Let through the clients that may pass now, and look again when the next one may."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._free_suspended(now)
        moments = [moment for moment in (self._pump_queues(now), self._pump_refused(now)) if moment is not None]
        if self._timer is not None:
            if moments and self._rings_at == min(moments):
                return
            self._timer.cancel()
            self._timer = None
        if moments:
            # Kept here, because uvloop's TimerHandle.when() is wrong for a timer that is about to run.
            self._rings_at = min(moments)
            self._timer = loop.call_at(self._rings_at, self._ring)

    def _pump_queues(self, now: float) -> float | None:
        """Let through the clients in the queues that may pass; return when to look again."""
        while (queue := self._queues.next_queue(probe=self._breaker.away)) is not None:
            self._breaker, turn = self._breaker.admit(now, self._random)
            if turn is BreakerTurn.WAITS:
                return self._breaker.due
            self._queues.let_through(queue, "probes" if turn is BreakerTurn.PROBES else "returns")
        return self._rest(now)

    def _rest(self, now: float) -> float | None:
        """End a return when no client waits; return when to look again, if it is too early for that."""
        if not isinstance(self._breaker.state, Returning):
            return None
        due = self._breaker.due
        self._breaker = self._breaker.emptied(now)
        if isinstance(self._breaker.state, Returning):
            return due
        self.since = self._now()
        return None

    def _pump_refused(self, now: float) -> float | None:
        """Let one refused mailbox try, one that has more than its last try left if there is one."""
        first = self._queues.first_refused()
        if first is None:
            return self.refusals.next_at if self._queues.has_suspended else None
        if self.refusals.confirm(now):
            self._queues.let_through(first, "confirms")
        return self.refusals.next_at

    def _free_suspended(self, now: float) -> None:
        """Let the suspended candidates queue when a confirmation is due and no refused mailbox is left to make it."""
        due = self._queues.has_suspended and now >= self.refusals.next_at
        if due and self._queues.first_refused() is None:
            self._queues.free_suspended()
            self._arrive(now)
