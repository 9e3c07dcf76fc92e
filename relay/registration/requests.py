"""The requests of apps, as values; their identities and devices are not checked yet."""

import re
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from eas_watcher.names import CollectionClass
from relay.domain.fcm_device import FcmDevice, FcmDeviceInvalid
from relay.domain.model import Environment, Mode, Platform
from relay.domain.subscription import Subscription, SubscriptionInvalid, is_listed
from relay.registration.errors import UnsupportedDevice

_APNS_TOKEN: Final = re.compile(r"(?:[0-9A-Fa-f]{2}){32,100}", re.ASCII)
"""The token's length may vary [Apple: Registering your app with APNs]; bytes as hexadecimal digits."""

_NAMES: Final = {Platform.FCM: "FCM", Platform.WEBPUSH: "WebPush"}


@dataclass(frozen=True, slots=True)
class BasicLogin:
    """User and password for the mailbox's server; without a user the mailbox itself is the user."""

    password: str = field(repr=False)
    user: str | None = None


@dataclass(frozen=True, slots=True)
class OAuthLogin:
    """The refresh token of a grant that the user gave; without a client id the settings have it."""

    refresh_token: str = field(repr=False)
    client_id: str = ""
    user: str | None = None


@dataclass(frozen=True, slots=True)
class OAuthCodeLogin:
    """The code that stands for a grant for minutes, with what proves that the app itself asked for it."""

    code: str = field(repr=False)
    code_verifier: str = field(repr=False)
    redirect_uri: str
    client_id: str = ""
    user: str | None = None


@dataclass(frozen=True, slots=True)
class CertificateLogin:
    """A certificate with its key, as PKCS #12 or as PEM; the other one is empty."""

    pkcs12: bytes = field(default=b"", repr=False)
    pem: str = field(default="", repr=False)
    passphrase: str = field(default="", repr=False)
    user: str | None = None


@dataclass(frozen=True, slots=True)
class KerberosLogin:
    """An operator's invitation, which is the right to watch the user's mailbox."""

    invitation: str = field(repr=False)
    user: str | None = None


Login: TypeAlias = BasicLogin | OAuthLogin | OAuthCodeLogin | CertificateLogin | KerberosLogin


def refusal(login: Login) -> tuple[str, str]:
    """Return who refused what of a login, and the field of the request that has it."""
    match login:
        case BasicLogin():
            return "the server of the mailbox refused user or password", "credential"
        case OAuthLogin():
            return "the token endpoint refused the refresh token, or the mail server its token", "credential"
        case OAuthCodeLogin():
            return "the token endpoint refused the code, or the mail server its token", "credential.code"
        case CertificateLogin():
            return "the server of the mailbox refused the certificate", "credential"
        case KerberosLogin():
            return "the server of the mailbox refused the user", "credential"


@dataclass(frozen=True, slots=True)
class Device:
    """Where pushes go."""

    platform: Platform
    app: str
    """The APNs topic (bundle id), the Android package name, or any name that the settings list for WebPush."""
    token: str = field(repr=False)
    """As the provider issues it; for WebPush as Subscription.token writes it."""
    environment: Environment = Environment.PRODUCTION


@dataclass(frozen=True, slots=True)
class RegistrationRequest:
    """A new registration, as an app asks for it."""

    mailbox: str
    """Address or user name: it selects the server, and is the login user unless the login names one."""
    login: Login
    device: Device
    server: str | None = None
    classes: frozenset[CollectionClass] = frozenset({CollectionClass.EMAIL})
    mode: Mode = Mode.ALERT
    locale: str = "en"
    subfolders: frozenset[CollectionClass] = frozenset()
    """The classes whose sub-folders count too."""
    invitation: str = field(default="", repr=False)
    """The operator's invitation of the user; empty: none was given."""


def check_device(
    platform: Platform, token: str | None, environment: Environment | None, services: Container[str] = frozenset()
) -> None:
    """Raise UnsupportedDevice if the platform has no such environment, or its device tokens look different.

    A WebPush subscription must be at one of the push services that the relay may use.
    """
    if platform is not Platform.APNS and environment is Environment.SANDBOX:
        raise UnsupportedDevice(f"{_NAMES[platform]} has no sandbox: leave `environment` out", "device.environment")
    if token is None:
        return
    match platform:
        case Platform.WEBPUSH:
            _check_subscription(token, services)
        case Platform.FCM:
            _check_fcm(token)
        case Platform.APNS if not _APNS_TOKEN.fullmatch(token):
            raise UnsupportedDevice(
                "a device of apns has a `token` of 32 to 100 bytes as hexadecimal digits, neither base64 nor with < >",
                _field(token),
            )
        case Platform.APNS:
            pass


def _check_fcm(token: str) -> None:
    if FcmDevice.read(token).kind == "fid":
        return
    if _field(token) == "device.endpoint":
        raise UnsupportedDevice("a device of fcm has `fid` or `token`, and no `endpoint`", "device.endpoint")
    try:
        FcmDevice.of_token(token)
    except FcmDeviceInvalid as error:
        raise UnsupportedDevice(f"`token` of a device of fcm {error}", "device.token") from error


def _field(token: str) -> str:
    """Return the field that an app sent a device token in."""
    try:
        Subscription.read(token)
    except SubscriptionInvalid:
        return f"device.{FcmDevice.read(token).kind}"
    return "device.endpoint"


def _check_subscription(token: str, services: Container[str]) -> None:
    try:
        subscription = Subscription.read(token)
    except SubscriptionInvalid as error:
        raise UnsupportedDevice(
            "a device of webpush has `endpoint` and `keys`, and no `token`", _field(token)
        ) from error
    if subscription.token != token:
        raise UnsupportedDevice("a device of webpush has `endpoint` and `keys`, and no `token`", "device.token")
    if not is_listed(subscription.service, services):
        raise UnsupportedDevice(
            "the relay may not push to the host of `endpoint`: use another push service", "device.endpoint"
        )
