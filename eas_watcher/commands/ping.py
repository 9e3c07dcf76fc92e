"""Ping: a request that the server holds until something changes [MS-ASCMD 2.2.1.13]."""

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import ClassVar, Final

from eas_watcher.commands.reading import is_empty, read_body, read_number, read_status
from eas_watcher.commands.request import Command, HttpReply
from eas_watcher.commands.status import COMMON_FROM, raise_for_status
from eas_watcher.errors import ServerBusy
from eas_watcher.names import CollectionClass, CollectionId, ProtocolVersion
from eas_watcher.values import by_slots
from eas_watcher.wbxml.element import PING, Element
from eas_watcher.wbxml.encode import PLACE, Template

KNOWN: Final = 256  # forms of a request that are kept; a fleet asks for a few sets of classes
SHORT: Final = 96  # octets of an answer that is kept: one that names a collection has some 30


class PingStatus(IntEnum):
    """Why the server ended a Ping [MS-ASCMD 2.2.3.177.11]."""

    EXPIRED = 1
    CHANGED = 2
    PARAMETERS_MISSING = 3
    SYNTAX = 4
    HEARTBEAT_OUT_OF_RANGE = 5
    TOO_MANY_FOLDERS = 6
    HIERARCHY_CHANGED = 7
    SERVER_ERROR = 8


@dataclass(frozen=True, slots=True)
class PingReply:
    """Why a Ping ended, and the values that come with some statuses."""

    status: PingStatus
    changed: tuple[CollectionId, ...] = ()
    """The collections to Sync, with CHANGED."""
    heartbeat: int | None = None
    """The nearest heartbeat interval allowed, in seconds, with HEARTBEAT_OUT_OF_RANGE."""
    max_folders: int | None = None
    """The most folders allowed in one Ping, with TOO_MANY_FOLDERS."""


@by_slots
@dataclass(frozen=True, slots=True)
class Ping(Command[PingReply]):
    """Ask for an answer as soon as some collections change, after `heartbeat` seconds at the latest.

    The body is always complete, because servers may keep stale values of earlier Pings [observed: SOGo 5.8, 2026-11].
    """

    name: ClassVar[str] = "Ping"
    carries_policy_key: ClassVar[bool] = False
    heartbeat: int
    collections: tuple[tuple[CollectionId, CollectionClass], ...]

    def encode(self, version: ProtocolVersion) -> bytes:  # noqa: ARG002 -- alike in all versions
        """Write heartbeat and folders, in this order; the other one is refused [observed: Z-Push 2.7.1, 2026-11]."""
        template = _template(tuple([cls for _, cls in self.collections]))
        return template.fill([str(self.heartbeat), *(id_ for id_, _ in self.collections)])

    def read(self, reply: HttpReply) -> PingReply:
        """Read why the Ping ended; raises ServerBusy for an unknown status, or what a common status means."""
        if is_empty(reply):
            # The server ends a Ping so when it received another one; a new, complete Ping is due [MS-ASCMD 2.2.1.13].
            return PingReply(PingStatus.PARAMETERS_MISSING)
        return _read_again(reply.body) if len(reply.body) <= SHORT else _read(reply.body)


def _read(body: bytes) -> PingReply:
    root = read_body(body, "Ping", "Ping")
    return PingReply(
        _read_status(root),
        _read_changed(root),
        read_number(root, "HeartbeatInterval"),
        read_number(root, "MaxFolders"),
    )


_read_again: Final = lru_cache(maxsize=KNOWN)(_read)
"""Reads a short answer, or finds it among those read lately: nearly all of a server are two, "the interval is over" and
"the Inbox has changed"."""


@lru_cache(maxsize=KNOWN)
def _template(classes: tuple[CollectionClass, ...]) -> Template:
    """Return the request for folders of these classes, without heartbeat and ids."""
    folders = (PING("Folder", PING("Id", PLACE), PING("Class", cls.wire)) for cls in classes)
    return Template(PING("Ping", PING("HeartbeatInterval", PLACE), PING("Folders", *folders)))


def _read_status(root: Element) -> PingStatus:
    status = read_status(root)
    if status >= COMMON_FROM:
        raise_for_status("Ping", status)
    try:
        return PingStatus(status)
    except ValueError:
        raise ServerBusy(f"Ping was answered with the unknown status {status}") from None


def _read_changed(root: Element) -> tuple[CollectionId, ...]:
    folders = root.find("Folders")
    if folders is None:
        return ()
    named = (folder.string for folder in folders.all("Folder"))
    return tuple(dict.fromkeys(CollectionId(name) for name in named if name))
