"""The Syncs of a watch: which collections one request asks for, and what its answer changes.

An answer may succeed for one collection and fail for another; each key that advanced is recorded regardless of the
others.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from eas_watcher.commands.sync import CollectionRequest, Sync, SyncReply
from eas_watcher.errors import (
    EasError,
    HierarchyChanged,
    ProtocolViolation,
    RequestRefused,
    ServerBusy,
    Unreachable,
)
from eas_watcher.machine.memory import Collection, Progress, restart
from eas_watcher.machine.remedies import remedy, start_over
from eas_watcher.machine.state import Action, Move, Record, Send, Syncing, Watch
from eas_watcher.machine.sync_reply import Digest, digest
from eas_watcher.names import NO_SYNC_KEY, CollectionId
from eas_watcher.reasons import Reason
from eas_watcher.values import replace

KEY_TRIES: Final = 3  # Z-Push withholds items from the third use of one sync key on [observed: 2.7.1, 2026-11]
SYNC_FAILURES: Final = 2  # Syncs in a row in which a folder may fail; the next failure parks it, but never the Inbox
TRY_AGAIN: Final = 600.0
"""Seconds until a parked folder is tried again, then twice as long each time: a fault of minutes must not hold up mail
for hours. UNLISTED is the longest."""
MOST_TRIES: Final = 5  # failures in a row that are counted once a folder was parked: by then UNLISTED is shorter


def ask_sync(watch: Watch, watched: tuple[Collection, ...]) -> Move:
    """Prime the collections without a key, by themselves and without options; else Sync all due ones in one request.

    Those that failed lately come after all others, because one folder may fail a whole Sync: mail must not wait for it.
    """
    used_up = {c.id: restart(c) for c in watched if c.tries >= KEY_TRIES and c.sync_key != NO_SYNC_KEY}
    watched = _put(watched, used_up)
    sound = [c for c in watched if c.id not in watch.sync_failures]
    asked = (_due(watch, sound) or _due(watch, watched))[: 1 if watch.singly else watch.max_collections]
    tried = {c.id: replace(c, tries=c.tries + 1) for c in asked}
    watch = replace(watch, collections=_put(watch.collections, used_up | tried))
    request = Sync(tuple([CollectionRequest(c.id, c.cls, c.sync_key) for c in asked]))
    return Syncing(watch, tuple([c.id for c in asked])), [Send(request)]


def _due(watch: Watch, collections: Sequence[Collection]) -> list[Collection]:
    """Return the collections that are due in one request: one that could not be primed comes last."""
    keyless = [c for c in collections if c.sync_key == NO_SYNC_KEY]
    untried = [c for c in keyless if not c.tries]
    return untried or [c for c in collections if c.sync_key != NO_SYNC_KEY and c.id in watch.unsynced] or keyless


def read_sync(state: Syncing, reply: SyncReply, at: datetime) -> tuple[list[Action], Watch | Move]:
    """Read a whole answer that came `at` that moment; return what to record first, and how to go on.

    The watch goes on at once, or by a move that waits.
    """
    watch = state.watch
    asked = [c for c in watch.collections if c.id in state.asked]
    read = digest(asked, reply, at, watch.announced_until)
    keep = _keep(asked, read, refused=watch.counters.refusals > 0)
    # After a Ping that ended at once because of items that an earlier Sync had shown, this Sync shows none.
    confirms = watch.confirms or bool(
        watch.unconfirmed.intersection(state.asked) - read.moved - read.again - read.troubled
    )
    again = read.again | read.moved if confirms else read.again
    unconfirmed = frozenset[CollectionId]() if confirms else watch.unconfirmed.difference(state.asked) | read.moved
    certain = [change.certain for change in read.changes]
    counters = watch.counters.sync_answered(
        news=True in certain,
        activity=bool(read.moved) or any(c.id in read.again and c.drain is None for c in read.collections),
        inferred=False in certain,
    )
    watch = replace(
        watch,
        collections=_put(watch.collections, {c.id: c for c in read.collections}),
        unsynced=watch.unsynced.difference(state.asked) | again,
        confirms=confirms,
        unconfirmed=unconfirmed,
        counters=counters,
        sync_failures=tuple([id_ for id_ in watch.sync_failures if id_ in read.troubled or id_ not in state.asked]),
    )
    if read.trouble is not None:
        return keep, _troubled(watch, state.asked, read, read.trouble)
    if read.lost:
        stale = ServerBusy("the server does not know a sync key (Sync status 3)")
        return keep, start_over(watch, stale, Reason.STALE_KEY)
    return keep, watch


def _troubled(watch: Watch, asked: tuple[CollectionId, ...], read: Digest, trouble: EasError) -> Watch | Move:
    """Apply the remedy; a folder that keeps failing is parked instead, so that the others go on."""
    watch, hopeless = _park(watch, read.troubled)
    watch = replace(watch, unsynced=watch.unsynced | frozenset(asked))
    return watch if hopeless == read.troubled else remedy(watch, trouble)


def _park(watch: Watch, troubled: frozenset[CollectionId]) -> tuple[Watch, frozenset[CollectionId]]:
    """Note that some folders failed; return the watch, and those that are left out from now on.

    The Inbox never is, and no failure counts while no folder is in step with the server: it may not be the folder's.
    """
    others = [c.id for c in watch.watched if c.id in troubled and not c.is_inbox]
    in_step = any(c.id not in watch.unsynced | troubled and c.sync_key != NO_SYNC_KEY for c in watch.watched)
    if not in_step:
        return watch, frozenset()
    counts = {id_: watch.sync_failures.count(id_) for id_ in others}
    failures = (*watch.sync_failures, *(id_ for id_, count in counts.items() if count < SYNC_FAILURES + MOST_TRIES))
    watch = replace(watch, sync_failures=failures)
    hopeless = {id_: count - SYNC_FAILURES for id_, count in counts.items() if count >= SYNC_FAILURES}
    if not hopeless:
        return watch, frozenset()
    counters = watch.counters.left_out(TRY_AGAIN * 2 ** min(hopeless.values()))
    parked = frozenset(hopeless)
    return replace(watch, parked=watch.parked | parked, counters=counters), parked


def failed_whole(watch: Watch, asked: tuple[CollectionId, ...], error: EasError) -> tuple[Watch, bool]:
    """Find out which of the folders asked for makes a whole Sync fail; return True if it is parked for it.

    Servers refuse all folders for one of them, or break down over one item and answer HTTP 500 or nothing. Of several
    folders each is asked for alone until the next Ping, unless it is the first failure in a row.
    """
    match error:
        case ServerBusy(reached=True) | ProtocolViolation() | HierarchyChanged() | RequestRefused():
            pass
        case Unreachable(reached=True, stale=False):
            pass
        case _:
            return watch, False
    if len(asked) > 1:
        return replace(watch, singly=watch.singly or watch.counters.failures > 0), False
    watch, hopeless = _park(watch, frozenset(asked))
    return watch, bool(hopeless)


def _keep(asked: Sequence[Collection], read: Digest, *, refused: bool) -> list[Action]:
    """Return the record of the keys that advanced and the changes they stand for; of a drain nothing is recorded.

    An answer also shows that the server accepts the credential again, if it was refused before.
    """
    before = {c.id: c for c in asked}
    moved = tuple([c for c in read.collections if c.drain is None and _is_news(before[c.id], c)])
    if not moved and not refused:
        return []
    return [Record(Progress(collections=moved, changes=read.changes, refusals=0 if refused else None))]


def _is_news(before: Collection, after: Collection) -> bool:
    """Return True if more of a collection has changed than that its one try was answered."""
    return after.sync_key != before.sync_key or before.tries > 1 or after != replace(before, tries=0)


def take_back_try(watch: Watch, asked: tuple[CollectionId, ...]) -> Watch:
    """Do not count a try that never reached the server."""
    taken_back = {c.id: replace(c, tries=max(0, c.tries - 1)) for c in watch.collections if c.id in asked}
    return replace(watch, collections=_put(watch.collections, taken_back))


def _put(collections: tuple[Collection, ...], changed: dict[CollectionId, Collection]) -> tuple[Collection, ...]:
    """Return collections with some of them changed."""
    return tuple([changed.get(c.id, c) for c in collections]) if changed else collections
