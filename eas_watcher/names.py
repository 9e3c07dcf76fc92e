"""The words of the protocol: identifiers, classes and versions, and the relay's own names as a device."""

from enum import IntEnum, StrEnum
from typing import Final, NewType

MailboxId = NewType("MailboxId", str)
"""Identifies one watched mailbox; opaque here."""

DeviceId = NewType("DeviceId", str)
"""Identifies the EAS device: 1-32 letters and digits, constant for each mailbox [MS-ASHTTP 2.2.1.1.1.1.3]."""

CollectionId = NewType("CollectionId", str)
"""Identifies a folder in Sync and Ping: the ServerId of FolderSync, opaque and case-sensitive."""

ServerId = NewType("ServerId", str)
"""Identifies an item; unique only within its collection."""

SyncKey = NewType("SyncKey", str)
"""A point in the history of a collection or of the hierarchy; opaque, "0" asks for a start."""

PolicyKey = NewType("PolicyKey", str)
"""Proves that a device acknowledged the server's policy; decimal text, "0" before that."""

NO_SYNC_KEY: Final = SyncKey("0")
NO_POLICY_KEY: Final = PolicyKey("0")

DEVICE_TYPE: Final = "PushRelay"  # letters only, because Z-Push removes other characters
USER_AGENT: Final = "PushRelay/1"  # constant: servers may block clients that change it [MS-ASHTTP 2.2.1.1.2.7]


class CollectionClass(StrEnum):
    """The kind of items in a collection."""

    EMAIL = "email"
    CALENDAR = "calendar"
    CONTACTS = "contacts"
    TASKS = "tasks"
    NOTES = "notes"

    @property
    def wire(self) -> str:
        """The class as the protocol spells it [MS-ASCMD 2.2.3.27]."""
        return self.value.capitalize()


class ProtocolVersion(IntEnum):
    """The protocol versions that the relay knows, ordered."""

    V12_1 = 121
    V14_0 = 140
    V14_1 = 141
    V16_0 = 160
    V16_1 = 161

    def __init__(self, number: int) -> None:
        """Write the version once, for each request names it."""
        self.wire: Final = f"{number // 10}.{number % 10}"
        """The version as the MS-ASProtocolVersion header spells it."""
