"""Own the watch of one mailbox: what to do next after every answer, failure and wait.

`step` is a table in code: a state and an event give the next state and the actions to take, in order. It never sends,
sleeps, logs or reads a clock. Each loop has one cause to go round: for ever -> hierarchy and keys valid -> one Ping.

    Discovering -> Provisioning -> ReadingHierarchy -> Informing -> Syncing <-> Pinging
    any of them -> Pausing -> Syncing with the stored keys (or whatever is due first); -> Wiping -> Ended
"""

from dataclasses import replace
from typing import Final

from eas_watcher.changes import Digest, digest, restart
from eas_watcher.commands.device import DEVICE
from eas_watcher.commands.folder_sync import FolderSync, FolderSyncReply
from eas_watcher.commands.options import Capabilities, Options, choose_version
from eas_watcher.commands.ping import Ping, PingReply, PingStatus
from eas_watcher.commands.settings import InformDevice
from eas_watcher.commands.sync import CollectionRequest, Sync, SyncReply
from eas_watcher.errors import (
    EasError,
    HierarchyChanged,
    ProtocolViolation,
    ServerBusy,
    Unreachable,
    VersionRefused,
)
from eas_watcher.heartbeat import HELD
from eas_watcher.hierarchy import follow
from eas_watcher.names import NO_SYNC_KEY, CollectionId, PolicyKey, ProtocolVersion
from eas_watcher.progress import Collection, Condition, Memory, Partnership, Progress, WatchState
from eas_watcher.remedies import CONFIRM_AFTER, RECHECK, at_once, end, pause, remedy
from eas_watcher.states import (
    Action,
    Answered,
    Discovering,
    Ended,
    Event,
    Failed,
    Granted,
    Informing,
    Move,
    Pause,
    Pausing,
    Pinging,
    Policy,
    Provide,
    Provisioning,
    ReadingHierarchy,
    Record,
    Send,
    State,
    Syncing,
    Watch,
    WipeAcknowledged,
    Wiping,
    Woken,
)

KEY_TRIES: Final = 3  # Z-Push withholds items from the 3rd time on that one key is presented [observed: 2.7.1, 2026-11]
ROUNDS: Final = 100  # Syncs in a row before something else must happen
HASTY: Final = 12.0  # seconds; five Pings answered faster than this in a row are a hot loop, not news
HASTY_ALLOWED: Final = 5
QUIET: Final = 3 * 3600.0  # seconds of silent Pings after which a Sync checks that the server has not fallen deaf


def begin(memory: Memory, policy: Policy) -> Move:
    """Start from what was kept: with valid keys that is a Sync with the stored keys, never a Ping."""
    watch = Watch(
        policy=policy,
        partnership=memory.partnership,
        collections=memory.collections,
        classes=memory.classes,
        heartbeat=policy.heartbeat,
        unsynced=frozenset(collection.id for collection in memory.collections),
        hierarchy_due=memory.partnership.hierarchy_key == NO_SYNC_KEY,
        refusals=memory.refusals,
    )
    if memory.refusals > len(CONFIRM_AFTER):
        return Ended(watch), []
    if memory.retry_in > 0:
        return Pausing(watch), [Pause(Progress(), 0, memory.retry_in)]
    return proceed(watch)


def step(state: State, event: Event) -> Move:
    """Take one event; return the next state and what to do, in order."""
    match state, event:
        case Discovering(watch), Answered(Capabilities() as offer):
            return _discovered(watch, offer)
        case Provisioning(watch), Granted(policy_key):
            return _provisioned(watch, policy_key)
        case ReadingHierarchy(watch), Answered(FolderSyncReply() as reply):
            return _hierarchy_read(watch, reply)
        case Informing(watch), Answered(None):
            return _record_partnership(watch, replace(watch.partnership, informed=True))
        case Syncing(watch), Answered(SyncReply() as reply):
            return _synced(state, reply)
        case Pinging(watch), Answered(PingReply() as reply, held):
            return _pinged(watch, reply, held)
        case Pausing(watch), Woken():
            return proceed(_unsync_all(watch))
        case Wiping(watch), WipeAcknowledged() | Failed():
            return end(watch, Condition(WatchState.WIPED, "remote-wipe"))
        case Ended(), _:
            return state, []
        case Syncing(watch), Failed(Unreachable(reached=False) | ServerBusy(reached=False) as error):
            return _fail(_untry(watch, state.asked), error)
        case Pinging(watch), Failed(Unreachable() as error):
            return _cut(watch, error)
        case Informing(watch), Failed(ServerBusy() | ProtocolViolation() | VersionRefused()):
            # A server that cannot take the information must not keep us from watching; the next start asks again.
            return proceed(replace(watch, partnership=replace(watch.partnership, informed=True)))
        case _, Failed(error):
            return _fail(state.watch, error)
        case _:
            raise ProtocolViolation(f"{type(event).__name__} in state {type(state).__name__}")


