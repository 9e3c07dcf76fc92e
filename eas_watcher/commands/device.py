"""How the relay describes itself as a device, so that administrators can write rules for it."""

from dataclasses import dataclass
from typing import Final

from eas_watcher.names import USER_AGENT
from eas_watcher.wbxml.element import SETTINGS, Element


@dataclass(frozen=True, slots=True)
class DeviceInformation:
    """What a server learns about the device; texts of at most 1024 characters [MS-ASCMD 2.2.3.45]."""

    model: str
    friendly_name: str
    os: str
    user_agent: str

    def element(self) -> Element:
        """Return Settings:DeviceInformation; every version from 12.0 on knows these children [MS-ASCMD 2.2.3.45]."""
        return SETTINGS(
            "DeviceInformation",
            SETTINGS(
                "Set",
                SETTINGS("Model", self.model),
                SETTINGS("FriendlyName", self.friendly_name),
                SETTINGS("OS", self.os),
                SETTINGS("UserAgent", self.user_agent),
            ),
        )


DEVICE: Final = DeviceInformation(
    model="PushRelay", friendly_name="Push notification relay", os="PushRelay 1", user_agent=USER_AGENT
)
"""The relay. It must not change: access rules match it, and a change needs a new decision [MS-ASCMD 2.2.3.45]."""
