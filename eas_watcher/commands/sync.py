"""Sync: the changes of some collections since their sync keys, with the least content [MS-ASCMD 2.2.1.21].

Of an item only three properties are read: its ServerId, whether it is read, and when it was received.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import ClassVar, Final

from eas_watcher.commands.reading import (
    is_empty,
    read_identifier,
    read_number,
    read_root,
    read_status,
    require_identifier,
)
from eas_watcher.commands.request import LARGE, Command, HttpReply
from eas_watcher.commands.status import LONG, OK, raise_for_status
from eas_watcher.errors import (
    HierarchyChanged,
    ProtocolViolation,
    RequestRefused,
    ServerBusy,
    StateLost,
    TooManyCollections,
)
from eas_watcher.names import NO_SYNC_KEY, CollectionClass, CollectionId, ProtocolVersion, ServerId, SyncKey
from eas_watcher.values import by_slots
from eas_watcher.wbxml.element import AIRSYNC, AIRSYNCBASE, Element
from eas_watcher.wbxml.encode import PLACE, Template

WINDOW_SIZE: Final = 25
"""Items per answer, which may have 8 MiB; some servers send 222 kB of each unasked [observed: SOGo 5.8, 2026-11]."""

KNOWN: Final = 256  # forms of a request that are kept; a fleet asks for a few sets of classes

FILTER_TYPES: Final = MappingProxyType(
    {
        CollectionClass.EMAIL: 3,  # one week: a relay that was down over a long weekend must still see every mail
        CollectionClass.CALENDAR: 4,  # two weeks, the shortest there is
        CollectionClass.TASKS: 8,  # incomplete tasks
    }
)
"""Class -> FilterType [MS-ASCMD 2.2.3.68.2]; contacts and notes cannot be filtered by age."""

STALE_KEY: Final = 3
SERVER_ERROR: Final = 5
ITEMS: Final = frozenset({6, 7})  # about items that a client sends: harmless for a relay, which sends none
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


@by_slots
@dataclass(frozen=True, slots=True)
class CollectionRequest:
    """A collection to Sync; key "0" primes it: the answer has the first key and no items."""

    id: CollectionId
    cls: CollectionClass
    sync_key: SyncKey


@by_slots
@dataclass(frozen=True, slots=True)
class Add:
    """What is kept of an item that is new in the collection, or newly passes its filter."""

    server_id: ServerId
    read: bool | None = None
    """None: the server did not say; only mails have this property."""
    received: datetime | None = None
    """Aware UTC; None: the server did not say, or the date cannot be read."""


@by_slots
@dataclass(frozen=True, slots=True)
class CollectionReply:
    """What an answer says about one collection."""

    id: CollectionId
    status: int
    """1 is success. Other values raise nothing here, because other collections of the answer may have succeeded."""
    sync_key: SyncKey | None
    more_available: bool
    has_commands: bool
    adds: tuple[Add, ...] = ()


@by_slots
@dataclass(frozen=True, slots=True)
class SyncReply:
    """An answer; collections without changes may be missing from it."""

    empty: bool
    """True if the body was empty: nothing changed, and all sync keys stay valid."""
    collections: tuple[CollectionReply, ...] = ()


@by_slots
@dataclass(frozen=True, slots=True)
class Sync(Command[SyncReply]):
    """Ask for the changes of some collections, or for their first keys."""

    name: ClassVar[str] = "Sync"
    largest: ClassVar[int] = LARGE
    collections: tuple[CollectionRequest, ...]

    def encode(self, version: ProtocolVersion) -> bytes:
        """Write the collections; the order of elements matters [MS-ASCMD 2.2.3.29.2]."""
        shapes = tuple([(each.cls, each.sync_key == NO_SYNC_KEY) for each in self.collections])
        texts = [text for each in self.collections for text in (each.sync_key, each.id)]
        return _template(shapes, version).fill(texts)

    def read(self, reply: HttpReply) -> SyncReply:
        """Read the changes, without the content of the items.

        A failing Status of the whole answer raises what `raise_for_sync` says.
        """
        if is_empty(reply):
            return SyncReply(empty=True)
        root = read_root(reply, "AirSync", "Sync", sparse=True)
        status = read_number(root, "Status")
        if status is not None:
            raise_for_sync(status, read_number(root, "Limit"))
        collections = root.find("Collections")
        found = () if collections is None else collections.all("Collection")
        return SyncReply(empty=False, collections=tuple(map(_read_collection, found)))


def raise_for_sync(status: int, limit: int | None = None) -> None:
    """Raise the EasError that a failing status means; 1 is success and returns.

    `limit` is the number that the answer gives with status 15. Raises StateLost, HierarchyChanged, ServerBusy,
    RequestRefused, TooManyCollections, or what a common status means.
    """
    if status == OK:
        return
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


@lru_cache(maxsize=KNOWN)
def _template(shapes: tuple[tuple[CollectionClass, bool], ...], version: ProtocolVersion) -> Template:
    """Return the request for collections by their classes, and whether they are primed, without keys and ids."""
    collections = (_write_collection(cls, version, primes=primes) for cls, primes in shapes)
    return Template(AIRSYNC("Sync", AIRSYNC("Collections", *collections)))


def _write_collection(cls: CollectionClass, version: ProtocolVersion, *, primes: bool) -> Element:
    """Write Class, SyncKey, CollectionId, GetChanges, WindowSize, Options, in this order [MS-ASCMD 2.2.3.29.2]."""
    parts = [AIRSYNC("SyncKey", PLACE), AIRSYNC("CollectionId", PLACE)]
    old = version <= ProtocolVersion.V12_1
    if old:
        # Later versions allow Class only within Options [MS-ASCMD 2.2.3.27.5].
        parts.insert(0, AIRSYNC("Class", cls.wire))
    if primes:
        # To prime with GetChanges is malformed; with Options it is slow [MS-ASCMD 2.2.3.84].
        return AIRSYNC("Collection", *parts)
    if old:
        parts.append(AIRSYNC("GetChanges"))  # later versions imply it [MS-ASCMD 2.2.3.84]
    parts += [AIRSYNC("WindowSize", str(WINDOW_SIZE)), _write_options(cls)]
    return AIRSYNC("Collection", *parts)


def _write_options(cls: CollectionClass) -> Element:
    """Ask for the least content, every time: a single Sync without it brings all content [observed: SOGo 5.8, 2026-11].

    The older Truncation concerns the bodies of version 2.5 only [MS-ASCMD 2.2.3.185].
    """
    options: list[Element] = []
    if cls in FILTER_TYPES:
        options.append(AIRSYNC("FilterType", str(FILTER_TYPES[cls])))
    if cls is CollectionClass.EMAIL:
        # MIMETruncation 0 keeps bodies out, in combination with a BodyPreference [observed: SOGo 5.8, 2026-11].
        options += [AIRSYNC("MIMESupport", "0"), AIRSYNC("MIMETruncation", "0")]
    # One byte of plain text; some servers read a TruncationSize of 0 as no limit.
    options.append(AIRSYNCBASE("BodyPreference", AIRSYNCBASE("Type", "1"), AIRSYNCBASE("TruncationSize", "1")))
    return AIRSYNC("Options", *options)


def _read_collection(element: Element) -> CollectionReply:
    commands = element.find("Commands")
    return CollectionReply(
        id=CollectionId(require_identifier(element, "CollectionId")),
        status=read_status(element),
        sync_key=_read_key(element),
        more_available=element.find("MoreAvailable") is not None,
        has_commands=commands is not None and bool(commands.children),
        adds=() if commands is None else tuple(map(_read_add, commands.all("Add"))),
    )


def _read_key(element: Element) -> SyncKey | None:
    key = read_identifier(element, "SyncKey")
    return None if key is None else SyncKey(key)


def _read_add(element: Element) -> Add:
    server_id = ServerId(require_identifier(element, "ServerId"))
    data = element.find("ApplicationData")
    if data is None:
        return Add(server_id)
    return Add(server_id, _read_flag(data.find("Read", "Email")), _read_moment(data.find("DateReceived", "Email")))


def _read_flag(element: Element | None) -> bool | None:
    return None if element is None else {"0": False, "1": True}.get(element.string.strip())


def _read_moment(element: Element | None) -> datetime | None:
    """Read a date such as 2025-03-04T05:06:07.000Z [MS-ASDTYPE 2.3]; one without a zone is UTC."""
    if element is None:
        return None
    try:
        moment = datetime.fromisoformat(element.string.strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError, ProtocolViolation):
        return None
