"""The condition that operators see of a watch that works: what was acknowledged to the server, and what looks odd."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from eas_watcher.commands.provision import Acknowledgement
from eas_watcher.machine.memory import Collection, Condition, WatchState
from eas_watcher.machine.state import Watch
from eas_watcher.machine.sync_reply import EPOCH
from eas_watcher.names import CollectionClass
from eas_watcher.reasons import Reason

SILENT: Final = 4 * 3600.0  # seconds of Pings; the discovery of a device ends within 14 minutes, see below
DISCOVERY_TAKES: Final = 15 * 60.0  # seconds of Pings; 14 minutes at most [observed: Exchange 2010]

_CLAIMS: Final = {
    used: f"the server's policy was acknowledged with {used.value} ({claim})"
    for used, claim in (
        (Acknowledgement.APPLIED, "applied"),
        (Acknowledgement.PARTIAL, "applied in part"),
        (Acknowledgement.NOT_APPLIED, "not applied"),
        (Acknowledgement.THIRD_PARTY, "managed by others"),
    )
}


def healthy(watch: Watch) -> Condition:
    """Describe a watch that is about to Ping; it has a reason only if something looks odd.

    The server answers a quarantined device, and a new one in discovery, as if all were well, but shows it no items
    [observed: Exchange 2010 to 2019].
    """
    notes = []
    used = watch.partnership.acknowledged
    if used is not None:
        notes.append(_CLAIMS[used])
    reason = None
    if watch.counters.silent_for >= SILENT and _looks_empty(watch.watched):
        reason = Reason.PERHAPS_QUARANTINED
        notes.append(
            "no item was ever shown, and nothing comes: if the mailbox is in use, look whether the server quarantines "
            "the device"
        )
    elif watch.new and watch.counters.silent_for < DISCOVERY_TAKES and _looks_empty(watch.watched):
        reason = Reason.PERHAPS_IN_DISCOVERY
        notes.append(
            "no item was shown so far: some servers show a new device nothing for a quarter of an hour, until they "
            "know what it is"
        )
    if watch.capacity:
        notes.append(watch.capacity)
    if watch.heartbeat.hold is not None:
        notes.append(f"the server ends every Ping after {watch.heartbeat.hold:.0f} s, whatever it is asked for")
    if watch.hierarchy_fault:
        notes.append(f"the folders could not be read again: {watch.hierarchy_fault}")
    if watch.parked or len(watch.collections) > watch.max_folders:
        notes += _unwatched(watch)
    return Condition(WatchState.WATCHING, reason, detail="; ".join(notes))


def _unwatched(watch: Watch) -> Iterator[str]:
    """Yield which of the wanted collections are not watched, and why."""
    wanted = watch.wanted
    parked = [c for c in wanted if c.id in watch.parked]
    if parked:
        yield f"the server does not sync {_name(parked)}"
    if len(wanted) > len(parked) + watch.max_folders:
        left_out = [c for c in wanted if c not in watch.watched and c not in parked]
        yield f"no more than {watch.max_folders} folders fit into one Ping; not watched: {_name(left_out)}"


def _name(collections: list[Collection]) -> str:
    """Name default folders by their class and count sub-folders, whose names are content."""
    subs = Counter(c.cls.value for c in collections if c.sub)
    names = [c.cls.value for c in collections if not c.sub]
    return ", ".join(names + [f"{number} sub-folder{'s'[: number > 1]} of {cls}" for cls, number in subs.items()])


def _looks_empty(watched: tuple[Collection, ...]) -> bool:
    """Return True if an Inbox is watched and no item was ever found."""
    for collection in watched:
        if collection.seen or collection.newest not in {None, EPOCH}:
            return False
    return any(collection.cls is CollectionClass.EMAIL for collection in watched)
