"""How many Pings a mail server holds at once, learnt from who is held and who is kept waiting; and whose turn it is.

Some servers give each request, a held Ping included, a worker of its own. If they have fewer workers than mailboxes,
Pings take all of them: every other request, also of the users' own phones, queues until a Ping ends or the proxy before
the server gives up (504) [observed: SOGo 5.8 behind nginx, 2026-11]. A queued Ping looks like a held one.

What tells them apart is that such servers take requests in order. A short request that is answered promptly shows that
the Pings sent before it are held, and that a worker was free beside them: so many are *proven*. A short request that
fails slowly, or is answered as a Ping ends, while none sent after it was answered, shows that no worker was free: a
strike. Strikes of two mailboxes set a limit at what is proven; from then on Pings are held in turns, and the other
mailboxes are polled. The limit rises while short requests are answered promptly, to the number that failed last only
after a wait.

A server that holds everything has no limit: what is answered promptly, with as many Pings, clears a strike. Until a
number is proven, some Pings are short, so that a server which they fill is free again within a minute.

Nothing here does I/O or reads a clock: `now` is seconds of any monotonic clock.
"""

from collections.abc import Callable, Container, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

PROMPT: Final = 5.0  # seconds; a short request that is answered within them found a free worker
STALLED: Final = 15.0  # seconds; a short request that waits so long, while no later one is answered, found none
STRIKES: Final = 2  # mailboxes; the store of a single one may be down, so that its requests get no answer
STRIKE_LASTS: Final = 300.0  # seconds
RELEASED: Final = 5.0  # seconds from the end of a Ping within which its worker answers what had queued
LIFE: Final = 240.0  # seconds without any answer, after which a server is taken to be away, not full
GHOSTS: Final = 240.0  # seconds in which Pings that were given up in the queue may occupy workers, one after the other
TRIAL: Final = 60  # seconds of a Ping that may fill the server; as long as that did no harm so far, if that is longer
HARMLESS: Final = 600.0  # seconds without harm, after which Pings are as long as their mailboxes want
TURN: Final = 180  # seconds of a Ping while others wait for their turn
POLL: Final = 90.0  # seconds between two Syncs of a mailbox without a turn
CHECK: Final = 5.0  # seconds to a Sync that only shows whether the last Pings are held
POLL_SHARE: Final = 0.5  # of one worker's time that all these Syncs may take
SAMPLED: Final = 8  # of more Pings than that, one in so many is a trial
RESERVED: Final = 30.0  # seconds that a place is kept for a mailbox whose turn has come
RETRY_FIRST: Final = 120.0  # seconds until the number that failed is tried again; doubled each time that it fails
RETRY_LONGEST: Final = 3600.0  # seconds; a failed try keeps all requests waiting for up to TRIAL
FORGOTTEN: Final = 3600.0  # seconds without a strike, after which a limit that keeps no mailbox waiting is dropped

