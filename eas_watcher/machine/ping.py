"""What the answer to a Ping asks of a watch: a Sync, a better heartbeat, or a wait; and the pause instead of a Ping.

An answer that comes at once is normal from time to time. When it repeats it is a hot loop: a second client uses our
device id, or the server reports changes that no Sync shows.
"""

from math import inf
from types import MappingProxyType
from typing import Final

from eas_watcher.commands.ping import Ping, PingReply, PingStatus
from eas_watcher.errors import HierarchyChanged, RequestRefused, ServerBusy
from eas_watcher.heartbeat import EARLY, HELD
from eas_watcher.machine.folders import newest_mail
from eas_watcher.machine.memory import Collection, Progress
from eas_watcher.machine.remedies import at_once, pause, remedy
from eas_watcher.machine.state import Action, Move, Pause, Pausing, Watch
from eas_watcher.names import CollectionId
from eas_watcher.reasons import Reason
from eas_watcher.values import replace

HASTY: Final = 12.0  # seconds; Pings that are repeatedly answered faster, while no Sync shows anything, are a hot loop
HASTY_ALLOWED: Final = 5
SETTLED: Final = 60.0  # seconds; a Ping held so long, twice the time between two looks of a server, reports any mail
BREATHER: Final = 5.0  # seconds at least from one Ping that expires to the next, however briefly the server holds it
BROKEN_OFF: Final = MappingProxyType(
    {PingStatus.PARAMETERS_MISSING: HELD, PingStatus.HIERARCHY_CHANGED: SETTLED, PingStatus.SERVER_ERROR: HELD}
)
"""Status that may end a Ping -> seconds; after a Ping that was held for so long it is not one failure in a row, and no
wait grows. A changed hierarchy costs more requests than the others."""
HIERARCHY: Final = 3600.0  # seconds of polling after which the hierarchy is read again; of Pings: UNLISTED
NO_COLLECTIONS: Final = frozenset[CollectionId]()


def ping_of(watch: Watch, watched: tuple[Collection, ...]) -> Ping:
    """Return the Ping that a watch wants held for its watched collections."""
    return Ping(watch.heartbeat.spread(watch.jitter), tuple([(c.id, c.cls) for c in watched]))


def poll(watch: Watch, interval: float, before: list[Action], *, in_turn: bool = False) -> Move:
    """Do `before`, then pause for `interval` seconds instead of a Ping; as after any pause, a Sync comes next.

    `in_turn`: the pause ends sooner if it is the mailbox's turn to hold a Ping.
    """
    watch = replace(watch, counters=watch.counters.polled(interval))
    if watch.counters.polled_for >= HIERARCHY:
        watch = replace(watch.unparked(), hierarchy_due=True, counters=watch.counters.hierarchy_polled())
    return Pausing(watch), [*before, Pause(Progress(), 0, interval, polls=True, in_turn=in_turn)]


