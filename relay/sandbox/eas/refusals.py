"""The refusals of the simulated EAS server: by HTTP status, or by a Status in the body of the answer.

A request that breaks the protocol is a fault of the client; the simulator records it as a complaint.
"""

from types import MappingProxyType
from typing import Final

from eas_watcher.names import ProtocolVersion
from eas_watcher.wbxml.element import AIRSYNC, FOLDERHIERARCHY, PING, PROVISION, SETTINGS, Element

ROOTS: Final = MappingProxyType(
    {
        "FolderSync": FOLDERHIERARCHY,
        "Ping": PING,
        "Provision": PROVISION,
        "Settings": SETTINGS,
        "Sync": AIRSYNC,
    }
)
"""Command -> builder of its code page, for the commands that the simulator serves."""

MALFORMED: Final = MappingProxyType({"FolderSync": 10, "Ping": 4, "Provision": 2, "Settings": 2, "Sync": 4})
"""Command -> its status for a request that breaks its rules [MS-ASCMD 2.2.3.177]."""

INVALID_WBXML, INVALID_XML, VERSION_NOT_SUPPORTED = 102, 103, 138
WIPE_REQUESTED, NOT_PROVISIONED, POLICY_REFRESH, INVALID_POLICY_KEY = 140, 142, 143, 144
DEVICE_BLOCKED, DEVICE_INFORMATION_REQUIRED = 129, 165

OLD_HTTP: Final = MappingProxyType(
    {101: 400, 102: 400, 103: 400, 126: 403, 129: 403, 130: 403, 138: 400, 140: 449, 141: 449}
    | dict.fromkeys((NOT_PROVISIONED, POLICY_REFRESH, INVALID_POLICY_KEY), 449)
    | {110: 500, 111: 503, 113: 507, 177: 403}
)
"""Common status -> the HTTP status that replaces it before 14.0 [MS-ASCMD 2.2.2]."""
COMMON_FROM: Final = 101


class Refused(Exception):
    """A request is refused; `fault` is True if the client broke the protocol."""

    def __init__(self, reason: str, *, fault: bool = True) -> None:
        super().__init__(reason)
        self.fault = fault


class RefusedByHttp(Refused):
    """A request is refused with an HTTP status and no body."""

    def __init__(self, status: int, reason: str, *, fault: bool = True) -> None:
        super().__init__(reason, fault=fault)
        self.status = status


class RefusedByStatus(Refused):
    """A request is refused with a Status in the document of its command."""

    def __init__(self, status: int, reason: str, *, fault: bool = True) -> None:
        super().__init__(reason, fault=fault)
        self.status = status


def status_document(command: str, status: int, *more: Element) -> Element:
    """Return an answer with a Status, followed by `more`; raises KeyError for a command that is not served."""
    page = ROOTS[command]
    return page(command, page("Status", str(status)), *more)


def refuse(command: str, refusal: RefusedByStatus, version: ProtocolVersion, *, by_http: bool = False) -> Element | int:
    """Return the document of a refusal, or its HTTP status: for a common status before 14.0 or with `by_http`."""
    if refusal.status >= COMMON_FROM and (by_http or version < ProtocolVersion.V14_0):
        return OLD_HTTP.get(refusal.status, 400)
    return status_document(command, refusal.status)


def check_children(element: Element, allowed: tuple[str, ...], page: str | None = None) -> None:
    """Raise MalformedRequest unless the children are among `allowed`, in that order, each at most once."""
    page = page or element.page
    position = 0
    for child in element.children:
        if child.page != page or child.tag not in allowed:
            raise MalformedRequest(f"{element.tag} may not hold {child.page}:{child.tag}")
        if allowed.index(child.tag) < position:
            raise MalformedRequest(f"{child.tag} stands at the wrong place in {element.tag}, or twice")
        position = allowed.index(child.tag) + 1


class MalformedRequest(Exception):
    """A body breaks the rules of its command; the answer has the status in MALFORMED."""