M = TypeVar("M", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Hold:
    """A Ping may be sent now, of `longest` seconds at most; None: as long as the mailbox wants."""

    longest: int | None = None


@dataclass(frozen=True, slots=True)
class Poll:
    """No Ping may be sent now; a Sync is due in `seconds`, or when the mailbox's turn comes."""

    seconds: float


class Capacity(Generic[M]):
    """The Pings and short requests under way at one server, and what they have shown; `M` sends for a mailbox."""

    def __init__(self, limit: int | None, mailbox_of: Callable[[M], Hashable]) -> None:
        """Take the limit that an earlier process learnt; None: none.

        `mailbox_of` returns the mailbox for which somebody sends: besides its watch, checks of new credentials do.
        """
        self.limit = limit
        """How many Pings may be held at once; None: no limit is known."""
        self.watched = 0
        """How many mailboxes are watched at the server."""
        self._proven = 0
        self._ceiling: int | None = None if limit is None else limit + 1
        """The number of Pings that failed; None: none that is still believed."""
        self._retry_at: float | None = None
        self._retry_wait = RETRY_FIRST
        self._calm_since: float | None = None
        """Since when there was neither a strike nor a new mailbox; None: since now."""
        self._held: dict[M, float] = {}
        """Mailbox -> when its Ping was sent, oldest first."""
        self._reserved: dict[M, float] = {}
        """Mailbox whose turn has come -> until when its place is kept."""
        self._queue: dict[M, None] = {}
        """Mailboxes that wait for their turn, longest first."""
        self._short: dict[M, tuple[float, int]] = {}
        """Sender of a short request under way -> when it was sent, oldest first, and how many Pings were under way."""
        self._answered = float("-inf")
        """When the latest short request was sent that has been answered."""
        self._alive_at = float("-inf")
        self._ended_at = float("-inf")
        self._ghosts_until = float("-inf")
        """Until when a Ping that got no worker may occupy one after all, because the server does not know that it was
        given up."""
        self._strikes: set[Hashable] = set()
        """The mailboxes whose requests found no worker."""
        self._struck = 0
        """How many Pings were under way at the first of these strikes."""
        self._struck_at = float("-inf")
        self._shrunk_at = float("-inf")
        self._checked_at = float("-inf")
        """When a mailbox was last asked for a Sync that only shows whether the Pings are held."""
        self._duration = 0.0
        self._mailbox_of = mailbox_of

    @property
    def crowded(self) -> bool:
        """True if mailboxes wait for their turn."""
        return self.limit is not None and self.limit < self.watched

    @property
    def polled(self) -> int:
        """How many mailboxes are polled, because the server holds no more Pings."""
        return self.watched - self.limit if self.limit is not None and self.crowded else 0

    @property
    def interval(self) -> float:
        """Seconds between two Syncs of a mailbox that is polled."""
        return max(POLL, self.polled * self._duration / POLL_SHARE)

    def describe(self, server: str) -> str:
        """Return in words for an operator what the server holds; empty if all mailboxes are held."""
        if not self.crowded:
            return ""
        text = f"{server} holds about {self.limit} Pings at once" if self.limit else f"{server} has no worker for Pings"
        mailboxes = "mailbox is" if self.polled == 1 else "mailboxes are"
        return f"{text}: {self.polled} {mailboxes} polled every {self.interval:.0f} s, in turns"

    # What is asked.

    def ask(self, mailbox: M, now: float) -> Hold | Poll:
        """Return whether a mailbox may send a Ping now, and of what length."""
        calm_since = self._calm_since = now if self._calm_since is None else self._calm_since
        if self.limit is None:
            return Hold(None if self._is_safe(now - calm_since) else max(TRIAL, int(now - calm_since)))
        if self._retry_at is None:
            self._retry_at, self._shrunk_at = now + RETRY_FIRST, now
        if self._may_drop_limit(now):
            return Hold()
        turn = self._reserved.pop(mailbox, None)
        head = next(iter(self._queue), mailbox)
        if self._has_room(now) and (turn is not None or head == mailbox):
            self._queue.pop(mailbox, None)
            self._reserved[mailbox] = now + RESERVED
            return Hold(TURN if len(self._held) < self._proven else TRIAL)
        check = self._must_check(mailbox, now)
        self._queue.setdefault(mailbox)
        return Poll(CHECK if check else self.interval)

    def turns(self, asleep: Container[M], now: float) -> list[M]:
        """Return the mailboxes among those `asleep` whose turn has come; a place is kept for each."""
        due: list[M] = []
        if self.limit is None:
            return due
        waiting = (mailbox for mailbox in self._queue if mailbox in asleep)
        while self._has_room(now) and (first := next(waiting, None)) is not None:
            self._reserved[first] = now + RESERVED
            due.append(first)
        return due

    def begins(self) -> None:
        """Note that one more mailbox is watched."""
        self.watched += 1
        self._calm_since = None

    def ends(self, mailbox: M) -> None:
        """Note that a mailbox is watched no longer."""
        self.watched -= 1
        self._queue.pop(mailbox, None)
        self._reserved.pop(mailbox, None)

    # What is seen.

    def ping_sent(self, mailbox: M, now: float) -> None:
        """Note that a Ping was sent."""
        self._reserved.pop(mailbox, None)
        self._held.pop(mailbox, None)
        self._held[mailbox] = now

    def ping_answered(self, mailbox: M, now: float) -> None:
        """Note that the server answered a Ping."""
        self._held.pop(mailbox, None)
        self._alive_at = self._ended_at = now

    def ping_over(self, mailbox: M, now: float) -> None:
        """Note that a Ping ended otherwise."""
        if self._held.pop(mailbox, None) is not None:
            self._ended_at = now

    def ping_lost(self) -> None:
        """Note that a held Ping was cut: after a restart, what was proven before holds no longer."""
        self._proven = min(self._proven, len(self._held))

    def short_sent(self, sender: M, now: float) -> None:
        """Note that a short request was sent."""
        self._short.pop(sender, None)
        self._short[sender] = now, len(self._held)

    def short_answered(self, sender: M, now: float) -> None:
        """Note that the server answered a short request."""
        sent, number = self._short.pop(sender, (None, 0))
        if sent is None:
            return
        in_order = sent > self._answered
        self._answered = max(self._answered, sent)
        self._alive_at = now
        if now - sent <= PROMPT:
            self._duration += 0.1 * (now - sent - self._duration)
            self._prove(self._sent_by(sent), now)
        elif in_order and now - sent >= STALLED and now - self._ended_at <= RELEASED and self._ended_at >= sent:
            self._strike(sender, sent, number, now)

    def short_over(self, sender: M) -> None:
        """Note that a short request ended otherwise."""
        self._short.pop(sender, None)

    def explains(self, sender: M, now: float, *, ping: bool, turned_away: bool) -> bool:
        """Return True if a request failed because no worker was free, and count that.

        The request is one that got no answer in time from the server or a gateway, or that was `turned_away` (503).
        """
        sent, number = (self._held.get(sender), len(self._held)) if ping else self._short.get(sender, (None, 0))
        if sent is None or self._answered > sent or (now - self._alive_at > LIFE and now > self._ghosts_until):
            return False
        slow = now - sent >= STALLED
        if ping:
            others = self._struck_at >= sent or self._is_stalled(now)  # else an idle timeout may have cut it
        else:
            others = self._sent_by(sent) > 0 or sent < self._ghosts_until or (slow and self.limit is not None)
        if not others or not (slow or turned_away):
            return False
        if ping:
            self._ghosts_until = now + GHOSTS
        self._strike(sender, sent, number, now)
        return True

    def lost(self) -> None:
        """Note that the server is away: what it held before is no measure for its return, so more is tried soon."""
        self._retry_at, self._retry_wait = None, RETRY_FIRST
        self._proven, self._calm_since = 0, None
        self._strikes.clear()

    # What follows.

    def _is_safe(self, calm: float) -> bool:
        """Return True if one more Ping cannot fill the server for long, or has done no harm for `calm` seconds."""
        number = len(self._held) + 1
        few = number <= self._proven or self.watched == 1 or (number > SAMPLED and number % SAMPLED != 0)
        return few or calm >= HARMLESS

    def _sent_by(self, moment: float) -> int:
        """Return how many Pings under way were sent until a moment."""
        later = 0
        for sent in reversed(self._held.values()):
            if sent <= moment:
                break
            later += 1
        return len(self._held) - later

    def _is_stalled(self, now: float) -> bool:
        """Return True if no short request has been answered that was sent after one that waits too long."""
        return any(now - sent >= STALLED and sent > self._answered for sent, _ in self._short.values())

    def _has_room(self, now: float) -> bool:
        """Return True if one more Ping may be sent under the limit.

        Few at a time: each must be shown to be held before the next.
        """
        for mailbox in [mailbox for mailbox, until in self._reserved.items() if until <= now]:
            del self._reserved[mailbox]
        taken = len(self._held) + len(self._reserved)
        if self.limit is None or taken >= self.limit or self._is_stalled(now):
            return False
        sure = self._sent_by(self._answered)
        return taken - sure < max(1, sure // 4)

    def _must_check(self, mailbox: M, now: float) -> bool:
        """Return True if a mailbox that waits must show soon, by a Sync, whether the Pings are held.

        Where all may be held, no other one polls. Where few wait, each has its turn before it polls: so while more may
        be tried, some check beside the full number, each once while it waits.
        """
        if self._is_stalled(now):
            return False
        if not self.crowded:
            return True
        if not self._may_rise or mailbox in self._queue or now - self._checked_at < CHECK:
            return False
        self._checked_at = now
        return True

    @property
    def _may_rise(self) -> bool:
        """True if more Pings than the limit may be held, since that number did not fail."""
        return self.limit is not None and (self._ceiling is None or self.limit + 1 < self._ceiling)

    def _prove(self, number: int, now: float) -> None:
        """Note that `number` Pings are held and that a worker was free beside them."""
        self._proven = max(self._proven, number)
        if self._strikes and (number >= self._struck or now - self._struck_at > STRIKE_LASTS):
            self._strikes.clear()
        if self.limit is None or number < self.limit or not self._queue:
            return
        if self._may_rise:
            more = self.limit + max(1, self.limit // 4)
            self.limit = more if self._ceiling is None else min(more, self._ceiling - 1)
            self._retry_wait = RETRY_FIRST if self._ceiling is None else self._retry_wait
        elif self._retry_at is not None and now >= self._retry_at:
            self.limit, self._ceiling = self.limit + 1, None

    def _strike(self, sender: M, sent: float, number: int, now: float) -> None:
        """Count a request for which no worker was free; it was sent at a moment when `number` Pings were under way."""
        self._struck_at, self._calm_since, before = now, now, self._struck_at
        if self.limit is not None and (sent < max(self._shrunk_at, self._ghosts_until) or not self._has_grown()):
            return  # it waited for the Pings that were too many before
        if not self._strikes or now - before > STRIKE_LASTS:
            self._strikes, self._struck = set(), number
        self._strikes.add(self._mailbox_of(sender))
        if len(self._strikes) >= STRIKES or self.limit is not None:
            self._shrink(number, now)

    def _has_grown(self) -> bool:
        """Return True if a Ping was sent since the limit was set, and is under way."""
        return self._sent_by(self._shrunk_at) < len(self._held)

    def _shrink(self, number: int, now: float) -> None:
        """Set the limit to what is proven; below `number`, if that was proven and is too many all the same."""
        if number > self._proven or self.limit is None:
            self.limit = min(number, self._proven)
        else:
            self.limit = min(self.limit, number * 7 // 8)
        self._ceiling = self.limit + 1
        self._retry_at = now + self._retry_wait
        self._retry_wait = min(2 * self._retry_wait, RETRY_LONGEST)
        self._proven = 0
        self._strikes.clear()
        self._shrunk_at = now

    def _may_drop_limit(self, now: float) -> bool:
        """Drop a limit that keeps no mailbox waiting, after a long time; return whether it was dropped."""
        if self.crowded or self._queue or now - max(self._struck_at, self._shrunk_at) < FORGOTTEN:
            return False
        self.limit = self._ceiling = None
        return True
