"""Own how the simulated EAS server refuses: by HTTP status, or by a Status in the answer's body.

A refusal for the form of a request is a fault of the client; the simulator keeps those for its owner to read.
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
"""Command -> builder of its page; the commands that the simulator serves."""

MALFORMED: Final = MappingProxyType({"FolderSync": 10, "Ping": 4, "Provision": 2, "Settings": 2, "Sync": 4})
"""Command -> its own status for a request that breaks its rules [MS-ASCMD 2.2.3.177]."""

INVALID_WBXML, INVALID_XML, VERSION_NOT_SUPPORTED = 102, 103, 138
WIPE_REQUESTED, NOT_PROVISIONED, POLICY_REFRESH, INVALID_POLICY_KEY = 140, 142, 143, 144
DEVICE_BLOCKED, DEVICE_INFORMATION_REQUIRED = 129, 165

OLD_HTTP: Final = MappingProxyType(
    {101: 400, 102: 400, 103: 400, 126: 403, 129: 403, 130: 403, 138: 400, 140: 449, 141: 449}
    | dict.fromkeys((NOT_PROVISIONED, POLICY_REFRESH, INVALID_POLICY_KEY), 449)
    | {110: 500, 111: 503, 113: 507, 177: 403}
)
"""Common status -> the HTTP status that says it before 14.0 [MS-ASCMD 2.2.2]."""
COMMON_FROM: Final = 101


class Refused(Exception):
    """Tell that a request is refused; `fault` says whether its form broke the protocol."""

    def __init__(self, reason: str, *, fault: bool = True) -> None:
        super().__init__(reason)
        self.fault = fault


class RefusedByHttp(Refused):
    """Tell that a request is refused with an HTTP status and no body."""

    def __init__(self, status: int, reason: str, *, fault: bool = True) -> None:
        super().__init__(reason, fault=fault)
        self.status = status


class RefusedByStatus(Refused):
    """Tell that a request is refused with a Status in the command's own document."""

    def __init__(self, status: int, reason: str, *, fault: bool = True) -> None:
        super().__init__(reason, fault=fault)
        self.status = status


def status_document(command: str, status: int, *more: Element) -> Element:
    """Build an answer of nothing but a Status, and `more` after it; raises KeyError for a command not served."""
    page = ROOTS[command]
    return page(command, page("Status", str(status)), *more)


def refuse(command: str, refusal: RefusedByStatus, version: ProtocolVersion, *, by_http: bool = False) -> Element | int:
    """Tell how a status is said: as a document, or as an HTTP status for common ones before 14.0, or `by_http`."""
    if refusal.status >= COMMON_FROM and (by_http or version < ProtocolVersion.V14_0):
        return OLD_HTTP.get(refusal.status, 400)
    return status_document(command, refusal.status)


def check_children(element: Element, allowed: tuple[str, ...], page: str | None = None) -> None:
    """Check that the children are among `allowed`, in that order, each once; raises MalformedRequest."""
    page = page or element.page
    position = 0
    for child in element.children:
        if child.page != page or child.tag not in allowed:
            raise MalformedRequest(f"{element.tag} may not hold {child.page}:{child.tag}")
        if allowed.index(child.tag) < position:
            raise MalformedRequest(f"{child.tag} stands at the wrong place in {element.tag}, or twice")
        position = allowed.index(child.tag) + 1


class MalformedRequest(Exception):
    """Tell that a body breaks the rules of its command, which has a status of its own for that."""
