"""The answers that are rehearsed: every status of the protocol, and failures without an answer."""

from typing import Final

from eas_watcher.commands.request import HttpReply
from eas_watcher.commands.status import COMMON
from eas_watcher.errors import ServerRenewed, Unauthorized, Unreachable
from eas_watcher.tools.statuses.rehearsal import CALENDAR, ELSEWHERE, INBOX, Case, first_key, wbxml
from eas_watcher.wbxml.element import AIRSYNC, FOLDERHIERARCHY, PING, PROVISION, SETTINGS, Element

HTTP: Final = (
    *(301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 407, 408, 409, 413, 429, 440, 441, 449, 451, 456, 457),
    *(500, 501, 502, 503, 504, 505, 507),
)
SYNC: Final = (3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16)
ITEM_STATUSES: Final = (6, 7)
FOLDER_SYNC: Final = (6, 8, 9, 10, 11, 12)
SETTINGS_STATUSES: Final = (2, 3, 4, 5, 6, 7)
EMPTY: Final = HttpReply(200, {}, b"")


def http() -> dict[str, Case]:
    """Return HTTP statuses, as answers to a Sync, and answers that are not WBXML [MS-ASHTTP 2.2.2.1.1]."""
    cases = {str(status): Case("Sync", HttpReply(status, {}, b"")) for status in HTTP}
    retry = HttpReply(503, {"retry-after": "90"}, b"")
    throttled = HttpReply(503, {"x-ms-asthrottle": "CommandFrequency"}, b"")
    wipe = wbxml(AIRSYNC("Sync", AIRSYNC("Status", "140")))
    known = Unauthorized("the server refuses the credential, but accepts others", others_accepted=True)
    return cases | {
        "401 while another mailbox is accepted": Case("Sync", known),
        "403 with status 140 in its body": Case("Sync", HttpReply(403, wipe.headers, wipe.body)),
        "451 to an allowed host": Case("Sync", HttpReply(451, {"x-ms-location": ELSEWHERE}, b"")),
        "451 to another host": Case("Sync", HttpReply(451, {"x-ms-location": "https://cloud.example.net/"}, b"")),
        "503 with Retry-After: 90": Case("Sync", retry),
        "503 with X-MS-ASThrottle": Case("Sync", throttled),
        "408, 502, 504 or 524 to a Ping held for 300 s": Case("Ping", HttpReply(504, {}, b""), 300.0),
        "200, a web page": Case("Sync", HttpReply(200, {"content-type": "text/html"}, b"<html>")),
        "200, not WBXML": Case("Sync", HttpReply(200, {}, b"\x00")),
        "200, empty, to a Sync": Case("Sync", EMPTY, meaning="nothing has changed"),
        "200, empty, to a Ping": Case("Ping", EMPTY),
        "200, empty, to a FolderSync": Case("FolderSync", EMPTY),
        "200, empty, to a Provision": Case("Provision", EMPTY),
        "any with X-MS-RP": Case("Sync", ServerRenewed("the server says that what it offers has changed (X-MS-RP)")),
    }


def network() -> dict[str, Case]:
    """Return failures of connections."""
    return {
        "refused": Case("Sync", Unreachable("cannot connect", reached=False)),
        "reset, or no answer in time": Case("Sync", Unreachable("the connection was lost")),
        "Ping cut within 30 s": Case("Ping", Unreachable("the connection was lost", 10.0)),
        "Ping cut after 300 s": Case("Ping", Unreachable("the connection was lost", 300.0)),
    }


def sync() -> dict[str, Case]:
    """Return the statuses of Sync for the whole request [MS-ASCMD 2.2.3.177.17]."""
    cases = {str(status): Case("Sync", wbxml(AIRSYNC("Sync", AIRSYNC("Status", str(status))))) for status in SYNC}
    limit = wbxml(AIRSYNC("Sync", AIRSYNC("Status", "15"), AIRSYNC("Limit", "1")))
    return cases | {"15 with a Limit": Case("Sync", limit)}


