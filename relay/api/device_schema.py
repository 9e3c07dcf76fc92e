"""Own the JSON by which apps tell where pushes go: a device token, or the subscription of a WebPush device."""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError

from relay.api.strict import NAME, Strict
from relay.domain.model import Environment, Platform
from relay.domain.subscription import Subscription, SubscriptionInvalid, read_auth, read_endpoint, read_p256dh
from relay.registration.requests import Device

App = Annotated[str, StringConstraints(max_length=255, pattern=NAME)]
DeviceToken = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class TokenDeviceBody(Strict):
    """Describe where pushes go at a provider that names devices by tokens."""

    platform: Literal["apns", "fcm"]
    app: App
    token: DeviceToken
    environment: Environment = Environment.PRODUCTION

    def device(self) -> Device:
        """Turn into a value."""
        return Device(Platform(self.platform), self.app, self.token, self.environment)


class SubscriptionKeysBody(Strict):
    """Describe the keys of a WebPush subscription, in base64url."""

    p256dh: Annotated[str, StringConstraints(max_length=128)]
    auth: Annotated[str, StringConstraints(max_length=32)]

    @field_validator("p256dh")
    @classmethod
    def _is_key(cls, value: str) -> str:
        return _checked(read_p256dh, value)

    @field_validator("auth")
    @classmethod
    def _is_secret(cls, value: str) -> str:
        return _checked(read_auth, value)


class WebPushDeviceBody(Strict):
    """Describe where pushes go by WebPush: a subscription as the Push API and UnifiedPush hand it out."""

    platform: Literal["webpush"]
    app: App
    endpoint: str
    keys: SubscriptionKeysBody

    @field_validator("endpoint")
    @classmethod
    def _is_endpoint(cls, value: str) -> str:
        return _checked(read_endpoint, value)

    def device(self) -> Device:
        """Turn into a value."""
        token = Subscription.of(self.endpoint, self.keys.p256dh, self.keys.auth).token
        return Device(Platform.WEBPUSH, self.app, token)


DeviceBody = Annotated[TokenDeviceBody | WebPushDeviceBody, Field(discriminator="platform")]


class DeviceChangeBody(Strict):
    """Describe what may change about a device; a subscription changes as a whole."""

    token: DeviceToken | None = None
    environment: Environment | None = None
    endpoint: str | None = None
    keys: SubscriptionKeysBody | None = None

    @field_validator("endpoint")
    @classmethod
    def _is_endpoint(cls, value: str | None) -> str | None:
        return None if value is None else _checked(read_endpoint, value)

    @model_validator(mode="after")
    def _is_whole(self) -> "DeviceChangeBody":
        if (self.endpoint is None) != (self.keys is None):
            raise PydanticCustomError("whole", "Needs endpoint and keys, or neither")
        if self.endpoint is not None and self.token is not None:
            raise PydanticCustomError("one_of", "Needs token, or endpoint and keys")
        return self

    @property
    def device_token(self) -> str | None:
        """Give the new device token, if there is one."""
        if self.endpoint is None or self.keys is None:
            return self.token
        return Subscription.of(self.endpoint, self.keys.p256dh, self.keys.auth).token


def _checked(read: Callable[[str], object], value: str) -> str:
    try:
        read(value)
    except SubscriptionInvalid as error:
        raise PydanticCustomError("subscription", "Value {wrong}", {"wrong": str(error)}) from None
    return value
