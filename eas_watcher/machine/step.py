"""Own the watch of one mailbox: what to do next after every answer, failure and wait.

`step` is a table in code: a state and an event give the next state and the actions to take, in order. It never sends,
sleeps, logs or reads a clock. Each loop has one cause to go round: for ever -> hierarchy and keys valid -> one Ping.

    Discovering -> Provisioning -> ReadingHierarchy -> Informing -> Syncing <-> Pinging (or a rest, when it polls)
    any of them -> Pausing -> Syncing with the stored keys (or whatever is due first); -> Wiping -> Ended

A Ping compares with the newest key the server gave out, whether we received it or not [observed: SOGo 5.8, Z-Push
2.7.1, 2026-11]. So whenever that is in doubt (a start, a wait, a lost answer), a Sync with the stored keys comes first.
"""

from dataclasses import replace
from typing import Final

from eas_watcher.commands.device import DEVICE
from eas_watcher.commands.folder_sync import FolderSync, FolderSyncReply
from eas_watcher.commands.options import Capabilities, Options, choose_version
from eas_watcher.commands.ping import Ping, PingReply
from eas_watcher.commands.settings import InformDevice
from eas_watcher.commands.sync import SyncReply
from eas_watcher.errors import (
    EasError,
    HierarchyChanged,
    ProtocolViolation,
    RequestRefused,
    ServerBusy,
    ServerRenewed,
    StateLost,
    Unreachable,
    VersionRefused,
)
from eas_watcher.heartbeat import HELD
from eas_watcher.machine.condition import healthy
from eas_watcher.machine.counters import MOST_REFUSALS
from eas_watcher.machine.folders import note_horizon, read_hierarchy, recall
from eas_watcher.machine.memory import WIPES, Condition, Memory, Partnership, Progress, WatchState
from eas_watcher.machine.ping import read_ping, rest
from eas_watcher.machine.remedies import RECHECK, end, pause, remedy, wipe
from eas_watcher.machine.state import (
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
from eas_watcher.machine.sync import ask_sync, read_sync, untry
from eas_watcher.names import NO_SYNC_KEY, ProtocolVersion
from eas_watcher.reasons import Reason

BREATH: Final = 100  # requests in a row before a wait, whatever the server answers: 2,500 items of a first Sync


def begin(memory: Memory, policy: Policy, jitter: float = 0.0) -> Move:
    """Start from what was kept: with valid keys that is a Sync with the stored keys, never a Ping.

    `jitter` is the share, 0 to 0.1, by which the mailbox's Pings last longer than the interval.
    """
    watch, tidied = recall(memory, policy, jitter)
    if memory.wipe is not None:
        return wipe(watch, account_only=memory.wipe)
    if memory.refusals >= MOST_REFUSALS:
        return Ended(watch), []
    if memory.retry_in > 0:
        return Pausing(watch), [*tidied, Pause(Progress(), 0, memory.retry_in)]
    state, actions = proceed(watch)
    return state, [*tidied, *actions]


def step(state: State, event: Event) -> Move:
    """Take one event; return the next state and what to do, in order."""
    match state, event:
        case Discovering(watch), Answered(Capabilities() as offer):
            return _discovered(watch, offer)
        case Provisioning(watch), Granted() as granted:
            return _provisioned(watch, granted)
        case ReadingHierarchy(watch), Answered(FolderSyncReply() as reply):
            return _hierarchy_read(watch, reply)
        case Informing(watch), Answered(None):
            return _record_partnership(watch, replace(watch.partnership, informed=True))
        case Syncing(), Answered(SyncReply() as reply, at):
            keep, decided = read_sync(state, reply, at)
            next_state, actions = _go(decided)
            return next_state, [*keep, *actions]
        case Pinging(watch), Answered(PingReply() as reply, _, held):
            return _go(read_ping(watch, reply, held))
        case Pausing(watch), Woken():
            return proceed(watch.in_doubt())
        case Wiping(watch, account_only), WipeAcknowledged() | Failed():
            return end(watch, Condition(WatchState.WIPED, WIPES[account_only]))
        case Ended(), _:
            return state, []
        case Syncing(watch), Failed((ServerBusy(again=True) | Unreachable(stale=True)) as error) if (
            not watch.counters.remedies
        ):
            return _fail(watch, error)
        case Syncing(watch), Failed((Unreachable(reached=True) | ServerBusy(reached=True)) as error):
            # Each try wears the keys, so a request that may be repeated goes first: it tells that the server is back.
            return _fail(replace(watch, hierarchy_due=True), error)
        case Syncing(watch), Failed(
            (ProtocolViolation() | RequestRefused() | HierarchyChanged() | StateLost() | ServerRenewed()) as error
        ):
            return _fail(watch, error)
        case Syncing(watch), Failed(error):
            return _fail(untry(watch, state.asked), error)
        case Pinging(watch), Failed(Unreachable() as error):
            return _cut(watch, error)
        case Informing(watch), Failed(
            ServerBusy(retry_after=None, reached=True) | ProtocolViolation() | RequestRefused() | VersionRefused()
        ):
            # A server that cannot take the information must not keep us from watching.
            return proceed(replace(watch, partnership=replace(watch.partnership, informed=True)))
        case _, Failed(error):
            return _fail(state.watch, error)
        case _:
            raise ProtocolViolation(f"{type(event).__name__} in state {type(state).__name__}")


def proceed(watch: Watch) -> Move:
    """Do whatever is due first; with nothing due, Ping."""
    if watch.counters.requests >= BREATH:
        return _fail(watch, ServerBusy(f"still not in step after {BREATH} requests in a row"))
    watch = replace(watch, counters=watch.counters.requested())
    if watch.partnership.version is None:
        return Discovering(watch), [Send(Options())]
    if watch.provision_due:
        return Provisioning(watch), [Provide(watch.policy.acknowledgement, watch.policy.fallbacks)]
    if watch.hierarchy_due or not watch.watched:
        return ReadingHierarchy(watch), [Send(FolderSync(watch.partnership.hierarchy_key))]
    if not watch.partnership.informed:
        return Informing(watch), [Send(InformDevice(DEVICE))]
    if any(c.id in watch.unsynced or c.sync_key == NO_SYNC_KEY for c in watch.watched):
        return ask_sync(watch)
    return _ping(watch)


def _discovered(watch: Watch, offer: Capabilities) -> Move:
    """Choose the version; provision first wherever the server knows the command (access rules want to know us)."""
    trusted = frozenset(offer.versions).intersection(watch.policy.versions) - watch.distrusted
    try:
        version = choose_version(offer, trusted or watch.policy.versions)
    except VersionRefused as error:
        return pause(watch, error, Reason.VERSION, RECHECK)
    informed = watch.partnership.informed or "Settings" not in offer.commands
    partnership = replace(watch.partnership, version=version, informed=informed)
    provision_due = "Provision" in offer.commands and partnership.policy_key is None
    distrusted = watch.distrusted if trusted else frozenset[ProtocolVersion]()
    return _record_partnership(replace(watch, provision_due=provision_due, distrusted=distrusted), partnership)


def _provisioned(watch: Watch, granted: Granted) -> Move:
    """Keep the final key; from 14.1 on the conversation has carried our DeviceInformation [MS-ASPROV 2.2.2.54]."""
    version = watch.partnership.version
    informed = watch.partnership.informed or (version is not None and version >= ProtocolVersion.V14_1)
    partnership = replace(
        watch.partnership, policy_key=granted.policy_key, acknowledged=granted.acknowledged, informed=informed
    )
    watch = replace(watch, provision_due=False, counters=watch.counters.provisioned())
    return _record_partnership(watch, partnership)


def _hierarchy_read(watch: Watch, reply: FolderSyncReply) -> Move:
    try:
        watch, progress = read_hierarchy(watch, reply)
    except ServerBusy as error:
        return _fail(watch, error)
    if watch.watched:
        state, actions = proceed(watch)
    else:
        missing = ServerBusy("the mailbox has no folder of the wanted classes")
        state, actions = pause(watch, missing, Reason.NO_FOLDER, RECHECK)
    return state, [Record(progress), *actions]


def _record_partnership(watch: Watch, partnership: Partnership) -> Move:
    state, actions = proceed(replace(watch, partnership=partnership))
    return state, [Record(Progress(partnership=partnership)), *actions]


def _ping(watch: Watch) -> Move:
    """Hold a Ping; or rest until the next Sync, where the operator wants no Pings."""
    watch, actions = note_horizon(watch)
    condition = healthy(watch)
    if watch.shown is not WatchState.WATCHING or watch.told != condition.detail:
        actions.append(Record(Progress(condition=condition)))
        watch = replace(watch, shown=WatchState.WATCHING, told=condition.detail)
    if watch.policy.poll_interval is not None:
        return rest(watch, watch.policy.poll_interval, actions)
    seconds = watch.heartbeat.spread(watch.jitter)
    return Pinging(watch), [*actions, Send(Ping(seconds, tuple((c.id, c.cls) for c in watch.watched)))]


def _cut(watch: Watch, error: Unreachable) -> Move:
    """Learn from a Ping whose connection was lost: after a long hold the path has an idle timeout."""
    held = error.survived >= HELD
    watch = replace(watch, counters=watch.counters.ping_cut(error.survived, held=held))
    if held:
        watch = replace(watch, heartbeat=watch.heartbeat.cut(error.survived))
    return _fail(watch, error)


def _fail(watch: Watch, error: EasError) -> Move:
    return _go(remedy(watch, error))


def _go(decided: Watch | Move) -> Move:
    return proceed(decided) if isinstance(decided, Watch) else decided
