"""The values from which tests of a watch start."""

from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any, Final

from eas_watcher.commands.ping import PingReply, PingStatus
from eas_watcher.commands.request import Command
from eas_watcher.commands.sync import Add, CollectionReply, CollectionRequest, Sync, SyncReply
from eas_watcher.machine.counters import Counters
from eas_watcher.machine.memory import Collection, Partnership, Progress
from eas_watcher.machine.state import (
    AcknowledgeWipe,
    Action,
    Answered,
    NegotiatePolicy,
    Pause,
    Policy,
    Record,
    Send,
    Syncing,
    Watch,
)
from eas_watcher.names import NO_SYNC_KEY, CollectionClass, CollectionId, PolicyKey, ProtocolVersion, ServerId, SyncKey

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
NEWEST = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
INBOX = Collection(CollectionId("5"), CollectionClass.EMAIL, SyncKey("k1"), newest=NEWEST)
CALENDAR = Collection(CollectionId("7"), CollectionClass.CALENDAR, SyncKey("c1"), newest=NEWEST)
PARTNERSHIP = Partnership(ProtocolVersion.V14_1, PolicyKey("77"), SyncKey("h1"), informed=True)
EMAIL = frozenset({CollectionClass.EMAIL})


COUNTERS: Final = {field.name for field in fields(Counters)}


def watch_of(*collections: Collection, **changes: Any) -> Watch:
    """Return a watch for which nothing is due but a Ping; names of counters set its counters."""
    counters = {name: changes.pop(name) for name in COUNTERS & changes.keys()}
    policy = Policy()
    given: dict[str, Any] = {
        "policy": policy,
        "partnership": PARTNERSHIP,
        "collections": collections or (INBOX,),
        "classes": frozenset(c.cls for c in collections) or EMAIL,
        "heartbeat": policy.heartbeat,
        "unsynced": frozenset(),
        "counters": Counters(**counters),
    }
    return Watch(**(given | changes))


def altered(watch: Watch, **changes: Any) -> Watch:
    """Return a watch with other fields; names of counters set its counters."""
    counters = {name: changes.pop(name) for name in COUNTERS & changes.keys()}
    return replace(watch, counters=replace(watch.counters, **counters), **changes)


SYNC: Final = Sync((CollectionRequest(INBOX.id, INBOX.cls, INBOX.sync_key),))
PRIME: Final = Sync((CollectionRequest(INBOX.id, INBOX.cls, NO_SYNC_KEY),))


def syncing(*collections: Collection, **changes: object) -> Syncing:
    """Return the state after a Sync of the collections was sent."""
    tried = tuple(replace(c, tries=c.tries + 1) for c in collections or (INBOX,))
    return Syncing(watch_of(*tried, unsynced=frozenset(c.id for c in tried), **changes), tuple(c.id for c in tried))


def synced(*collections: CollectionReply) -> Answered:
    """Return the answer to a Sync; without collections the body is empty."""
    return Answered(SyncReply(not collections, collections), NOW)


def news(
    *ids: str, of: Collection = INBOX, key: str | None = "k2", status: int = 1, more: bool = False
) -> CollectionReply:
    """Return the answer for one collection, with unread items that came just now."""
    adds = tuple(Add(ServerId(id_), read=False, received=NOW) for id_ in ids)
    return CollectionReply(of.id, status, None if key is None else SyncKey(key), more, bool(adds), adds)


def pinged(status: PingStatus, *changed: str, held: float = 0.0, **named: int) -> Answered:
    """Return the answer to a Ping after `held` seconds."""
    return Answered(PingReply(status, tuple(map(CollectionId, changed)), **named), NOW, held)


def sent(actions: list[Action]) -> Command[Any] | None:
    """Return the one command of a move, if any; at most one of its actions may send, converse or wait."""
    last = [action for action in actions if isinstance(action, Send | NegotiatePolicy | AcknowledgeWipe | Pause)]
    assert len(last) <= 1
    assert not last or actions[-1] is last[0]
    return last[0].command if last and isinstance(last[0], Send) else None


def recorded(actions: list[Action]) -> list[Progress]:
    """Return what a move records."""
    return [action.progress for action in actions if isinstance(action, Record)]


def paused(actions: list[Action]) -> Pause:
    """Return the pause at the end of a move."""
    last = actions[-1]
    assert isinstance(last, Pause), actions
    return last
