"""Own the bodies of requests to the control listener of the simulated EAS server."""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from eas_watcher.names import CollectionClass
from relay.sandbox.eas.failures import Failure
from relay.sandbox.eas.mailboxes import ROOT, USER_MAIL
from relay.sandbox.eas.simulator import SENDER

FAILURE: Final[TypeAdapter[Failure]] = TypeAdapter(Annotated[Failure, Field(discriminator="kind")])


class Order(BaseModel):
    """Name the mailbox that something happens to."""

    model_config = ConfigDict(extra="forbid")

    user: str = Field(min_length=1)


class NewMailbox(Order):
    """Name a mailbox."""

    password: str


class NewMail(Order):
    """Describe an item to deliver."""

    cls: CollectionClass = Field(CollectionClass.EMAIL, alias="class")
    subject: str = "Minutes"
    sender: str = SENDER
    body: str = "See you on Monday."
    read: bool = False
    folder: str | None = None


class ReadFlag(Order):
    """Name an item and what its read flag shall be."""

    server_id: str
    read: bool = True


class Deletion(Order):
    """Name an item."""

    server_id: str


class NewFolder(Order):
    """Describe a folder; `type` as in FolderSync."""

    name: str
    type: int = Field(USER_MAIL, ge=1, le=19)
    parent: str = ROOT


class NamedFolder(Order):
    """Name a folder."""

    folder: str


class FolderMove(NamedFolder):
    """Name a folder, and the one below which it shall be."""

    parent: str = ROOT


class ItemMove(NamedFolder):
    """Name an item, and the folder that it is moved to."""

    server_id: str


class DeviceAction(StrEnum):
    """Name what an administrator or a fault does to all devices of a user."""

    LOSE_STATE = "lose-state"
    REFRESH_POLICY = "refresh-policy"
    FORGET_POLICY = "forget-policy"
    WIPE = "wipe"
    WIPE_ACCOUNT = "wipe-account"
    BLOCK = "block"
    UNBLOCK = "unblock"
    QUARANTINE = "quarantine"
    RELEASE = "release"


class DeviceOrder(Order):
    """Name what is done to devices."""

    action: DeviceAction


class BackendOrder(BaseModel):
    """Tell whether mail store and directory can be reached."""

    model_config = ConfigDict(extra="forbid")

    broken: bool


class FailureOrder(BaseModel):
    """Describe what goes wrong; without a user for everybody."""

    model_config = ConfigDict(extra="forbid")

    user: str | None = None
    command: str | None = None
    times: int = Field(1, ge=1)
    failure: dict[str, Any]
