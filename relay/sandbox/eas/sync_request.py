"""Reads a Sync request as strictly as the strictest server does [MS-ASCMD 2.2.1.21]."""

from datetime import timedelta
from types import MappingProxyType
from typing import Final, NamedTuple

from eas_watcher.commands.reading import read_number
from eas_watcher.names import NO_SYNC_KEY, CollectionClass, CollectionId, ProtocolVersion
from eas_watcher.wbxml.element import Element
from relay.sandbox.eas.refusals import MalformedRequest, check_children

COLLECTION: Final = (
    "Class",
    "SyncKey",
    "CollectionId",
    "Supported",
    "DeletesAsMoves",
    "GetChanges",
    "WindowSize",
    "ConversationMode",
    "Options",
)
"""The children of Collection in their order [MS-ASCMD 2.2.3.29.2]; the simulator accepts no Commands of clients."""
OPTIONS: Final = frozenset(
    {
        "FilterType",
        "Truncation",
        "Class",
        "BodyPreference",
        "BodyPartPreference",
        "Conflict",
        "MIMESupport",
        "MIMETruncation",
        "MaxItems",
    }
)
WINDOW: Final = 100  # items without a WindowSize
WINDOW_LIMIT: Final = 512  # items at most

AGES: Final = MappingProxyType(
    {number: timedelta(days=days) for number, days in enumerate((1, 3, 7, 14, 30, 90, 180), start=1)}
)
"""FilterType -> the greatest age of an item [MS-ASCMD 2.2.3.68.2]."""
FILTERS: Final = MappingProxyType(
    {
        CollectionClass.EMAIL: frozenset(range(6)),
        CollectionClass.CALENDAR: frozenset({0, 4, 5, 6, 7}),
        CollectionClass.TASKS: frozenset({0, 8}),
    }
)
"""Class -> its valid FilterTypes; contacts and notes have only 0."""


class CollectionQuery(NamedTuple):
    """The request for one collection."""

    id: CollectionId
    key: str
    window: int
    filter_type: int
    changes: bool
    """Whether the client asks for changes (GetChanges)."""


def read_sync(root: Element, version: ProtocolVersion) -> tuple[CollectionQuery, ...]:
    """Return the requested collections; raises MalformedRequest, and ProtocolViolation for an invalid number."""
    check_children(root, ("Collections", "WindowSize"))
    collections = root.find("Collections")
    if collections is None or not collections.children:
        raise MalformedRequest("Sync without Collections")
    if any(child.tag != "Collection" for child in collections.children):
        raise MalformedRequest("Collections may hold nothing but Collection")
    queries = tuple(_read_collection(child, version) for child in collections.children)
    if len({query.id for query in queries}) < len(queries):
        raise MalformedRequest("a collection is named twice")
    return queries


def check_filter(query: CollectionQuery, cls: CollectionClass) -> None:
    """Raise MalformedRequest unless the FilterType is valid for the class."""
    if query.filter_type not in FILTERS.get(cls, frozenset({0})):
        raise MalformedRequest(f"FilterType {query.filter_type} of a collection of {cls.value}")


def _read_collection(element: Element, version: ProtocolVersion) -> CollectionQuery:
    check_children(element, COLLECTION)
    if version >= ProtocolVersion.V14_0 and element.find("Class") is not None:
        raise MalformedRequest("from 14.0 on Class stands within Options")
    key, id_ = element.find("SyncKey"), element.find("CollectionId")
    if key is None or not key.string or id_ is None or not id_.string:
        raise MalformedRequest("a Collection without SyncKey and CollectionId")
    changes = _read_changes(element.find("GetChanges"), key.string)
    window = read_number(element, "WindowSize")
    if window is None:
        window = WINDOW
    elif not 0 < window <= WINDOW_LIMIT:
        window = WINDOW_LIMIT  # [MS-ASCMD 2.2.3.199.2]
    options = element.find("Options")
    return CollectionQuery(CollectionId(id_.string), key.string, window, _read_filter(options), changes)


def _read_changes(element: Element | None, key: str) -> bool:
    """Return GetChanges: an empty one means yes, and with key "0" it must not be yes [MS-ASCMD 2.2.3.84]."""
    if element is None:
        return key != NO_SYNC_KEY
    if element.string not in {"", "0", "1"}:
        raise MalformedRequest("GetChanges is 0 or 1")
    changes = element.string != "0"
    if changes and key == NO_SYNC_KEY:
        raise MalformedRequest("GetChanges with the key 0")
    return changes


def _read_filter(options: Element | None) -> int:
    if options is None:
        return 0
    for child in options.children:
        if child.tag not in OPTIONS:
            raise MalformedRequest(f"Options may not hold {child.tag}")
    return read_number(options, "FilterType") or 0
