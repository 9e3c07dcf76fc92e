"""The Ping of the simulated server: reads its parameters, and answers it if there is a change [MS-ASCMD 2.2.1.13]."""

from functools import lru_cache
from typing import Final, NamedTuple

from eas_watcher.commands.ping import PingStatus
from eas_watcher.commands.reading import read_number
from eas_watcher.names import CollectionClass, CollectionId
from eas_watcher.wbxml.element import PING, Element
from eas_watcher.wbxml.encode import encode
from relay.sandbox.eas.devices import PingParameters
from relay.sandbox.eas.hierarchy import hierarchy_changed
from relay.sandbox.eas.provision import policy_due
from relay.sandbox.eas.refusals import (
    DEVICE_BLOCKED,
    MalformedRequest,
    RefusedByStatus,
    check_children,
    status_document,
)
from relay.sandbox.eas.rules import Session
from relay.sandbox.eas.sync import has_changes

CLASSES: Final = {cls.wire: cls for cls in CollectionClass}
ANSWERS_KEPT: Final = 256  # statuses with the ids of a folder: the mailboxes of a server have alike ids
REQUESTS_KEPT: Final = 256  # heartbeats with folders: a fleet asks for few


class PingAnswer(NamedTuple):
    """The status that ends a Ping, and its document."""

    status: PingStatus
    document: Element


@lru_cache(ANSWERS_KEPT)
def write_ping(status: PingStatus, *more: Element) -> PingAnswer:
    """Return the answer with a status and the elements `more`."""
    return PingAnswer(status, status_document("Ping", status, *more))


def write_limit(nearest: int | None) -> PingAnswer:
    """Return the answer to a heartbeat out of range; it names the `nearest` allowed one in seconds, unless None."""
    limit = () if nearest is None else (PING("HeartbeatInterval", str(nearest)),)
    return write_ping(PingStatus.HEARTBEAT_OUT_OF_RANGE, *limit)


def read_ping(root: Element | None, session: Session) -> PingParameters | PingAnswer:
    """Return the parameters of a Ping, completed from the last Ping of the device, or the answer to wrong ones."""
    cached = session.device.ping
    heartbeat, folders = (None, None) if root is None else _read_parameters(root)
    if heartbeat is None and cached is not None:
        heartbeat = cached.heartbeat
    if folders is None and cached is not None:
        folders = cached.folders
    if heartbeat is None or folders is None:
        session.complain("a Ping without parameters, and none are kept")
        return write_ping(PingStatus.PARAMETERS_MISSING)
    rules = session.rules
    if heartbeat < rules.heartbeat_minimum and rules.personality.raises_short:
        heartbeat = rules.heartbeat_minimum
    limit = None
    if not rules.heartbeat_minimum <= heartbeat <= rules.heartbeat_maximum:
        nearest = min(max(heartbeat, rules.heartbeat_minimum), rules.heartbeat_maximum)
        if not rules.personality.late_limit:
            return write_limit(nearest if nearest < heartbeat or rules.personality.names_minimum else None)
        limit = nearest
    if len(folders) > rules.max_folders:
        return write_ping(PingStatus.TOO_MANY_FOLDERS, PING("MaxFolders", str(rules.max_folders)))
    session.device.ping = PingParameters(heartbeat, folders, limit)
    _complain(session, folders)
    return session.device.ping


def answer_ping(parameters: PingParameters, session: Session) -> PingAnswer | None:
    """Return the answer that a Ping gets now; None: the server holds it. Raises RefusedByStatus."""
    if session.device.blocked:
        raise RefusedByStatus(DEVICE_BLOCKED, "the device is blocked", fault=False)
    personality, reachable = session.rules.personality, session.mailbox.reachable_folders
    if personality.reports_folders and (
        hierarchy_changed(session) or any(id_ not in reachable for id_, _ in parameters.folders)
    ):
        return write_ping(PingStatus.HIERARCHY_CHANGED)
    if personality.policy_ends_ping and policy_due(session):
        return write_ping(PingStatus.HIERARCHY_CHANGED)
    changed = [id_ for id_, cls in parameters.folders if _is_changed(id_, cls, session)]
    if not changed:
        return None
    session.device.changes_reported += 1
    if personality.changed_limit is not None and session.device.changes_reported > personality.changed_limit:
        return write_ping(PingStatus.HIERARCHY_CHANGED)
    return write_ping(PingStatus.CHANGED, PING("Folders", *(PING("Folder", id_) for id_ in changed)))


def _is_changed(id_: CollectionId, cls: CollectionClass, session: Session) -> bool:
    """Return whether a Ping reports a folder as changed; never one of another class than the Ping says.

    The server does not know the items of a client that never synced: all items of the folder are changes
    [observed: Z-Push 2.7.1, 2026-11], or none is [observed: SOGo 5.8, 2026-11].
    """
    folder = session.mailbox.reachable_folders.get(id_)
    if folder is None or folder.cls is not cls or session.device.quarantined:
        return False
    synced = session.device.collections.get(id_)
    if synced is None:
        return not session.rules.personality.deaf
    return has_changes(folder, synced, session)


def _complain(session: Session, folders: tuple[tuple[CollectionId, CollectionClass], ...]) -> None:
    """Record the faults of a client that the answer does not show."""
    for id_, cls in folders:
        folder = session.mailbox.folders.get(id_)
        if folder is not None and folder.cls is not cls:
            session.complain("a Ping names a collection with another class than it has")
        if folder is not None and id_ not in session.device.collections and not session.device.lost:
            session.complain("a Ping on a collection that was never synced")


encode_ping: Final = lru_cache(ANSWERS_KEPT)(encode)
"""Writes the document of an answer in WBXML."""


@lru_cache(REQUESTS_KEPT)
def _read_parameters(root: Element) -> tuple[int | None, tuple[tuple[CollectionId, CollectionClass], ...] | None]:
    """Return heartbeat and folders, None where they are missing; raises MalformedRequest, ProtocolViolation."""
    check_children(root, ("HeartbeatInterval", "Folders"))
    return read_number(root, "HeartbeatInterval"), _read_folders(root)


def _read_folders(root: Element) -> tuple[tuple[CollectionId, CollectionClass], ...] | None:
    element = root.find("Folders")
    if element is None:
        return None
    folders: dict[CollectionId, CollectionClass] = {}
    for folder in element.children:
        if folder.tag != "Folder":
            raise MalformedRequest("Folders may hold nothing but Folder")
        check_children(folder, ("Id", "Class"))
        id_, cls = folder.find("Id"), folder.find("Class")
        if id_ is None or not id_.string or cls is None or cls.string not in CLASSES:
            raise MalformedRequest("a Folder has an Id and one of five classes")
        if id_.string in folders:
            raise MalformedRequest("a folder is named twice")
        folders[CollectionId(id_.string)] = CLASSES[cls.string]
    if not folders:
        raise MalformedRequest("Folders without a Folder")
    return tuple(folders.items())