def proceed(watch: Watch, rounds: int = 0) -> Move:
    """Do whatever is due first; with nothing due, Ping."""
    if watch.partnership.version is None:
        return Discovering(watch), [Send(Options())]
    if watch.provision_due:
        return Provisioning(watch), [Provide(watch.policy.acknowledgement)]
    if watch.hierarchy_due:
        return ReadingHierarchy(watch), [Send(FolderSync(watch.partnership.hierarchy_key))]
    if not watch.partnership.informed:
        return Informing(watch), [Send(InformDevice(DEVICE))]
    if any(c.id in watch.unsynced or c.sync_key == NO_SYNC_KEY for c in watch.watched):
        return _sync(watch, rounds)
    return _ping(watch)


def _discovered(watch: Watch, offer: Capabilities) -> Move:
    """Choose the version; provision first wherever the server knows the command (access rules want to know us)."""
    try:
        version = choose_version(offer, watch.policy.versions)
    except VersionRefused as error:
        return pause(watch, error, "version", RECHECK)
    informed = watch.partnership.informed or "Settings" not in offer.commands
    partnership = replace(watch.partnership, version=version, informed=informed)
    provision_due = "Provision" in offer.commands and partnership.policy_key is None
    return _record_partnership(replace(watch, provision_due=provision_due), partnership)


def _provisioned(watch: Watch, policy_key: PolicyKey | None) -> Move:
    """Keep the final key; from 14.1 on the conversation has carried our DeviceInformation [MS-ASPROV 2.2.2.54]."""
    version = watch.partnership.version
    informed = watch.partnership.informed or (version is not None and version >= ProtocolVersion.V14_1)
    partnership = replace(watch.partnership, policy_key=policy_key, informed=informed)
    return _record_partnership(replace(watch, provision_due=False), partnership)


def _hierarchy_read(watch: Watch, reply: FolderSyncReply) -> Move:
    try:
        collections, dropped = follow(watch.collections, watch.partnership.hierarchy_key, reply)
    except ServerBusy as error:
        return _fail(watch, error)
    partnership = replace(watch.partnership, hierarchy_key=reply.sync_key)
    known = {collection.id: collection for collection in watch.collections}
    fresh = tuple(c for c in collections if known.get(c.id) != c and c.drain is None)
    watch = replace(watch, partnership=partnership, collections=collections, hierarchy_due=False)
    if not watch.watched:
        return pause(watch, ServerBusy("the mailbox has no folder of the wanted classes"), "no-folder", RECHECK)
    state, actions = proceed(watch)
    return state, [Record(Progress(partnership=partnership, collections=fresh, dropped=dropped)), *actions]


def _record_partnership(watch: Watch, partnership: Partnership) -> Move:
    state, actions = proceed(replace(watch, partnership=partnership))
    return state, [Record(Progress(partnership=partnership)), *actions]


def _sync(watch: Watch, rounds: int) -> Move:
    """Prime what has no key, alone, without options; else Sync everything that is dirty, in one request."""
    if rounds >= ROUNDS:
        return _fail(watch, ServerBusy(f"still not in step after {ROUNDS} Syncs in a row"))
    worn = {c.id: restart(c) for c in watch.watched if c.tries >= KEY_TRIES and c.sync_key != NO_SYNC_KEY}
    watch = _put(watch, worn)
    keyless = tuple(c for c in watch.watched if c.sync_key == NO_SYNC_KEY)
    asked = keyless or tuple(c for c in watch.watched if c.id in watch.unsynced)
    watch = _put(watch, {c.id: replace(c, tries=c.tries + 1) for c in asked})
    request = Sync(tuple(CollectionRequest(c.id, c.cls, c.sync_key) for c in asked))
    return Syncing(watch, tuple(c.id for c in asked), rounds + 1), [Send(request)]


def _synced(state: Syncing, reply: SyncReply) -> Move:
    watch = state.watch
    asked = tuple(c for c in watch.collections if c.id in state.asked)
    read = digest(asked, reply)
    done = frozenset(state.asked) - read.again
    watch = replace(
        _put(watch, {c.id: c for c in read.collections}),
        unsynced=(watch.unsynced - done) | read.again,
        quiet_for=0.0,
        failures=0 if read.changes else watch.failures,
        hasty=0 if read.changes else watch.hasty,
    )
    if read.trouble is not None:
        watch = replace(watch, unsynced=watch.unsynced | frozenset(state.asked))
        next_state, actions = _fail(watch, read.trouble)
    else:
        next_state, actions = proceed(watch, state.rounds)
    return next_state, [*_keep(asked, read, watch), *actions]


def _keep(asked: tuple[Collection, ...], read: Digest, watch: Watch) -> list[Action]:
    """Record what advanced: keys and the changes they stand for, in one transaction; nothing of a drain."""
    before = {c.id: c for c in asked}
    moved = tuple(
        c
        for c in read.collections
        if c.drain is None and (c != replace(before[c.id], tries=0) or before[c.id].tries > 1)
    )
    if not moved and not read.changes:
        return []
    refusals = 0 if watch.refusals else None
    return [Record(Progress(collections=moved, changes=read.changes, refusals=refusals))]


