"""The JSON that apps send: strict models without unknown fields, every length limited.

A field that is null counts as absent in every body: a new registration gets the default, a change leaves it as it is.
"""

from base64 import b64decode
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable
from itertools import chain, islice
from typing import Annotated, Final, Literal, TypeVar

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from eas_watcher.auth.bearer import VERIFIER
from eas_watcher.names import CollectionClass
from relay.api.faults import MOST, NAME, VISIBLE, Strict, complaint, doubled, misread
from relay.domain.fcm_device import FcmDevice, FcmDeviceInvalid
from relay.domain.model import Environment, Mode, Platform, RegistrationChange
from relay.domain.receipts import LONGEST as LONGEST_RECEIPT
from relay.domain.receipts import MOST as MOST_RECEIPTS
from relay.domain.receipts import OLDEST as OLDEST_RECEIPT
from relay.domain.subscription import Subscription, SubscriptionInvalid, read_auth, read_endpoint, read_p256dh
from relay.registration.errors import InvalidRequest
from relay.registration.identity import LONGEST
from relay.registration.locales import DEFAULT as DEFAULT_LOCALE
from relay.registration.locales import LONGEST as LONGEST_LOCALE
from relay.registration.locales import clean_locale
from relay.registration.requests import (
    BasicLogin,
    CertificateLogin,
    Device,
    KerberosLogin,
    Login,
    OAuthCodeLogin,
    OAuthLogin,
    RegistrationRequest,
)
from relay.security.invitations import LONGEST as LONGEST_INVITATION

App = Annotated[str, StringConstraints(max_length=255, pattern=NAME)]
DeviceToken = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class ApnsDeviceBody(Strict):
    """A device of APNs, which names devices by tokens."""

    platform: Literal["apns"]
    app: App
    token: DeviceToken
    environment: Environment | None = Environment.PRODUCTION

    def device(self) -> Device:
        """Return the device as a value."""
        return Device(Platform.APNS, self.app, self.token, self.environment or Environment.PRODUCTION)


class FcmDeviceBody(Strict):
    """A device of FCM: a Firebase Installation ID, or the registration token of an older SDK; one of the two."""

    platform: Literal["fcm"]
    app: App
    token: DeviceToken | None = None
    fid: DeviceToken | None = None
    environment: Environment | None = Environment.PRODUCTION

    @field_validator("fid")
    @classmethod
    def _is_fid(cls, value: str | None) -> str | None:
        return None if value is None else _checked(FcmDevice.of_fid, value)

    @model_validator(mode="after")
    def _is_one(self) -> "FcmDeviceBody":
        if (self.token is None) == (self.fid is None):
            raise PydanticCustomError("one_of", "needs fid or token, and not both")
        return self

    def device(self) -> Device:
        """Return the device as a value."""
        token = _fcm_token(self.token, self.fid) or ""
        return Device(Platform.FCM, self.app, token, self.environment or Environment.PRODUCTION)


class SubscriptionKeysBody(Strict):
    """The keys of a WebPush subscription, in base64url; those that later browsers may add are left alone."""

    model_config = ConfigDict(extra="ignore")

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


ExpirationTime = Annotated[float | None, Field(alias="expirationTime", description="not used: a push tells the end")]
ContentEncoding = Annotated[Literal["aes128gcm"] | None, Field(alias="contentEncoding")]


class WebPushDeviceBody(Strict):
    """A device of WebPush: a subscription as `PushSubscription.toJSON()` and UnifiedPush return it [W3C: Push API].

    What later browsers may add to it is left alone, but not what belongs to a device of another platform.
    """

    platform: Literal["webpush"]
    app: App
    endpoint: str
    keys: SubscriptionKeysBody
    environment: Environment | None = Environment.PRODUCTION
    expiration_time: ExpirationTime = None
    content_encoding: ContentEncoding = None

    @model_validator(mode="before")
    @classmethod
    def _without_additions(cls, value: object) -> object:
        return _without_additions(value)

    @field_validator("endpoint")
    @classmethod
    def _is_endpoint(cls, value: str) -> str:
        return _checked(read_endpoint, value)

    def device(self) -> Device:
        """Return the device as a value."""
        token = Subscription.of(self.endpoint, self.keys.p256dh, self.keys.auth).token
        return Device(Platform.WEBPUSH, self.app, token, self.environment or Environment.PRODUCTION)


