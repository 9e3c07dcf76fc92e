"""Settings, as far as it sends our device information to the server [MS-ASCMD 2.2.1.18]."""

from dataclasses import dataclass
from typing import ClassVar, Final

from eas_watcher.commands.device import DeviceInformation
from eas_watcher.commands.reading import read_root, read_status
from eas_watcher.commands.request import Command, HttpReply
from eas_watcher.commands.status import COMMON_FROM, OK, raise_for_status
from eas_watcher.errors import ProtocolViolation, ServerBusy
from eas_watcher.names import ProtocolVersion
from eas_watcher.wbxml.element import SETTINGS, Element
from eas_watcher.wbxml.encode import encode

SERVER_UNAVAILABLE: Final = 4


@dataclass(frozen=True, slots=True)
class InformDevice(Command[None]):
    """Send our device information; up to 14.0 this is the only way [MS-ASPROV 2.2.2.54]."""

    name: ClassVar[str] = "Settings"
    device: DeviceInformation

    def encode(self, version: ProtocolVersion) -> bytes:  # noqa: ARG002 -- alike in all versions
        """Write Settings with DeviceInformation."""
        return encode(SETTINGS("Settings", self.device.element()))

    def read(self, reply: HttpReply) -> None:
        """Check that the server accepts it; raises ServerBusy, ProtocolViolation, or what a common status means."""
        root = read_root(reply, "Settings", "Settings")
        _check(root)
        answer = root.find("DeviceInformation")
        if answer is not None:
            _check(answer)


def _check(element: Element) -> None:
    """Raise for a Status that is not 1 [MS-ASCMD 2.2.3.177.15]."""
    status = read_status(element)
    if status == OK:
        return
    if status == SERVER_UNAVAILABLE:
        raise ServerBusy("the server is unavailable (Settings status 4)")
    if status < COMMON_FROM:
        # 2 malformed, 3 access denied, 5 and 6 bad arguments, 7 denied by policy
        raise ProtocolViolation(f"the server refuses our device information (Settings status {status})")
    raise_for_status("Settings", status)