def _ping(watch: Watch) -> Move:
    request = Ping(watch.heartbeat.interval, tuple((c.id, c.cls) for c in watch.watched))
    actions: list[Action] = []
    if watch.shown is not WatchState.WATCHING:
        condition = Condition(WatchState.WATCHING)
        actions.append(Record(Progress(condition=condition, refusals=0 if watch.refusals else None)))
        watch = replace(watch, shown=WatchState.WATCHING, refusals=0)
    return Pinging(watch), [*actions, Send(request)]


def _pinged(watch: Watch, reply: PingReply, held: float) -> Move:
    """Read a Ping's answer; all eight statuses [MS-ASCMD 2.2.3.177.11]."""
    match reply.status:
        case PingStatus.EXPIRED:
            return _expired(watch, held)
        case PingStatus.CHANGED:
            return _changed(watch, frozenset(reply.changed), held)
        case PingStatus.HEARTBEAT_OUT_OF_RANGE:
            # Without a limit in the answer ours is below a lower bound [observed: Z-Push 2.7.1, 2026-11].
            limit = reply.heartbeat or watch.heartbeat.interval * 2
            watch = replace(watch, heartbeat=watch.heartbeat.told(limit))
            return _go(at_once(watch, ServerBusy("the heartbeat interval is out of range"), "heartbeat"))
        case PingStatus.TOO_MANY_FOLDERS:
            watch = replace(watch, max_folders=max(1, reply.max_folders or len(watch.watched) - 1))
            return _go(at_once(watch, ServerBusy("too many folders in one Ping"), "too-many-folders"))
        case PingStatus.HIERARCHY_CHANGED:
            return _fail(watch, HierarchyChanged("Ping status 7"))
        case PingStatus.PARAMETERS_MISSING:
            return pause(watch, ServerBusy("the server forgot the Ping's parameters"), "ping-parameters")
        case PingStatus.SYNTAX:
            return pause(watch, ProtocolViolation("the server calls our Ping malformed"), "ping-syntax")
        case PingStatus.SERVER_ERROR:
            return _fail(watch, ServerBusy("Ping status 8"))


def _expired(watch: Watch, held: float) -> Move:
    """Ping again; an early end is normal now and then, but never a busy loop."""
    quiet_for = watch.quiet_for + held
    if held < min(HASTY, watch.heartbeat.interval / 4):
        watch = replace(watch, hasty=watch.hasty + 1, quiet_for=quiet_for)
        if watch.hasty > 1:
            error = ServerBusy("Pings end at once: is the device id in use twice?")
            return pause(watch, error, "ping-too-fast", failures=watch.hasty - 1)
        return _sync_all(watch)
    early = held < watch.heartbeat.interval * 0.75
    heartbeat = watch.heartbeat if early else watch.heartbeat.expired()
    watch = replace(watch, heartbeat=heartbeat, hasty=0, failures=0, quiet_for=quiet_for)
    if early or quiet_for >= QUIET:
        return _sync_all(watch)
    return _ping(watch)


def _changed(watch: Watch, changed: frozenset[CollectionId], held: float) -> Move:
    """Sync what the server named (everything, if it named nothing we know), in one request."""
    known = changed & frozenset(c.id for c in watch.watched)
    watch = replace(
        watch,
        unsynced=watch.unsynced | (known or frozenset(c.id for c in watch.watched)),
        hasty=watch.hasty + 1 if held < HASTY else 0,
        failures=0 if held >= HASTY else watch.failures,
    )
    if watch.hasty >= HASTY_ALLOWED:
        error = ServerBusy("Pings tell of changes that no Sync shows")
        return pause(watch, error, "ping-too-fast", failures=watch.hasty - HASTY_ALLOWED + 1)
    return proceed(watch)


def _cut(watch: Watch, error: Unreachable) -> Move:
    """Learn from a Ping whose connection was lost: after a long hold the path has an idle timeout."""
    if error.survived < HELD:
        return _fail(watch, error)
    watch = replace(watch, heartbeat=watch.heartbeat.cut(error.survived), failures=0)
    return _fail(watch, error)


def _fail(watch: Watch, error: EasError) -> Move:
    return _go(remedy(watch, error))


def _go(decided: Watch | Move) -> Move:
    return proceed(decided) if isinstance(decided, Watch) else decided


def _unsync_all(watch: Watch) -> Watch:
    return replace(watch, unsynced=frozenset(c.id for c in watch.collections))


def _sync_all(watch: Watch) -> Move:
    return proceed(_unsync_all(watch))


def _untry(watch: Watch, asked: tuple[CollectionId, ...]) -> Watch:
    """Take back a try that never reached the server."""
    return _put(watch, {c.id: replace(c, tries=max(0, c.tries - 1)) for c in watch.collections if c.id in asked})


def _put(watch: Watch, changed: dict[CollectionId, Collection]) -> Watch:
    if not changed:
        return watch
    return replace(watch, collections=tuple(changed.get(c.id, c) for c in watch.collections))
