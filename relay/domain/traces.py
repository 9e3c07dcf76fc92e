"""The spans of a mail's way, made of what the roles know anyway: moments, counts and answers, no content and no ids.

The first change that a push reports was committed at a moment which the push has with it (`DuePush.first_at`). Trace
and root span have their ids from that moment, so the roles agree on them, and on what is sampled, without a word.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Final

from eas_watcher.machine.memory import Change
from eas_watcher.names import CollectionClass
from eas_watcher.proxy.proxy import Proxy
from relay.domain.clock import Clock
from relay.domain.model import DuePush, Mark
from relay.domain.outcome import OutcomeKind, PushEnd

ITEMS: Final = frozenset(Mark.of(cls) for cls in CollectionClass)
"""The marks that a commit of changes sets."""
MICROSECOND: Final = timedelta(microseconds=1)
EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
TRACE: Final = 16  # bytes of the id of a trace [W3C Trace Context 3.2.2.3]
SPAN: Final = 8  # bytes of the id of a span [W3C Trace Context 3.2.2.4]


@dataclass(frozen=True, slots=True)
class Tracing:
    """The collector that gets the spans, and of how many traces."""

    endpoint: str
    """The whole URL, over TLS or on this host."""
    ca_file: Path | None
    """The CAs to trust; None: the system's."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Headers of each request, secrets among them."""
    ratio: float = 1.0
    """The share of all traces that is sent."""
    proxy: Proxy | None = None
    """The proxy on the way; None: straight."""
    sources: tuple[str, ...] = ()
    """The addresses that connections come from; empty: the operating system chooses."""


@dataclass(frozen=True, slots=True)
class Span:
    """One stretch of a mail's way."""

    name: str
    trace: int
    id: int
    parent: int | None
    """The id of the span around it, maybe of another process; None: it is the root."""
    began: datetime
    ended: datetime
    attributes: Mapping[str, str | int]
    failed: bool = False


class Traces:
    """Makes spans of a part of all commits and pushes, and hands them on."""

    def __init__(self, emit: Callable[[Span], None], ratio: float, clock: Clock, random: Random) -> None:
        """Hand spans to `emit`, which does not wait; of all traces keep the share `ratio`, 0 to 1."""
        self._emit = emit
        self._least = round(ratio * 2**64)
        self._clock = clock
        self._random = random

    def now(self) -> datetime:
        """Return the present moment."""
        return self._clock()

    def committed(self, seen: datetime, at: datetime, groups: Sequence[Sequence[Change]]) -> None:
        """Note that the changes of some mailboxes are durable now, the first of which was `seen` at a moment.

        `at` is the moment that was committed with them.
        """
        trace, root = _ids(at)
        if self._sampled(trace):
            items = sum(change.count for changes in groups for change in changes)
            counts = {"relay.mailboxes": len(groups), "relay.items": items}
            self._emit(Span("commit changes", trace, root, None, seen, self._clock(), counts))

    def pushed(self, push: DuePush, claimed: datetime, end: PushEnd) -> None:
        """Note what became of a push whose mark was `claimed` at a moment."""
        trace, root = _ids(push.first_at)
        if not self._sampled(trace):
            return
        ended, kind = self._clock(), OutcomeKind.of(end)
        failed = kind not in {OutcomeKind.DELIVERED, OutcomeKind.SHADOWED}
        known: dict[str, str | int] = {
            "relay.provider": push.platform.value,
            "relay.mark": push.mark.value,
            "relay.failed_tries": push.attempts,
            "relay.outcome": kind.value,
        }
        whole, part = (self._random.getrandbits(8 * SPAN) or 1 for _ in range(2))
        parent = root if push.mark in ITEMS else None
        self._emit(Span("push", trace, whole, parent, push.first_at, ended, known, failed))
        self._emit(Span("send", trace, part, whole, claimed, ended, {"relay.provider": push.platform.value}, failed))

    def _sampled(self, trace: int) -> bool:
        """Return whether a trace is kept: its lower half decides, in every process alike."""
        return trace & (2**64 - 1) < self._least


def _ids(moment: datetime) -> tuple[int, int]:
    """Return the ids of the trace of a moment, and of its root span; neither is zero, which would be none."""
    digest = blake2b(str((moment - EPOCH) // MICROSECOND).encode(), digest_size=TRACE + SPAN).digest()
    return int.from_bytes(digest[:TRACE], "big") or 1, int.from_bytes(digest[TRACE:], "big") or 1
