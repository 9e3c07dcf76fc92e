"""Own what a watch that works has to tell its operator: what was claimed to the server, and what looks odd."""

from collections import Counter
from typing import Final

from eas_watcher.commands.provision import Acknowledgement
from eas_watcher.machine.memory import Collection, Condition, WatchState
from eas_watcher.machine.state import Watch
from eas_watcher.machine.sync_reply import EPOCH
from eas_watcher.names import CollectionClass
from eas_watcher.reasons import Reason

SILENT: Final = 4 * 3600.0  # seconds of Pings; discovery of a device ends within 14 minutes [observed: Exchange 2010]
DISCOVERY_TAKES: Final = 15 * 60.0  # seconds of Pings; 14 minutes at most [observed: Exchange 2010]

_CLAIMS: Final = {
    Acknowledgement.APPLIED: "applied",
    Acknowledgement.PARTIAL: "applied in part",
    Acknowledgement.NOT_APPLIED: "not applied",
    Acknowledgement.THIRD_PARTY: "managed by others",
}


def healthy(watch: Watch) -> Condition:
    """Describe a watch whose Ping is about to be held; it has no reason unless something looks odd.

    A quarantined device, and a new one in discovery, is answered as if all were well, but gets no items [observed:
    Exchange 2010 to 2019].
    """
    notes = []
    used = watch.partnership.acknowledged
    if used is not None:
        notes.append(f"the server's policy was acknowledged with {used.value} ({_CLAIMS[used]})")
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
    aside = [c for c in watch.wanted if c.id in watch.set_aside]
    if aside:
        notes.append(f"the server does not sync {_name(aside)}")
    left_out = [c for c in watch.wanted if c not in watch.watched and c not in aside]
    if left_out:
        notes.append(f"no more than {watch.max_folders} folders fit into one Ping; not watched: {_name(left_out)}")
    return Condition(WatchState.WATCHING, reason, detail="; ".join(notes))


def _name(collections: list[Collection]) -> str:
    """Name folders: default ones by their class, sub-folders by their number, for their names are content."""
    subs = Counter(c.cls.value for c in collections if c.sub)
    names = [c.cls.value for c in collections if not c.sub]
    return ", ".join(names + [f"{number} sub-folder{'s'[: number > 1]} of {cls}" for cls, number in subs.items()])


def _looks_empty(watched: tuple[Collection, ...]) -> bool:
    """Tell whether nothing was ever found where something is expected: in an Inbox."""
    mail = any(collection.cls is CollectionClass.EMAIL for collection in watched)
    return mail and not any(c.seen or c.newest not in {None, EPOCH} for c in watched)
