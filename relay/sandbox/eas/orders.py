"""The bodies of requests to the control listener of the simulated EAS server."""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from eas_watcher.names import CollectionClass
from relay.sandbox.eas.failures import Failure
from relay.sandbox.eas.mailboxes import ROOT, USER_MAIL
from relay.sandbox.eas.simulator import SENDER

FAILURE: Final[TypeAdapter[Failure]] = TypeAdapter(Annotated[Failure, Field(discriminator="kind")])


class Order(BaseModel):
    """A body that names a mailbox."""

    model_config = ConfigDict(extra="forbid")

    user: str = Field(min_length=1)


class NewMailbox(Order):
    """A mailbox to add."""

    password: str


class Mail(BaseModel):
    """An item to deliver, without the mailboxes that get it."""

    model_config = ConfigDict(extra="forbid")

    cls: CollectionClass = Field(CollectionClass.EMAIL, alias="class")
    subject: str = "Minutes"
    sender: str = SENDER
    body: str = "See you on Monday."
    read: bool = False
    folder: str | None = None


class NewMail(Mail, Order):
    """An item to deliver."""


class ManyMails(Mail):
    """An item to deliver to each of many mailboxes at once."""

    users: tuple[str, ...]


class ReadFlag(Order):
    """An item and its new read flag."""

    server_id: str
    read: bool = True


class Deletion(Order):
    """An item to delete."""

    server_id: str


class NewFolder(Order):
    """A folder to add; `type` as in FolderSync."""

    name: str
    type: int = Field(USER_MAIL, ge=1, le=19)
    parent: str = ROOT


class NamedFolder(Order):
    """A body that names a folder."""

    folder: str


class FolderMove(NamedFolder):
    """A folder and its new parent."""

    parent: str = ROOT


class ItemMove(NamedFolder):
    """An item and its new folder."""

    server_id: str


class DeviceAction(StrEnum):
    """An action of an administrator, or a fault, that affects all devices of a user."""

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
    """An action on the devices of a user."""

    action: DeviceAction


class BackendOrder(BaseModel):
    """Whether the backend (mail store or directory) is down."""

    model_config = ConfigDict(extra="forbid")

    broken: bool


class WorkersOrder(BaseModel):
    """How many requests are served at once; null: any number."""

    model_config = ConfigDict(extra="forbid")

    workers: Annotated[int, Field(ge=1)] | None


class HoldOrder(BaseModel):
    """Seconds after which the server ends every Ping, whatever its heartbeat; null: it holds Pings as long as asked."""

    model_config = ConfigDict(extra="forbid")

    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None


class ConnectionsAction(StrEnum):
    """An action that concerns all open connections."""

    DROP = "drop"
    FREEZE = "freeze"
    GO_AWAY = "go-away"
    REFUSE = "refuse"
    RESET = "reset"


class ConnectionsOrder(BaseModel):
    """An action on all open connections, and the error code of the frames that it sends [RFC 9113 7]."""

    model_config = ConfigDict(extra="forbid")

    action: ConnectionsAction
    error: int = Field(0, ge=0, le=13)


class StreamsOrder(BaseModel):
    """How many streams a connection over HTTP/2 may have at once."""

    model_config = ConfigDict(extra="forbid")

    streams: int = Field(ge=0)


class FailureOrder(BaseModel):
    """A failure of the next requests of a user, or of all users."""

    model_config = ConfigDict(extra="forbid")

    user: str | None = None
    command: str | None = None
    times: int = Field(1, ge=1)
    failure: dict[str, Any]