DeviceBody = Annotated[ApnsDeviceBody | FcmDeviceBody | WebPushDeviceBody, Field(discriminator="platform")]


OF_DEVICES: Final = frozenset(
    field.alias or name
    for body in (ApnsDeviceBody, FcmDeviceBody, WebPushDeviceBody)
    for name, field in body.model_fields.items()
)
"""Every field that some device has."""


class DeviceChangeBody(Strict):
    """The changes of a device; a subscription changes as a whole, and what browsers may add to it is left alone."""

    unchangeable = frozenset({"platform", "app"})

    token: DeviceToken | None = None
    fid: DeviceToken | None = None
    environment: Environment | None = None
    endpoint: str | None = None
    keys: SubscriptionKeysBody | None = None
    expiration_time: ExpirationTime = None
    content_encoding: ContentEncoding = None

    @field_validator("fid")
    @classmethod
    def _is_fid(cls, value: str | None) -> str | None:
        return None if value is None else _checked(FcmDevice.of_fid, value)

    @field_validator("endpoint")
    @classmethod
    def _is_endpoint(cls, value: str | None) -> str | None:
        return None if value is None else _checked(read_endpoint, value)

    @model_validator(mode="before")
    @classmethod
    def _without_additions(cls, value: object) -> object:
        return _without_additions(value)

    @model_validator(mode="after")
    def _is_whole(self) -> "DeviceChangeBody":
        if (self.endpoint is None) != (self.keys is None):
            raise PydanticCustomError("whole", "needs endpoint and keys, or neither")
        if sum(part is not None for part in (self.token, self.fid, self.endpoint)) > 1:
            raise PydanticCustomError("one_of", "needs one of token, fid, or endpoint with keys")
        return self

    @property
    def device_token(self) -> str | None:
        """The new device token, if there is one."""
        if self.endpoint is None or self.keys is None:
            return _fcm_token(self.token, self.fid)
        return Subscription.of(self.endpoint, self.keys.p256dh, self.keys.auth).token


def _without_additions(device: object) -> object:
    """Return a device without what browsers may add to a subscription; all others keep their unknown fields."""
    if not isinstance(device, dict) or not device.get("endpoint"):
        return device
    return {name: value for name, value in device.items() if name in OF_DEVICES}


def _checked(read: Callable[[str], object], value: str) -> str:
    try:
        read(value)
    except (SubscriptionInvalid, FcmDeviceInvalid) as error:
        raise PydanticCustomError("device", "{wrong}", {"wrong": str(error)}) from None
    return value


def _fcm_token(token: str | None, fid: str | None) -> str | None:
    """Return the device token of whichever there is."""
    return token if fid is None else FcmDevice.of_fid(fid).device_token


def _clean(value: str) -> str:
    try:
        return clean_locale(value)
    except ValueError as error:
        raise PydanticCustomError("locale", "{wrong}", {"wrong": str(error)}) from None


LONGEST_FILE: Final = 12 * 1024  # characters of a certificate; a body has 16 KiB

User = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST)]
Password = Annotated[SecretStr, Field(min_length=1, max_length=1024)]
Locale = Annotated[str, StringConstraints(max_length=LONGEST_LOCALE), AfterValidator(_clean)]
# Reading stops at the first fault of a list: the faults of 16 KiB would take 60 ms of the loop's time.
Classes = Annotated[frozenset[CollectionClass], Field(min_length=1, max_length=len(CollectionClass), fail_fast=True)]
Subfolders = Annotated[frozenset[CollectionClass], Field(max_length=len(CollectionClass), fail_fast=True)]


class MalformedJson(InvalidRequest):
    """The body is not JSON."""


