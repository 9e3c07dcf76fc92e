"""When a doubtful credential is shown again: by the clock of its server, not by that of its user.

A credential is doubtful when its server refused it three times and, as far as the relay saw, refused everyone who was
asked [observed: SOGo 5.8, 2026-11: 401 while its store was down]. It is shown again

* as soon as the server accepts another mailbox: with all others that are doubtful, at the rate of a return;
* when the server changes otherwise: it comes back from an absence, or an OPTIONS without any credential (a look) is
  answered differently. That is a weak sign, so one mailbox is asked for all;
* when its own wait ends. A server is asked no more often than every PACE seconds for this reason.

No sign makes it earlier than the directory's lock-out window after the last refusal.

Nothing here does I/O or reads a clock: `now` is seconds of any monotonic clock.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Final

from eas_watcher.machine.counters import CONFIRM_AFTER

LOOK: Final = 300.0  # seconds between two looks at a server: no credential is in them, and no log fills up
PACE: Final = CONFIRM_AFTER[-1]  # seconds between two tries of doubtful credentials at one server
LOOKS_KEPT: Final = 16  # answers to looks that count as known; a farm of hosts gives several in turn
FAILING: Final = 500  # HTTP statuses from here on say that the server has a fault

Look = frozenset[tuple[str, str]]
"""What of an answer to OPTIONS changes with the server and not with each request."""


def read_look(status: int, headers: Mapping[str, str]) -> Look:
    """Return the status of an answer, its headers of names and versions, and whether it names a wait.

    `headers` have lower-case names. Dates, cookies and request ids differ in each answer.
    """
    kept = {(name, value) for name, value in headers.items() if _lasts(name)}
    waits = {("retry-after", "")} if "retry-after" in headers else set[tuple[str, str]]()
    return frozenset({("", str(status)), *kept, *waits})


def _lasts(name: str) -> bool:
    named = name in {"server", "via", "www-authenticate", "x-powered-by", "x-ms-rp"}
    return named or name.startswith("ms-") or (name.startswith("x-") and "version" in name)


@dataclass(slots=True)
class _Wait:
    began: float
    due: float
    not_before: float
    others_accepted: bool
    released: bool = False
    """True once the server accepted a mailbox since the wait began."""


class Doubts:
    """The doubtful credentials of one server."""

    __slots__ = ("_changed", "_failing", "_known", "_look_at", "_looking", "_next_release", "_next_try", "_waits")

    def __init__(self) -> None:
        """Start without doubt."""
        self._waits: dict[Hashable, _Wait] = {}
        self._known: list[Look] = []
        self._failing = False
        self._changed = False
        self._looking: Hashable | None = None
        self._look_at = 0.0
        self._next_try = 0.0
        self._next_release = 0.0

    def __len__(self) -> int:
        """Return how many mailboxes wait."""
        return len(self._waits)

    @property
    def others_accepted(self) -> bool:
        """True if the server accepted others while it refused one of these mailboxes."""
        return any(wait.others_accepted for wait in self._waits.values())

    @property
    def next_at(self) -> float | None:
        """When the next one is shown again unless there is a sign before; None: none waits."""
        first = min((wait.due for wait in self._waits.values()), default=None)
        return None if first is None else max(first, self._next_try)

    def begin(self, mailbox: Hashable, seconds: float, rest: float, now: float, *, others_accepted: bool) -> None:
        """Let a mailbox wait for `seconds`, and `rest` of them whatever sign comes.

        `others_accepted`: the server accepts others all the time, so only one that it had refused is a sign.
        """
        if not self._waits:
            self._known, self._failing, self._changed = [], False, False
            self._look_at = now
        self._waits[mailbox] = _Wait(now, now + seconds, now + min(rest, seconds), others_accepted)

    def end(self, mailbox: Hashable) -> None:
        """Let a mailbox wait no longer, if it still does."""
        self._waits.pop(mailbox, None)
        if self._looking == mailbox:
            self._looking = None

    def accepted(self, mailbox: Hashable, began: float, *, was_refused: bool) -> bool:
        """Note that the server accepted a mailbox, one that it had refused or another, with a request of `began`.

        Returns whether that lets any mailbox follow.
        """
        released = [
            wait
            for waiting, wait in self._waits.items()
            if not wait.released
            and waiting != mailbox
            and began > wait.began
            and (was_refused or not wait.others_accepted)
        ]
        for wait in released:
            wait.released = True
        return bool(released)

    def changed(self) -> None:
        """Note a weak sign: the server has changed, and may take credentials again."""
        self._changed = bool(self._waits)

    def looked(self, look: Look | None, now: float) -> None:
        """Note what a look found; None: no answer came."""
        self._looking = None
        self._look_at = now + LOOK
        if look is None:
            return
        failing = any(name == "" and int(status) >= FAILING for name, status in look)
        news = bool(self._known) and look not in self._known
        if not failing and (news or self._failing):
            self.changed()
        self._failing = failing
        if look not in self._known:
            self._known = [*self._known[-LOOKS_KEPT + 1 :], look]

    def next_try(self, now: float, rate: float) -> tuple[Hashable, float] | None:
        """Return a mailbox whose credential is shown now, and how many seconds early; it waits no longer.

        `rate` is how many follow per second when the server accepts them again.
        """
        waits = [(mailbox, wait) for mailbox, wait in self._waits.items() if mailbox != self._looking]
        for mailbox, wait in waits:
            if wait.released and now >= max(wait.not_before, self._next_release):
                self._next_release = now + 1.0 / rate
                return self._leave(mailbox, now)
        for mailbox, wait in waits:
            if self._changed and now >= wait.not_before:
                self._changed = False
                self._next_try = now + PACE
                return self._leave(mailbox, now)
        for mailbox, wait in waits:
            if now >= max(wait.due, self._next_try):
                self._next_try = now + PACE
                return self._leave(mailbox, now)
        return None

    def next_look(self, now: float) -> Hashable | None:
        """Return a mailbox whose client may look now; there is no other look until `looked`."""
        if not self._waits or self._looking is not None or now < self._look_at:
            return None
        self._looking = next(iter(self._waits))
        return self._looking

    def ring_at(self) -> float | None:
        """Return when `next_try` or `next_look` may have a mailbox; None: not before something is noted."""
        moments = [] if self._looking is not None or not self._waits else [self._look_at]
        for mailbox, wait in self._waits.items():
            if mailbox == self._looking:
                continue
            moments.append(max(wait.due, self._next_try))
            if wait.released:
                moments.append(max(wait.not_before, self._next_release))
            elif self._changed:
                moments.append(wait.not_before)
        return min(moments, default=None)

    def _leave(self, mailbox: Hashable, now: float) -> tuple[Hashable, float]:
        return mailbox, max(0.0, self._waits.pop(mailbox).due - now)
