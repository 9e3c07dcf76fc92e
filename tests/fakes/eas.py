"""Fakes of the parts that a watch needs: a journal in memory and a transport that plays a script."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from eas_watcher.commands.folder_sync import Folder
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import EasError
from eas_watcher.machine.memory import Change, Collection, Condition, Memory, Partnership, Progress
from eas_watcher.names import CollectionClass, CollectionId, MailboxId
from eas_watcher.ports import Done, Fenced
from eas_watcher.transport.holding import HoldsInTask


@dataclass
class MemoryJournal:
    """A journal that keeps the progress of one mailbox as a store does, and every commit."""

    partnership: Partnership = field(default_factory=Partnership)
    collections: dict[CollectionId, Collection] = field(default_factory=dict)
    hierarchy: tuple[Folder, ...] | None = None
    subfolders: frozenset[CollectionClass] = frozenset()
    """The classes that registrations ask for; no commit changes them."""
    refusals: int = 0
    changes: list[Change] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    commits: list[Progress] = field(default_factory=list)
    pings: list[float] = field(default_factory=list)
    announced: Counter[CollectionClass] = field(default_factory=Counter)
    fenced: bool = False
    """Whether another process owns the mailbox: the next commit raises Fenced."""
    committed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by every commit."""

    async def commit(self, mailbox: MailboxId, progress: Progress) -> None:
        if self.fenced:
            raise Fenced
        self.keep(progress)

    def pinged(self, mailbox: MailboxId, heartbeat: float) -> None:
        self.pings.append(heartbeat)

    def keep(self, progress: Progress) -> None:
        """Apply one commit."""
        self.commits.append(progress)
        self.committed.set()
        self.partnership = progress.partnership or self.partnership
        self.hierarchy = self.hierarchy if progress.hierarchy is None else progress.hierarchy
        for id_ in progress.dropped:
            del self.collections[id_]
        self.collections |= {collection.id: collection for collection in progress.collections}
        self.changes += progress.changes
        if progress.condition is not None:
            self.conditions.append(progress.condition)
        self.refusals = self.refusals if progress.refusals is None else progress.refusals
        for change in progress.changes:
            self.announced[change.cls] += change.count

    @property
    def condition(self) -> Condition | None:
        """The last condition."""
        return self.conditions[-1] if self.conditions else None

    def memory(self, classes: frozenset[CollectionClass]) -> Memory:
        """Return the memory with which a watch starts after a crash."""
        return Memory(
            self.partnership,
            tuple(self.collections.values()),
            classes,
            refusals=self.refusals,
            subfolders=self.subfolders,
            hierarchy=self.hierarchy or None,
        )


class MemoryJournals:
    """A journal of many mailboxes, each with a journal of its own."""

    def __init__(self) -> None:
        self.kept: defaultdict[MailboxId, MemoryJournal] = defaultdict(MemoryJournal)

    async def commit(self, mailbox: MailboxId, progress: Progress) -> None:
        await self.kept[mailbox].commit(mailbox, progress)

    def pinged(self, mailbox: MailboxId, heartbeat: float) -> None:
        self.kept[mailbox].pinged(mailbox, heartbeat)


Answer: TypeAlias = HttpReply | EasError | Callable[[HttpRequest], HttpReply]


class ScriptedTransport(HoldsInTask):
    """A transport that answers requests from a script, in order, and then holds every request until it is cancelled."""

    def __init__(self, *script: Answer | tuple[float, Answer]) -> None:
        """Set the answers, each alone or with the seconds before it comes."""
        self._script = list(script)
        self.requests: list[HttpRequest] = []
        self.held = asyncio.Event()
        """Set when the script has ended and a request is held."""

    async def send(self, request: HttpRequest) -> HttpReply:
        self.requests.append(request)
        if not self._script:
            self.held.set()
            await asyncio.get_running_loop().create_future()
        step = self._script.pop(0)
        seconds, answer = step if isinstance(step, tuple) else (0.0, step)
        await asyncio.sleep(seconds)
        if isinstance(answer, EasError):
            raise answer
        return answer if isinstance(answer, HttpReply) else answer(request)


class HoldingTransport:
    """A transport that answers each short request with an empty body, and holds Pings without a task."""

    def __init__(self, goodbye: float = 0.0) -> None:
        """Take how many seconds the server needs to let a Ping go that is given up."""
        self._goodbye = goodbye
        self.held: list[HeldPing] = []
        self.sent = 0

    async def send(self, request: HttpRequest) -> HttpReply:
        self.sent += 1
        return HttpReply(200, {}, b"")

    async def hold(self, request: HttpRequest, done: Done) -> "HeldPing":
        ping = HeldPing(done, self._goodbye)
        self.held.append(ping)
        return ping


class HeldPing:
    """A Ping that a test answers."""

    __slots__ = ("_goodbye", "done", "given_up")

    def __init__(self, done: Done, goodbye: float) -> None:
        self.done = done
        self._goodbye = goodbye
        self.given_up = 0
        """How often it was given up; one that is given up twice was cancelled meanwhile."""

    async def give_up(self) -> None:
        await asyncio.sleep(self._goodbye)
        self.given_up += 1