def _decoded(text: str) -> bytes:
    """Return the bytes of base64 in either alphabet, with line ends as Android's default writes them, padded or not.

    Raises ValueError.
    """
    digits = "".join(text.split()).rstrip("=").translate(str.maketrans("-_", "+/"))
    return b64decode(digits + "=" * (-len(digits) % 4), validate=True)


class BasicBody(Strict):
    """A login with user and password."""

    kind: Literal["basic"]
    password: Password
    user: User | None = None

    def login(self) -> BasicLogin:
        """Return the login as a value."""
        return BasicLogin(self.password.get_secret_value(), self.user)


class OAuthBody(Strict):
    """A grant that the user gave to the app or to the relay: its refresh token, or the code for it; one of the two."""

    kind: Literal["oauth"]
    refresh_token: Annotated[SecretStr, Field(min_length=1, max_length=8192)] | None = None
    code: Annotated[SecretStr, Field(min_length=1, max_length=8192)] | None = None
    code_verifier: Annotated[SecretStr, Field(min_length=43, max_length=128)] | None = None
    redirect_uri: Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=VISIBLE)] | None = None
    client_id: Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=VISIBLE)] | None = None
    user: User | None = None

    @field_validator("code_verifier")
    @classmethod
    def _is_verifier(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not VERIFIER.fullmatch(value.get_secret_value()):
            raise PydanticCustomError("verifier", "must be letters, digits and . _ ~ - only [RFC 7636 4.1]")
        return value

    @model_validator(mode="after")
    def _is_one(self) -> "OAuthBody":
        given = [part is not None for part in (self.code, self.code_verifier, self.redirect_uri)]
        if any(given) != all(given) or all(given) == (self.refresh_token is not None):
            raise PydanticCustomError(
                "one_of", "needs refresh_token, or code with code_verifier and redirect_uri, and not both"
            )
        return self

    def login(self) -> OAuthLogin | OAuthCodeLogin:
        """Return the login as a value."""
        client_id = self.client_id or ""
        if self.refresh_token is not None:
            return OAuthLogin(self.refresh_token.get_secret_value(), client_id, self.user)
        code = "" if self.code is None else self.code.get_secret_value()
        verifier = "" if self.code_verifier is None else self.code_verifier.get_secret_value()
        return OAuthCodeLogin(code, verifier, self.redirect_uri or "", client_id, self.user)


class CertificateBody(Strict):
    """A client certificate with its key: PKCS #12 in base64, or PEM; one of the two."""

    kind: Literal["certificate"]
    pkcs12: Annotated[SecretStr, Field(min_length=1, max_length=LONGEST_FILE)] | None = None
    pem: Annotated[SecretStr, Field(min_length=1, max_length=LONGEST_FILE)] | None = None
    passphrase: Annotated[SecretStr, Field(max_length=1024)] | None = None
    user: User | None = None

    @field_validator("pkcs12")
    @classmethod
    def _is_base64(cls, value: SecretStr | None) -> SecretStr | None:
        try:
            _decoded("" if value is None else value.get_secret_value())
        except ValueError:
            raise PydanticCustomError("base64", "must be base64") from None
        return value

    @model_validator(mode="after")
    def _is_one(self) -> "CertificateBody":
        if (self.pkcs12 is None) == (self.pem is None):
            raise PydanticCustomError("one_of", "needs pkcs12 or pem, and not both")
        return self

    def login(self) -> CertificateLogin:
        """Return the login as a value."""
        pkcs12 = b"" if self.pkcs12 is None else _decoded(self.pkcs12.get_secret_value())
        pem = "" if self.pem is None else self.pem.get_secret_value()
        passphrase = "" if self.passphrase is None else self.passphrase.get_secret_value()
        return CertificateLogin(pkcs12, pem, passphrase, self.user)


class KerberosBody(Strict):
    """The invitation that an operator gave to the user."""

    kind: Literal["kerberos"]
    invitation: Annotated[SecretStr, Field(min_length=1, max_length=LONGEST_INVITATION)]
    user: User | None = None

    def login(self) -> KerberosLogin:
        """Return the login as a value."""
        return KerberosLogin(self.invitation.get_secret_value().strip(), self.user)


CredentialBody = Annotated[BasicBody | OAuthBody | CertificateBody | KerberosBody, Field(discriminator="kind")]


class RegistrationBody(Strict):
    """The body of POST /v1/registrations."""

    mailbox: User
    credential: CredentialBody
    device: DeviceBody
    server: Annotated[str, StringConstraints(max_length=64, pattern=NAME)] | None = None
    classes: Classes | None = frozenset({CollectionClass.EMAIL})
    subfolders: Subfolders | None = frozenset()
    mode: Mode | None = Mode.ALERT
    locale: Locale | None = DEFAULT_LOCALE
    invitation: Annotated[SecretStr, Field(min_length=1, max_length=LONGEST_INVITATION)] | None = None

    def request(self) -> RegistrationRequest:
        """Return what the app asks for."""
        return RegistrationRequest(
            mailbox=self.mailbox,
            login=self.credential.login(),
            device=self.device.device(),
            server=self.server,
            classes=self.classes or frozenset({CollectionClass.EMAIL}),
            subfolders=self.subfolders or frozenset(),
            mode=self.mode or Mode.ALERT,
            locale=self.locale or DEFAULT_LOCALE,
            invitation="" if self.invitation is None else self.invitation.get_secret_value().strip(),
        )


class ChangeBody(Strict):
    """The body of PATCH /v1/registrations/{id}; a field that is missing or null stays as it is."""

    unchangeable = frozenset({"mailbox", "server", "invitation"})

    credential: CredentialBody | None = None
    device: DeviceChangeBody | None = None
    classes: Classes | None = None
    subfolders: Subfolders | None = None
    mode: Mode | None = None
    locale: Locale | None = None

    def login(self) -> Login | None:
        """Return the new login; None: the credential stays."""
        return None if self.credential is None else self.credential.login()

    def change(self) -> RegistrationChange:
        """Return the rest of what changes."""
        return RegistrationChange(
            device_token=None if self.device is None else self.device.device_token,
            environment=None if self.device is None else self.device.environment,
            classes=self.classes,
            subfolders=self.subfolders,
            mode=self.mode,
            locale=self.locale,
        )


class ProofBody(Strict):
    """The body of POST /v1/registrations/{id}/proof."""

    nonce: Annotated[str, StringConstraints(min_length=1, max_length=64)]


class ReceiptBody(Strict):
    """One push that the app showed."""

    id: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_RECEIPT)]
    seconds_ago: Annotated[float, Field(ge=0, le=OLDEST_RECEIPT.total_seconds(), allow_inf_nan=False)]


class ReceiptsBody(Strict):
    """The body of POST /v1/registrations/{id}/receipts."""

    receipts: Annotated[list[ReceiptBody], Field(min_length=1, max_length=MOST_RECEIPTS, fail_fast=True)]

    def shown(self) -> list[tuple[str, float]]:
        """Return the ids of pushes, each with the seconds since the app showed it."""
        return [(each.id, each.seconds_ago) for each in self.receipts]


Body = TypeVar("Body", RegistrationBody, ChangeBody, ProofBody, ReceiptsBody)


def parse(model: type[Body], body: bytes) -> Body:
    """Return a body as its model; raise MalformedJson, or InvalidRequest with its first faults."""
    body = body.removeprefix(BOM_UTF8)  # a reader may ignore it [RFC 8259 8.1]
    try:
        read = model.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        if faults[0]["type"] == "json_invalid":
            raise MalformedJson([("", misread(faults[0]))]) from None
        wrong: Iterable[tuple[str, str]] = (complaint(model, fault) for fault in faults)
        raise InvalidRequest([*islice(chain(wrong, doubled(body.decode())), MOST)]) from None
    if twice := list(islice(doubled(body.decode()), MOST)):
        raise InvalidRequest(twice)
    return read
