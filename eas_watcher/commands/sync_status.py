"""Own what a status of Sync asks for, of the whole answer or of one collection [MS-ASCMD 2.2.3.177.17]."""

from types import MappingProxyType
from typing import Final

from eas_watcher.commands.status import LONG, raise_for_status
from eas_watcher.errors import HierarchyChanged, RequestRefused, ServerBusy, StateLost, TooManyCollections

STALE_KEY: Final = 3
SERVER_ERROR: Final = 5
ITEMS: Final = frozenset({6, 7})  # of items that a client sends: no trouble for one that sends none
CANNOT_COMPLETE: Final = 9
TOO_MANY: Final = 15
RETRY: Final = 16

_HIERARCHY: Final = MappingProxyType({8: "a folder is not found", 12: "the folders have changed"})
_TRANSIENT: Final = MappingProxyType(
    {
        SERVER_ERROR: "the server cannot Sync now",
        6: "the server sees an item of ours that it cannot convert",
        7: "the server sees a conflict with a change of ours",
        13: "the server forgot the request that it takes ours for a repetition of",
        RETRY: "the server asks to repeat the Sync",
    }
)
_OURS: Final = MappingProxyType(
    {
        4: "the server calls our request malformed",
        14: "the server takes our request for one to be held, with a bad interval",
    }
)


def raise_for_sync(status: int, limit: int | None = None) -> None:
    """Raise the EasError that a failing status stands for; 1 is success and returns.

    `limit` is what the answer names with status 15. Raises StateLost, HierarchyChanged, ServerBusy, RequestRefused,
    TooManyCollections, or what a common status asks for.
    """
    said = f"(Sync status {status})"
    if status == STALE_KEY:
        raise StateLost(f"the server does not know our sync keys {said}")
    if status in _HIERARCHY:
        raise HierarchyChanged(f"{_HIERARCHY[status]} {said}")
    if status in _TRANSIENT:
        raise ServerBusy(f"{_TRANSIENT[status]} {said}", again=status == RETRY)
    if status == CANNOT_COMPLETE:
        raise ServerBusy(f"the server cannot complete the Sync, as with a full mailbox {said}", LONG)
    if status in _OURS:
        raise RequestRefused(f"{_OURS[status]} {said}")
    if status == TOO_MANY:
        raise TooManyCollections(f"one request names more folders than the server takes {said}", limit)
    raise_for_status("Sync", status)
