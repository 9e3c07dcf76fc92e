from eas_watcher.commands.device import DEVICE, DeviceInformation
from eas_watcher.names import USER_AGENT
from eas_watcher.wbxml.element import SETTINGS


def test_the_relay_identifies_itself() -> None:
    assert DeviceInformation("PushRelay", "Push notification relay", "PushRelay 1", USER_AGENT) == DEVICE


def test_writes_model_name_system_and_user_agent() -> None:
    assert DeviceInformation("m", "f", "o", "u").element() == SETTINGS(
        "DeviceInformation",
        SETTINGS(
            "Set",
            SETTINGS("Model", "m"),
            SETTINGS("FriendlyName", "f"),
            SETTINGS("OS", "o"),
            SETTINGS("UserAgent", "u"),
        ),
    )
