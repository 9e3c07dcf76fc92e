"""What an app sends: device, credential, and the wish to be told about a mailbox. Secrets never show in a repr."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


# region devices
@dataclass(frozen=True, slots=True)
class Apns:
    """An iPhone or iPad: the topic (bundle id), the device token as hexadecimal digits, and who issued the token.

    A build started from Xcode gets its token from `sandbox`, TestFlight and the App Store from `production`.
    """

    app: str
    token: str = field(repr=False)
    environment: Literal["production", "sandbox"] = "production"

    def whole(self) -> dict[str, Any]:
        """Return the device as a new registration names it."""
        return {"platform": "apns", "app": self.app, **self.address()}

    def address(self) -> dict[str, Any]:
        """Return the part of the device that changes during the life of a registration."""
        return {"token": self.token, "environment": self.environment}


@dataclass(frozen=True, slots=True)
class Fcm:
    """An Android phone with Google services, by registration token: an app without Firebase Installation IDs."""

    app: str
    token: str = field(repr=False)

    def whole(self) -> dict[str, Any]:
        """Return the device as a new registration names it."""
        return {"platform": "fcm", "app": self.app, **self.address()}

    def address(self) -> dict[str, Any]:
        """Return the part of the device that changes during the life of a registration."""
        return {"token": self.token}


@dataclass(frozen=True, slots=True)
class Fid:
    """An Android phone with Google services, by the Firebase Installation ID that `onRegistered` gave."""

    app: str
    fid: str = field(repr=False)

    def whole(self) -> dict[str, Any]:
        """Return the device as a new registration names it."""
        return {"platform": "fcm", "app": self.app, **self.address()}

    def address(self) -> dict[str, Any]:
        """Return the part of the device that changes; an app that moves from tokens to FIDs sends it once."""
        return {"fid": self.fid}


@dataclass(frozen=True, slots=True)
class WebPush:
    """A subscription at a push service: a browser, or an Android phone with a UnifiedPush distributor."""

    app: str
    endpoint: str = field(repr=False)
    keys: Mapping[str, str] = field(repr=False)
    """`p256dh` and `auth`, in base64url."""

    def whole(self) -> dict[str, Any]:
        """Return the device as a new registration names it."""
        return {"platform": "webpush", "app": self.app, **self.address()}

    def address(self) -> dict[str, Any]:
        """Return the part of the device that changes during the life of a registration: always both."""
        return {"endpoint": self.endpoint, "keys": dict(self.keys)}


# endregion
Device = Apns | Fcm | Fid | WebPush


@dataclass(frozen=True, slots=True)
class Basic:
    """A password; `user` only where the login name differs from the address of the mailbox."""

    password: str = field(repr=False)
    user: str | None = None

    def fields(self) -> dict[str, Any]:
        """Return the credential as the API takes it."""
        return _filled({"kind": "basic", "user": self.user, "password": self.password})


@dataclass(frozen=True, slots=True)
class OAuth:
    """A refresh token of a grant that the relay alone uses from then on."""

    refresh_token: str = field(repr=False)
    client_id: str | None = None
    user: str | None = None

    def fields(self) -> dict[str, Any]:
        """Return the credential as the API takes it."""
        whole = {"kind": "oauth", "user": self.user, "refresh_token": self.refresh_token, "client_id": self.client_id}
        return _filled(whole)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its key as PKCS #12 in base64."""

    pkcs12: str = field(repr=False)
    passphrase: str | None = field(default=None, repr=False)
    user: str | None = None

    def fields(self) -> dict[str, Any]:
        """Return the credential as the API takes it."""
        whole = {"kind": "certificate", "user": self.user, "pkcs12": self.pkcs12, "passphrase": self.passphrase}
        return _filled(whole)


@dataclass(frozen=True, slots=True)
class Kerberos:
    """An invitation of the administrator, where the relay logs in by delegation; the phone sends no password."""

    invitation: str = field(repr=False)
    user: str | None = None

    def fields(self) -> dict[str, Any]:
        """Return the credential as the API takes it."""
        return _filled({"kind": "kerberos", "user": self.user, "invitation": self.invitation})


Credential = Basic | OAuth | Certificate | Kerberos


@dataclass(frozen=True, slots=True)
class Wish:
    """A registration as the app asks for it. What is None is left out: the relay takes its defaults."""

    mailbox: str
    credential: Credential
    device: Device
    server: str | None = None
    classes: Sequence[str] | None = None
    subfolders: Sequence[str] | None = None
    mode: Literal["alert", "background"] | None = None
    locale: str | None = None
    invitation: str | None = field(default=None, repr=False)
    enrolment_key: str | None = field(default=None, repr=False)
    """The key that an MDM gave to the app; it travels in a header, with this request only."""

    def body(self) -> dict[str, Any]:
        """Return the body of the request that registers."""
        return _filled(
            {
                "mailbox": self.mailbox,
                "server": self.server,
                "credential": self.credential.fields(),
                "device": self.device.whole(),
                "classes": self.classes,
                "subfolders": self.subfolders,
                "mode": self.mode,
                "locale": self.locale,
                "invitation": self.invitation,
            }
        )


def _filled(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
