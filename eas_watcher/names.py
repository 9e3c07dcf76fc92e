"""Own the words of the protocol: identifiers, classes and versions, and how the relay calls itself as a device."""

from enum import IntEnum, StrEnum
from typing import Final, NewType

MailboxId = NewType("MailboxId", str)
"""Names one watched mailbox for its owner; opaque here."""

DeviceId = NewType("DeviceId", str)
"""Names the EAS device: 1-32 letters and digits, constant for ever per mailbox [MS-ASHTTP 2.2.1.1.1.1.3]."""

CollectionId = NewType("CollectionId", str)
"""Names a folder as Sync and Ping see it: the ServerId of FolderSync, opaque and case-sensitive."""

ServerId = NewType("ServerId", str)
"""Names an item, unique only within its collection."""

SyncKey = NewType("SyncKey", str)
"""Marks a point in the history of a collection or of the hierarchy; opaque, "0" asks for a start."""

PolicyKey = NewType("PolicyKey", str)
"""Proves that a device acknowledged the server's policy; decimal text, "0" before that."""

NO_SYNC_KEY: Final = SyncKey("0")
NO_POLICY_KEY: Final = PolicyKey("0")

DEVICE_TYPE: Final = "PushRelay"  # letters only: Z-Push strips everything else
USER_AGENT: Final = "PushRelay/1"  # constant: servers may block clients that change it [MS-ASHTTP 2.2.1.1.2.7]


class CollectionClass(StrEnum):
    """Tell what kind of items a collection holds."""

    EMAIL = "email"
    CALENDAR = "calendar"
    CONTACTS = "contacts"
    TASKS = "tasks"
    NOTES = "notes"

    @property
    def wire(self) -> str:
        """Spell the class as the protocol does [MS-ASCMD 2.2.3.27]."""
        return self.value.capitalize()


class ProtocolVersion(IntEnum):
    """Order the protocol versions that the relay speaks."""

    V12_1 = 121
    V14_0 = 140
    V14_1 = 141
    V16_0 = 160
    V16_1 = 161

    @property
    def wire(self) -> str:
        """Spell the version as the MS-ASProtocolVersion header does."""
        return f"{self.value // 10}.{self.value % 10}"