def sync_of_one() -> dict[str, Case]:
    """Return the statuses of Sync for one folder while the other has an answer [MS-ASCMD 2.2.3.177.17]."""
    cases = {str(status): Case("Sync", _partly(status)) for status in SYNC}
    taken = {f"{n} with a new key": Case("Sync", _partly(n, key=True), meaning="taken for 1") for n in ITEM_STATUSES}
    return cases | taken


def folder_sync() -> dict[str, Case]:
    """Return the statuses of FolderSync [MS-ASCMD 2.2.3.177.4]."""
    return {
        str(status): Case("FolderSync", wbxml(FOLDERHIERARCHY("FolderSync", FOLDERHIERARCHY("Status", str(status)))))
        for status in FOLDER_SYNC
    }


def ping() -> dict[str, Case]:
    """Return the statuses of Ping [MS-ASCMD 2.2.3.177.11]."""
    return {
        "1 after the whole heartbeat": Case("Ping", _ping(1), 600.0, "nothing has changed"),
        "1 at once": Case("Ping", _ping(1), 1.0, "nothing has changed"),
        "2": Case("Ping", _ping(2, PING("Folders", PING("Folder", INBOX.id))), 20.0, "folders have changed"),
        "2 at once": Case("Ping", _ping(2), 1.0, "folders have changed"),
        "3": Case("Ping", _ping(3)),
        "4": Case("Ping", _ping(4), meaning="the server calls our Ping malformed"),
        "5": Case("Ping", _ping(5, PING("HeartbeatInterval", "480")), meaning="the heartbeat interval is out of range"),
        "6": Case("Ping", _ping(6, PING("MaxFolders", "1")), meaning="too many folders"),
        "7": Case("Ping", _ping(7), 20.0, "the folders have changed"),
        "8": Case("Ping", _ping(8)),
        "any other below 101": Case("Ping", _ping(99)),
    }


def provision() -> dict[str, Case]:
    """Return the statuses of Provision, and the wipes [MS-ASPROV 2.2.2.54.2]."""
    statuses = {
        str(status): Case("Provision", wbxml(PROVISION("Provision", PROVISION("Status", str(status)))))
        for status in (2, 3, 139, 141, 145, 165)
    }
    wipes = {
        tag: Case("Provision", wbxml(PROVISION("Provision", PROVISION("Status", "1"), PROVISION(tag))))
        for tag in ("RemoteWipe", "AccountOnlyRemoteWipe")
    }
    return statuses | wipes


def policy() -> dict[str, Case]:
    """Return the statuses of Provision for the policy [MS-ASPROV 2.2.2.54.3]."""
    cases = {str(status): Case("Provision", _policy(status)) for status in (2, 3, 4, 5)}
    return cases | {"2": Case("Provision", _policy(2), meaning="there is no policy for us")}


def settings() -> dict[str, Case]:
    """Return the statuses of Settings, which carries our DeviceInformation [MS-ASCMD 2.2.3.177.15]."""
    return {
        str(status): Case("Settings", wbxml(SETTINGS("Settings", SETTINGS("Status", str(status)))))
        for status in SETTINGS_STATUSES
    }


def common() -> dict[str, Case]:
    """Return the statuses that all commands share, as answers to a Sync [MS-ASCMD 2.2.2]."""
    return {
        str(status): Case("Sync", wbxml(AIRSYNC("Sync", AIRSYNC("Status", str(status))))) for status in sorted(COMMON)
    }


def _ping(status: int, *parts: Element) -> HttpReply:
    return wbxml(PING("Ping", PING("Status", str(status)), *parts))


def _policy(status: int) -> HttpReply:
    policy = PROVISION("Policy", PROVISION("Status", str(status)))
    return wbxml(PROVISION("Provision", PROVISION("Status", "1"), PROVISION("Policies", policy)))


def _partly(status: int, *, key: bool = False) -> HttpReply:
    """Return an answer that is good for the calendar and bad for the Inbox."""
    said = [AIRSYNC("CollectionId", INBOX.id), AIRSYNC("Status", str(status))]
    if key:
        said.insert(0, AIRSYNC("SyncKey", "k9"))
    return wbxml(AIRSYNC("Sync", AIRSYNC("Collections", AIRSYNC("Collection", *said), first_key(CALENDAR.id, 9))))
