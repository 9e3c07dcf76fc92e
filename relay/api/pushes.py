"""The bodies of pushes as the app gets them, for the OpenAPI document: models, and examples from the templates."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from relay.api.examples import ID, PUSH_ID
from relay.domain.model import Mark, Mode, Platform
from relay.domain.reasons import Cause
from relay.push.payload import ApnsMessage, FcmMessage, Notice, WebPushMessage

Kind = Literal["new-items", "attention", "test", "challenge"]
Json = Mapping[str, object]
NONCE: Final = "o0Z3kqXb1vT9sWm2cYgRPA"


class _Push(BaseModel):
    """The base of every body."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)


class PushData(_Push):
    """What a push says: that there is something, never what."""

    v: int = Field(description="version of the form of this data")
    registration: str = Field(description="id of the registration")
    kind: Kind
    item_class: str | None = Field(default=None, alias="class", description="of the new items")
    count: int | None = Field(default=None, ge=1, description="of changes, roughly")
    certain: bool | None = Field(default=None, description="false: only inferred, or maybe the mail server's fault")
    reason: Cause | None = Field(default=None, description="what an attention is about")
    nonce: str | None = Field(default=None, description="of a challenge: the app returns it as proof")
    id: str | None = Field(default=None, max_length=64, description="of this push: the app returns it as a receipt")


class ApnsAlert(_Push):
    """The text that the system shows."""

    title: str | None = None
    body: str | None = None
    title_loc_key: str | None = Field(default=None, alias="title-loc-key", description="with the locale x-app")
    loc_key: str | None = Field(default=None, alias="loc-key")
    loc_args: tuple[str, ...] | None = Field(default=None, alias="loc-args", description="the count of new items")


class ApnsAps(_Push):
    """Apple's part of the payload."""

    alert: ApnsAlert | None = None
    sound: str | None = None
    mutable_content: int | None = Field(default=None, alias="mutable-content")
    category: str | None = Field(default=None, description="with the locale x-app")
    thread_id: str | None = Field(
        default=None, alias="thread-id", description="with the locale x-app: the registration"
    )
    content_available: int | None = Field(default=None, alias="content-available")


class ApnsPush(_Push):
    """The payload of APNs."""

    aps: ApnsAps
    relay: PushData


class FcmPush(_Push):
    """The data of an FCM message: texts only."""

    v: str
    registration: str
    kind: Kind
    item_class: str | None = Field(default=None, alias="class")
    count: str | None = None
    certain: str | None = None
    reason: Cause | None = None
    nonce: str | None = None
    id: str | None = None


MODELS: Final[Mapping[Platform, type[BaseModel]]] = {
    Platform.APNS: ApnsPush,
    Platform.FCM: FcmPush,
    Platform.WEBPUSH: PushData,
}
_RENDER: Final[Mapping[Platform, Callable[[Notice], Json]]] = {
    Platform.APNS: lambda notice: ApnsMessage(notice).body,
    Platform.FCM: lambda notice: FcmMessage(notice).data,
    Platform.WEBPUSH: lambda notice: WebPushMessage(notice).body,
}


def bodies(platform: Platform) -> Iterator[tuple[str, Json]]:
    """Return every form of a body, each with a name: all marks, in each mode, certain and not, and each cause."""
    for mark in Mark:
        for mode in Mode:
            for certain in (True, False):
                name = f"{mark.value}, {mode.value}{'' if certain else ', uncertain'}"
                notice = Notice(mark, 3, certain, ID, mode, "en", **_of(mark))
                yield name, _RENDER[platform](notice)
    mode, certain = Mode.ALERT, True
    for cause in Cause:
        yield (
            f"attention, {cause.value}",
            _RENDER[platform](Notice(Mark.ATTENTION, 1, certain, ID, mode, "en", cause, **_of(Mark.ATTENTION))),
        )


def _of(mark: Mark) -> dict[str, Any]:
    """Return what only a challenge has, or only other pushes."""
    return {"nonce": NONCE} if mark is Mark.CHALLENGE else {"id": PUSH_ID}


def examples(platform: Platform) -> dict[str, Json]:
    """Return a body of each kind."""
    wanted = (
        f"{Mark.EMAIL.value}, alert",
        f"{Mark.ATTENTION.value}, {Cause.CREDENTIAL.value}",
        f"{Mark.TEST.value}, alert",
        f"{Mark.CHALLENGE.value}, alert",
    )
    return {name.partition(",")[0]: body for name, body in bodies(platform) if name in wanted}