def read_ping(watch: Watch, reply: PingReply, held: float, asked: int | None = None) -> Watch | Move:
    """Read an answer that came after `held` seconds, with one of eight statuses [MS-ASCMD 2.2.3.177.11].

    `asked` is the heartbeat of the Ping, if it was shorter than the watch wanted; its end says nothing of longer ones.
    Return a watch that goes on at once, or a move that waits.
    """
    shortened = asked is not None and held >= asked * EARLY
    if reply.status is PingStatus.EXPIRED and not shortened:
        watch = replace(watch, heartbeat=watch.heartbeat.ended(held))
    counters = watch.counters.ping_answered(held, at_once=_is_hasty(watch, held))
    if reply.status is PingStatus.CHANGED:
        counters = counters.ping_changed(fast=held < HASTY)
    elif held >= BROKEN_OFF.get(reply.status, inf):
        counters = counters.ping_failed()
    watch = replace(watch, counters=counters)
    if watch.subfolders and held >= SETTLED:
        # Mail that was in the mailbox when the Ping began has been announced, wherever it appears from now on.
        watch = replace(watch, announced_until=newest_mail(watch.collections))
    match reply.status:
        case PingStatus.EXPIRED:
            return _expired(watch, held, shortened=shortened)
        case PingStatus.CHANGED:
            return _changed(watch, frozenset(reply.changed), held)
        case PingStatus.HEARTBEAT_OUT_OF_RANGE:
            # An answer without a limit says that our interval is below a lower bound [observed: Z-Push 2.7.1, 2026-11].
            asked = asked or watch.heartbeat.spread(watch.jitter)
            limit = reply.heartbeat or asked * 2
            watch = replace(watch, heartbeat=watch.heartbeat.adopt_limit(limit, asked))
            return at_once(watch, ServerBusy("the heartbeat interval is out of range"), Reason.HEARTBEAT)
        case PingStatus.TOO_MANY_FOLDERS:
            watch = replace(watch, max_folders=_fewer(watch, reply.max_folders))
            return at_once(watch, ServerBusy("too many folders in one Ping"), Reason.TOO_MANY_FOLDERS)
        case PingStatus.HIERARCHY_CHANGED:
            # This server reports new folders, so it would have reported any that existed when an earlier Ping began.
            watch = replace(watch, created_after=watch.announced_until)
            return remedy(watch, HierarchyChanged("Ping status 7"))
        case PingStatus.PARAMETERS_MISSING:
            return pause(watch, ServerBusy("the server forgot the Ping's parameters"), Reason.PING_PARAMETERS)
        case PingStatus.SYNTAX:
            return remedy(watch, RequestRefused("the server calls our request malformed (Ping status 4)"))
        case PingStatus.SERVER_ERROR:  # pragma: no branch -- mypy proves that there is no other
            return remedy(watch, ServerBusy("Ping status 8"))


def _fewer(watch: Watch, limit: int | None) -> int:
    """Return how many folders fit into one Ping: the server's limit, or one fewer than before if it names none."""
    return max(1, min(limit or len(watch.watched) - 1, watch.max_folders))


def _expired(watch: Watch, held: float, *, shortened: bool) -> Watch | Move:
    """Ping again, unless Pings end at once in a row, as when a second client uses our device id."""
    fast = _is_hasty(watch, held)
    counters = watch.counters.ping_expired(held, fast=fast)
    watch = replace(watch, counters=counters)
    if fast:
        if counters.fast_pings > 1:
            error = ServerBusy("Pings end at once: is the device id in use twice?")
            return pause(watch, error, Reason.PING_TOO_FAST, failures=counters.fast_pings - 1)
        return watch.resync_all()
    early = watch.heartbeat.is_early(held) and not shortened
    if not early and not shortened:
        watch = replace(watch, heartbeat=watch.heartbeat.expired())
    if held < BREATHER:
        # A server may hold Pings for a second only, and would then be asked every second for ever.
        seconds = BREATHER - held
        return Pausing(replace(watch, counters=counters.waited(seconds))), [Pause(Progress(), 0, seconds)]
    # An early end may be that of a server that restarts, and then a change may be lost; the server's own hold is not.
    return watch.resync_all() if early and not watch.heartbeat.explains(held) else watch


def _changed(watch: Watch, changed: frozenset[CollectionId], held: float) -> Watch | Move:
    """Sync the collections that the server names, in one request; all, if it names none that we know."""
    watched = frozenset([collection.id for collection in watch.watched])
    unconfirmed = watch.unconfirmed & changed if held < HASTY else NO_COLLECTIONS
    unsynced = watch.unsynced | ((changed & watched) or watched)
    watch = replace(watch, unsynced=unsynced, unconfirmed=unconfirmed)
    excess = watch.counters.fast_pings - HASTY_ALLOWED
    if excess >= 0:
        error = ServerBusy("Pings tell of changes that no Sync shows")
        return pause(watch, error, Reason.PING_TOO_FAST, failures=excess + 1)
    return watch


def _is_hasty(watch: Watch, held: float) -> bool:
    """Return True if the answer came at once; a server with short heartbeats or holds rightly answers soon."""
    return held < min(HASTY, watch.heartbeat.interval / 4) and not watch.heartbeat.explains(held)
