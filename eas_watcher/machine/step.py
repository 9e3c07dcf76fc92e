"""The watch of one mailbox: what to do next after every answer, failure and pause.

`step` is a table in code: a state and an event give the next state and the actions to take, in order. It never sends,
sleeps, logs or reads a clock.

    Discovering -> Provisioning -> ReadingHierarchy -> Informing -> Syncing <-> Pinging (or a pause, when it polls)
    any of them -> Pausing -> Syncing with the stored keys (or another step that is due before it)
    any of them -> Wiping -> Ended

A Ping compares with the newest sync key that the server gave out, whether we received it or not [observed: SOGo 5.8,
Z-Push 2.7.1, 2026-11]. So after a start, a pause or a lost answer a Sync with the stored keys comes before any Ping.
"""

from typing import Final

from eas_watcher.commands.device import DEVICE
from eas_watcher.commands.folder_sync import FolderSync, FolderSyncReply
from eas_watcher.commands.options import Capabilities, Options, choose_version
from eas_watcher.commands.ping import PingReply
from eas_watcher.commands.settings import InformDevice
from eas_watcher.commands.sync import SyncReply
from eas_watcher.errors import (
    AccessDenied,
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
from eas_watcher.machine.counters import CONFIRM_AFTER, MOST_REFUSALS, UNLISTED
from eas_watcher.machine.folders import note_horizon, read_hierarchy, recall
from eas_watcher.machine.memory import WIPES, Collection, Condition, Memory, Partnership, Progress, WatchState
from eas_watcher.machine.ping import ping_of, poll, read_ping
from eas_watcher.machine.remedies import RECHECK, end, pause, remedy, wipe
from eas_watcher.machine.state import (
    Action,
    Answered,
    Discovering,
    Doubt,
    Ended,
    Event,
    Failed,
    Full,
    Granted,
    Informing,
    Move,
    NegotiatePolicy,
    Pause,
    Pausing,
    Pinging,
    Policy,
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
from eas_watcher.machine.sync import ask_sync, failed_whole, read_sync, take_back_try
from eas_watcher.names import NO_SYNC_KEY, ProtocolVersion
from eas_watcher.reasons import Reason
from eas_watcher.values import replace

OTHERS_FIRST: Final = 15.0
"""Seconds after a start before a credential is shown whose next refusal decides: until then others show whether the
server accepts anybody, in this process and in others."""
POLL_AGAIN: Final = 60.0  # seconds until the Sync after a Ping for which the server had no worker
PATIENCE: Final = (3, 12)
"""Failures in a row after which the known folders are Synced though the hierarchy cannot be read: while all keys have
all tries left; after one failed Sync, when the server may be away. After two, FolderSync must show that it is back."""
BREATH: Final = 100  # requests in a row, then a pause, whatever the server answers: 2,500 items of a first Sync


def begin(memory: Memory, policy: Policy, jitter: float = 0.0) -> Move:
    """Start from what was kept; with valid keys, a Sync with the stored keys comes first, never a Ping.

    `jitter` is the share, 0 to 0.1, by which the mailbox's Pings last longer than the interval.
    """
    watch, forgotten = recall(memory, policy, jitter)
    if memory.wipe is not None:
        return wipe(watch, account_only=memory.wipe)
    wait, doubt = memory.retry_in, None
    if memory.refusals >= MOST_REFUSALS - 1:
        wait = max(wait, OTHERS_FIRST)
    if memory.refusals >= MOST_REFUSALS:
        # The last refusal may have been a moment ago: a sign of the server that came before counts for nothing.
        doubt = Doubt(min(wait, policy.lockout_window))
    if wait > 0:
        return Pausing(watch), [*forgotten, Pause(Progress(), 0, wait, doubt=doubt)]
    state, actions = proceed(watch)
    return state, [*forgotten, *actions]


def refused_ago(memory: Memory, policy: Policy) -> float | None:
    """Return how many seconds ago at least the credential was refused last; None: the server accepts it.

    Each refusal is followed by a wait of a known least length, of which `retry_in` is left.
    """
    if not memory.refusals:
        return None
    decided = memory.refusals >= MOST_REFUSALS
    wait = policy.lockout_window if decided else CONFIRM_AFTER[memory.refusals - 1]
    return max(0.0, wait - memory.retry_in)


def step(state: State, event: Event) -> Move:
    """Return the next state after an event, and what to do, in order."""
    if isinstance(state, Syncing) and isinstance(event, Failed):
        watch, parked = failed_whole(state.watch, state.asked, event.error)
        if parked:
            return proceed(watch)
        state = replace(state, watch=watch)
    match state, event:
        # The two cases of each mail come first: the others are looked at one after the other.
        case Syncing(), Answered(SyncReply() as reply, at):
            keep, decided = read_sync(state, reply, at)
            next_state, actions = _go(decided)
            return next_state, [*keep, *actions]
        case Pinging(watch), Answered(PingReply() as reply, _, held, asked, note):
            return _go(read_ping(_noted(watch, note), reply, held, asked))
        case Discovering(watch), Answered(Capabilities() as offer):
            return _discovered(watch, offer)
        case Provisioning(watch), Granted() as granted:
            return _provisioned(watch, granted)
        case ReadingHierarchy(watch), Answered(FolderSyncReply() as reply):
            return _hierarchy_read(watch, reply)
        case Informing(watch), Answered(None):
            return _record_partnership(watch, replace(watch.partnership, informed=True))
        case Pinging(watch), Full(seconds, note):
            return _take_turns(_noted(watch, note), seconds)
        case Pinging(watch), Failed(ServerBusy(full=True)):
            return _take_turns(watch, POLL_AGAIN)
        case Pausing(watch), Woken(early):
            return proceed(replace(watch.resync_all(), counters=watch.counters.asked_early(early)))
        case Wiping(watch, account_only), WipeAcknowledged() | Failed():
            return end(watch, Condition(WatchState.WIPED, WIPES[account_only]))
        case Ended(), _:
            return state, []
        case Syncing(watch), Failed((ServerBusy(again=True) | Unreachable(stale=True)) as error) if (
            not watch.counters.remedies
        ):
            return _fail(watch, error)
        case Syncing(watch), Failed((Unreachable(reached=True) | ServerBusy(reached=True)) as error):
            # Each retry uses up one of the three attempts of a sync key. FolderSync may be repeated freely, so it goes
            # first and shows that the server is back.
            return _fail(replace(watch, hierarchy_due=True), error)
        case Syncing(watch), Failed(
            (ProtocolViolation() | RequestRefused() | HierarchyChanged() | StateLost() | ServerRenewed()) as error
        ):
            return _fail(watch, error)
        case Syncing(watch), Failed(error):
            return _fail(take_back_try(watch, state.asked), error)
        case Pinging(watch), Failed(Unreachable() as error):
            return _cut(watch, error)
        case Pinging(watch), Failed((ServerBusy() | ProtocolViolation()) as error, held=held) if held >= HELD:
            # Some servers end each Ping so after a time of their own: such failures are not in a row.
            counters = watch.counters.ping_answered(held, at_once=False).ping_failed()
            return _fail(replace(watch, counters=counters), error)
        case Informing(watch), Failed(
            ServerBusy(retry_after=None, reached=True) | ProtocolViolation() | RequestRefused() | VersionRefused()
        ):
            # The mailbox can be watched without the information.
            return proceed(replace(watch, partnership=replace(watch.partnership, informed=True)))
        case ReadingHierarchy(watch), Failed(error) if _may_sync(watch, error):
            # Mail must not wait for a list of folders that the server never gives.
            watch = replace(watch.resync_all(), counters=watch.counters.listed())
            watch = replace(watch, hierarchy_due=False, hierarchy_fault=str(error))
            return _fail(watch, error) if _may_be_away(error) else proceed(watch)
        case _, Failed(error):
            return _fail(state.watch, error)
        case _:
            raise ProtocolViolation(f"{type(event).__name__} in state {type(state).__name__}")


def proceed(watch: Watch) -> Move:
    """Do what is due, in this order; with nothing due, Ping."""
    if watch.counters.requests >= BREATH:
        return _fail(watch, ServerBusy(f"still not in step after {BREATH} requests in a row"))
    watch = replace(watch, counters=watch.counters.requested())
    if watch.partnership.version is None:
        return Discovering(watch), [Send(Options())]
    if watch.provision_due:
        return Provisioning(watch), [NegotiatePolicy(watch.policy.acknowledgement, watch.policy.fallbacks)]
    watched = watch.watched  # looked up once: a mail needs it in each of its steps
    due = any(c.id in watch.unsynced or c.sync_key == NO_SYNC_KEY for c in watched)
    if watch.counters.unlisted_for >= UNLISTED and not due:
        watch = replace(watch.unparked(), hierarchy_due=True)
    if watch.hierarchy_due or not watched:
        return ReadingHierarchy(watch), [Send(FolderSync(watch.partnership.hierarchy_key))]
    if not watch.partnership.informed:
        return Informing(watch), [Send(InformDevice(DEVICE))]
    if due:
        return ask_sync(watch, watched)
    return _ping(watch, watched)


def _may_sync(watch: Watch, error: EasError) -> bool:
    """Return True if the known folders are to be Synced though the hierarchy cannot be read.

    They are at once if it could not be read the last time either, so that mail waits for it only once; and if not even
    key 0 lists the folders, or they are too many to be listed.
    """
    match error:
        case AccessDenied(reason=Reason.EAS_151):
            return bool(watch.watched)
        case StateLost() | RequestRefused():
            return watch.partnership.hierarchy_key == NO_SYNC_KEY and bool(watch.watched)
        case ServerBusy() | ProtocolViolation() | Unreachable():
            sound = [c for c in watch.watched if c.sync_key != NO_SYNC_KEY and c.id not in watch.sync_failures]
            tries = max((c.tries for c in sound), default=len(PATIENCE))
        case _:
            return False
    if not tries and watch.hierarchy_fault:
        return True
    # The server answered the Ping or the Sync that came before the FolderSync of every three hours.
    routine = not tries and watch.counters.unlisted_for >= UNLISTED
    if _may_be_away(error) and not (routine or watch.hierarchy_fault):
        return False
    return tries < len(PATIENCE) and watch.counters.failures > PATIENCE[tries]


def _may_be_away(error: EasError) -> bool:
    """Return True if the server asks to be left alone, or gave no answer."""
    match error:
        case ServerBusy(retry_after=seconds, reached=reached):
            return seconds is not None or not reached
        case _:
            return isinstance(error, Unreachable)


def _noted(watch: Watch, note: str) -> Watch:
    """Return a watch with what the server's capacity means for its mailboxes."""
    return watch if watch.capacity == note else replace(watch, capacity=note)


def _discovered(watch: Watch, offer: Capabilities) -> Move:
    """Choose the version; provision first if the server knows the command, since access rules need the device."""
    usable = frozenset(offer.versions).intersection(watch.policy.versions) - watch.refused_versions
    try:
        version = choose_version(offer, usable or watch.policy.versions)
    except VersionRefused as error:
        return pause(watch, error, Reason.VERSION, RECHECK)
    informed = watch.partnership.informed or "Settings" not in offer.commands
    partnership = replace(watch.partnership, version=version, informed=informed)
    provision_due = "Provision" in offer.commands and partnership.policy_key is None
    refused = watch.refused_versions if usable else frozenset[ProtocolVersion]()
    return _record_partnership(replace(watch, provision_due=provision_due, refused_versions=refused), partnership)


def _provisioned(watch: Watch, granted: Granted) -> Move:
    """Keep the final key; from 14.1 on, the conversation has sent our DeviceInformation [MS-ASPROV 2.2.2.54]."""
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


def _ping(watch: Watch, watched: tuple[Collection, ...]) -> Move:
    """Send a Ping; or pause until the next Sync, where the operator configured polling."""
    watch, actions = note_horizon(replace(watch, singly=False) if watch.singly else watch)
    watch, shown = _show(watch)
    actions += shown
    if watch.policy.poll_interval is not None:
        return poll(watch, watch.policy.poll_interval, actions)
    return Pinging(watch), [*actions, Send(ping_of(watch, watched))]


def _take_turns(watch: Watch, seconds: float) -> Move:
    """Pause until the next Sync, or until it is this mailbox's turn to hold a Ping."""
    watch, actions = _show(watch)
    return poll(watch, seconds, actions, in_turn=True)


def _show(watch: Watch) -> tuple[Watch, list[Action]]:
    """Record that the watch works, with what operators should know, unless that is recorded."""
    condition = healthy(watch)
    if watch.shown is WatchState.WATCHING and watch.shown_detail == condition.detail:
        return watch, []
    watch = replace(watch, shown=WatchState.WATCHING, shown_detail=condition.detail)
    return watch, [Record(Progress(condition=condition))]


def _cut(watch: Watch, error: Unreachable) -> Move:
    """Shorten the heartbeat after a Ping whose connection was cut late, as by an idle timeout on the path.

    A connection that other Pings shared was never idle for so long, and each of them was held for another time.
    """
    held = error.survived >= HELD
    watch = replace(watch, counters=watch.counters.ping_cut(error.survived, held=held))
    if held and not error.connection:
        watch = replace(watch, heartbeat=watch.heartbeat.cut(error.survived))
    return _fail(watch, error)


def _fail(watch: Watch, error: EasError) -> Move:
    return _go(remedy(watch, error))


def _go(decided: Watch | Move) -> Move:
    return proceed(decided) if isinstance(decided, Watch) else decided
