"""A model of a server with one Inbox and every fault that was observed on servers."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

from eas_watcher.commands.folder_sync import Folder, FolderSync, FolderSyncReply
from eas_watcher.commands.options import Capabilities, Options
from eas_watcher.commands.ping import Ping, PingReply, PingStatus
from eas_watcher.commands.request import Command
from eas_watcher.commands.sync import Add, CollectionReply, CollectionRequest, Sync, SyncReply
from eas_watcher.errors import (
    AccessDenied,
    EasError,
    HierarchyChanged,
    NotProvisioned,
    ProtocolViolation,
    ServerBusy,
    StateLost,
    Unreachable,
    VersionRefused,
)
from eas_watcher.machine.state import Answered, Event, Failed
from eas_watcher.names import NO_SYNC_KEY, CollectionId, ProtocolVersion, ServerId, SyncKey
from eas_watcher.reasons import Reason

PAGE: Final = 3  # items in an answer
DESTROYS: Final = 5  # uses of a sync key after which its new items are lost [observed: Z-Push 2.7.1]

Reply = Capabilities | FolderSyncReply | SyncReply | PingReply | None


class UnreliableServer:
    """One Inbox. The newest sync key and the one before are valid; item ids start again with every new state."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._now = datetime(2026, 11, 24, tzinfo=UTC)
        self._numbers = 0
        self._mails: list[datetime] = []
        self._inbox = CollectionId("5")
        self._hierarchy: list[tuple[SyncKey, CollectionId]] = []
        self._points: list[tuple[SyncKey, frozenset[int]]] = []
        self._ids: dict[int, ServerId] = {}
        self._presented: Counter[SyncKey] = Counter()
        self.trouble = 0.0
        """The probability that a request fails."""

    def receive_mail(self) -> None:
        """Add one mail, which stays unread."""
        self._pass(1.0)
        self._mails.append(self._now)

    def serve(self, command: Command[Any]) -> Event:
        """Answer one command, or fail before or after it took effect."""
        self._pass(1.0)
        if self._random.random() < self.trouble:
            self._suffer()
        fails, after = self._random.random() < self.trouble, self._random.random() < 0.5
        if fails and not after:
            return Failed(self._turn_away())
        held = 0.0
        try:
            reply = self._answer(command)
        except EasError as error:
            return Failed(error)
        if isinstance(command, Ping) and isinstance(reply, PingReply) and reply.status is PingStatus.EXPIRED:
            held = float(command.heartbeat)
            self._pass(held)
        if fails:
            lost = [Unreachable("x", held), Unreachable("x", stale=True), ServerBusy("x"), ProtocolViolation("x")]
            return Failed(self._random.choice(lost))
        return Answered(reply, self._now, held)

    def _pass(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)

    def _turn_away(self) -> EasError:
        return self._random.choice(
            [
                Unreachable("x", reached=False),
                ServerBusy("x", 1.0, reached=False),
                NotProvisioned("x"),
                AccessDenied("x", Reason.HTTP_403),
                VersionRefused("x"),
                HierarchyChanged("x"),
                StateLost("x"),
            ]
        )

    def _suffer(self) -> None:
        """Lose state, as servers do."""
        match self._random.randrange(4):
            case 0:
                self._points.clear()
            case 1:
                self._inbox = CollectionId(f"inbox-{self._number()}")
                self._points.clear()
            case 2:
                self._hierarchy.clear()
            case _:
                pass

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _answer(self, command: Command[Any]) -> Reply:
        match command:
            case Options():
                return Capabilities((ProtocolVersion.V14_1,), frozenset({"Sync", "Ping"}))
            case FolderSync(sync_key):
                return self._folder_sync(sync_key)
            case Sync(collections):
                return SyncReply(empty=False, collections=tuple(map(self._sync, collections)))
            case Ping(_, collections):
                return self._ping([id_ for id_, _ in collections])
            case _:
                return None

    def _folder_sync(self, key: SyncKey) -> FolderSyncReply:
        known = dict(self._hierarchy)
        if key == NO_SYNC_KEY:
            self._points.clear()  # as some servers do [observed: SOGo 5.8]
        elif key not in known:
            raise StateLost("the hierarchy key is not known")
        new = SyncKey(f"h{self._number()}")
        self._hierarchy = [*self._hierarchy[-1:], (new, self._inbox)]
        old = known.get(key)
        if old == self._inbox:
            return FolderSyncReply(new)
        added = (Folder(self._inbox, CollectionId("0"), 2),)
        return FolderSyncReply(new, added, deleted=() if old is None else (old,))

    def _sync(self, asked: CollectionRequest) -> CollectionReply:
        if asked.id != self._inbox:
            self._points.clear()
            raise HierarchyChanged("no such collection")
        if asked.sync_key == NO_SYNC_KEY:
            self._points.clear()
            self._ids = {}
            return self._point(frozenset(), ())
        known = dict(self._points)
        if asked.sync_key not in known:
            return CollectionReply(asked.id, 3, None, more_available=False, has_commands=False)
        delivered = known[asked.sync_key]
        pending = [n for n in range(len(self._mails)) if n not in delivered]
        if not pending:
            return CollectionReply(asked.id, 1, asked.sync_key, more_available=False, has_commands=False)
        self._presented[asked.sync_key] += 1
        if self._presented[asked.sync_key] >= DESTROYS:
            return self._point(delivered | set(pending), ())
        self._random.shuffle(pending)
        page = tuple(pending[:PAGE])
        return self._point(delivered | set(page), page, more=len(pending) > PAGE)

    def _point(self, delivered: frozenset[int], page: tuple[int, ...], *, more: bool = False) -> CollectionReply:
        key = SyncKey(f"k{self._number()}")
        self._points = [*self._points[-1:], (key, delivered)]
        adds = tuple(
            Add(self._ids.setdefault(n, ServerId(f"5:{len(self._ids)}")), read=False, received=self._mails[n])
            for n in page
        )
        return CollectionReply(self._inbox, 1, key, more, bool(adds), adds)

    def _ping(self, ids: list[CollectionId]) -> PingReply:
        """Compare with the newest key that was given out, received or not; without one, report nothing."""
        if self._inbox not in ids or not self._points or len(self._points[-1][1]) == len(self._mails):
            return PingReply(PingStatus.EXPIRED)
        return PingReply(PingStatus.CHANGED, (self._inbox,))
