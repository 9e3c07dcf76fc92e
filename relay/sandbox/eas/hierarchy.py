"""FolderSync and Settings of the simulated server [MS-ASCMD 2.2.1.6, 2.2.1.18]."""

from collections.abc import Mapping
from typing import Final

from eas_watcher.names import NO_SYNC_KEY, CollectionId, ProtocolVersion, SyncKey
from eas_watcher.wbxml.element import FOLDERHIERARCHY, SETTINGS, Element
from relay.sandbox.eas.devices import Checkpoint, KeyHistory
from relay.sandbox.eas.mailboxes import NOTES, SimulatedFolder
from relay.sandbox.eas.refusals import MalformedRequest, RefusedByStatus, check_children, status_document
from relay.sandbox.eas.rules import Session

STALE_KEY: Final = 9
DEVICE_TAGS: Final = frozenset(
    {
        "Model",
        "IMEI",
        "FriendlyName",
        "OS",
        "OSLanguage",
        "PhoneNumber",
        "UserAgent",
        "EnableOutboundSMS",
        "MobileOperator",
    }
)
TEXT_LIMIT: Final = 1024  # characters of a device property [MS-ASCMD 2.2.3.45]


def answer_folder_sync(root: Element, session: Session) -> Element:
    """Return the folders that changed since the key of the request; raises RefusedByStatus for an invalid key."""
    check_children(root, ("SyncKey",))
    key = root.find("SyncKey")
    if key is None or not key.string:
        raise MalformedRequest("FolderSync without a SyncKey")
    now = dict(visible_folders(session))
    if key.string == NO_SYNC_KEY:
        first: Checkpoint[CollectionId, SimulatedFolder] = Checkpoint(session.mint.sync_key(), now)
        session.device.hierarchy, session.device.lost = KeyHistory(first), False
        if session.rules.personality.restart_voids_keys and session.device.collections:
            session.device.collections.clear()
            session.device.lost = True  # the client cannot know that its Sync keys are invalid now
        return _write({}, now, first.key)
    history = session.device.hierarchy
    known = None if history is None else history.accept(key.string)
    if history is None or known is None:
        raise RefusedByStatus(STALE_KEY, "a hierarchy key that is not valid", fault=not session.device.lost)
    if known.known != now:
        history.advance(session.mint.sync_key(), now)
    return _write(known.known, now, history.newest.key)


def visible_folders(session: Session) -> Mapping[CollectionId, SimulatedFolder]:
    """Return the folders that the protocol version of a session has now; notes exist since 14.0."""
    reachable = session.mailbox.reachable_folders
    if session.version >= ProtocolVersion.V14_0:
        return reachable
    return {id_: folder for id_, folder in reachable.items() if folder.type != NOTES}


def hierarchy_changed(session: Session) -> bool:
    """Return whether folders changed since the newest key of the hierarchy, or the device has no key."""
    history = session.device.hierarchy
    return history is None or history.newest.known != visible_folders(session)


def answer_settings(root: Element, session: Session) -> Element:
    """Accept the DeviceInformation, the only setting that the simulator knows."""
    check_children(root, ("DeviceInformation",))
    device = root.find("DeviceInformation")
    if device is None:
        raise MalformedRequest("Settings that set nothing")
    read_device(device)
    session.device.informed = True
    return status_document("Settings", 1, SETTINGS("DeviceInformation", SETTINGS("Status", "1")))


def read_device(element: Element) -> None:
    """Check a Settings:DeviceInformation; raises MalformedRequest, e.g. if it has no model [MS-ASCMD 2.2.3.45]."""
    check_children(element, ("Set",))
    properties = element.find("Set")
    model = None if properties is None else properties.find("Model")
    if properties is None or model is None or not model.string:
        raise MalformedRequest("DeviceInformation without a Model")
    for each in properties.children:
        if each.tag not in DEVICE_TAGS or len(each.string) > TEXT_LIMIT:
            raise MalformedRequest(f"DeviceInformation with an unknown or overlong {each.tag}")


def _write(
    known: Mapping[CollectionId, SimulatedFolder], now: Mapping[CollectionId, SimulatedFolder], key: SyncKey
) -> Element:
    changes = [_write_folder("Add", folder) for id_, folder in now.items() if id_ not in known]
    changes += [_write_folder("Update", f) for id_, f in now.items() if id_ in known and known[id_] != f]
    changes += [FOLDERHIERARCHY("Delete", FOLDERHIERARCHY("ServerId", id_)) for id_ in known if id_ not in now]
    count = FOLDERHIERARCHY("Count", str(len(changes)))
    return status_document(
        "FolderSync",
        1,
        FOLDERHIERARCHY("SyncKey", key),
        FOLDERHIERARCHY("Changes", count, *changes),
    )


def _write_folder(tag: str, folder: SimulatedFolder) -> Element:
    return FOLDERHIERARCHY(
        tag,
        FOLDERHIERARCHY("ServerId", folder.id),
        FOLDERHIERARCHY("ParentId", folder.parent),
        FOLDERHIERARCHY("DisplayName", folder.name),
        FOLDERHIERARCHY("Type", str(folder.type)),
    )
