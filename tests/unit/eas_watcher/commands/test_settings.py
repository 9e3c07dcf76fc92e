import pytest

from eas_watcher.commands.device import DeviceInformation
from eas_watcher.commands.request import HttpReply
from eas_watcher.commands.settings import InformDevice
from eas_watcher.errors import EasError, NotProvisioned, ProtocolViolation, ServerBusy
from eas_watcher.names import ProtocolVersion
from eas_watcher.wbxml.element import SETTINGS, Element
from eas_watcher.wbxml.encode import encode
from tests.unit.eas_watcher.wbxml.vectors import body_of

INFORM = InformDevice(DeviceInformation("m", "f", "o", "u"))


def read(*content: Element) -> None:
    INFORM.read(HttpReply(200, {}, encode(SETTINGS("Settings", *content))))


def test_sets_the_device_information() -> None:
    assert INFORM.name == "Settings"
    assert INFORM.encode(ProtocolVersion.V14_0) == encode(SETTINGS("Settings", INFORM.device.element()))


def test_takes_success() -> None:
    INFORM.read(HttpReply(200, {}, body_of("settings-response-deviceinformation")))


def test_takes_an_answer_that_does_not_mention_the_device() -> None:
    read(SETTINGS("Status", "1"))


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        ("2", ProtocolViolation),
        ("3", ProtocolViolation),
        ("4", ServerBusy),
        ("7", ProtocolViolation),
        ("142", NotProvisioned),
    ],
)
def test_a_failure_of_the_whole_or_of_its_part_raises(status: str, remedy: type[EasError]) -> None:
    with pytest.raises(remedy, match=status):
        read(SETTINGS("Status", status))
    with pytest.raises(remedy, match=status):
        read(SETTINGS("Status", "1"), SETTINGS("DeviceInformation", SETTINGS("Status", status)))


def test_an_answer_needs_a_status() -> None:
    with pytest.raises(ProtocolViolation, match="no Status"):
        read()
