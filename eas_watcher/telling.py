"""Own what a watch that works has to tell its operator: what was claimed to the server, and what looks odd."""

from typing import Final

from eas_watcher.changes import EPOCH
from eas_watcher.commands.provision import Acknowledgement
from eas_watcher.names import CollectionClass
from eas_watcher.progress import Collection, Condition, WatchState
from eas_watcher.states import Watch

SILENT: Final = 4 * 3600.0  # seconds of Pings; discovery of a device ends within 14 minutes [observed: Exchange 2010]
QUARANTINE: Final = "perhaps-quarantined"

_CLAIMS: Final = {
    Acknowledgement.APPLIED: "applied",
    Acknowledgement.PARTIAL: "applied in part",
    Acknowledgement.NOT_APPLIED: "not applied",
    Acknowledgement.THIRD_PARTY: "managed by others",
}


def healthy(watch: Watch) -> Condition:
    """Describe a watch whose Ping is about to be held; the reason is empty unless something looks odd.

    A quarantined device is answered as if all were well, but gets no items [observed: Exchange 2010 to 2019].
    """
    notes = []
    used = watch.partnership.acknowledged
    if used is not None:
        notes.append(f"the server's policy was acknowledged with {used.value} ({_CLAIMS[used]})")
    odd = watch.silent_for >= SILENT and _looks_empty(watch.watched)
    if odd:
        notes.append(
            "no item was ever shown, and nothing comes: if the mailbox is in use, look whether the server quarantines "
            "the device"
        )
    left_out = dict.fromkeys(c.cls.value for c in watch.wanted[len(watch.watched) :])
    if left_out:
        notes.append(f"no more than {watch.max_folders} folders fit into one Ping; not watched: {', '.join(left_out)}")
    return Condition(WatchState.WATCHING, QUARANTINE if odd else "", detail="; ".join(notes))


def _looks_empty(watched: tuple[Collection, ...]) -> bool:
    """Tell whether nothing was ever found where something is expected: in an Inbox."""
    mail = any(collection.cls is CollectionClass.EMAIL for collection in watched)
    return mail and not any(c.seen or c.newest not in {None, EPOCH} for c in watched)
