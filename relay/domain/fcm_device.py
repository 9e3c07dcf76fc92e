"""The two names that FCM gives to an app on a phone: a registration token, or a Firebase Installation ID (FID).

Firebase SDKs register by FID since 2026 (Android messaging 25.1.2, iOS 12.19), and registration tokens are deprecated.
FCM takes both: `message.fid` or `message.token` [Google: FCM REST v1, Message; Best practices for FCM registration
management]. The API takes either, the store keeps it as a device token, the push role sends to it.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Final, Literal

FID: Final = re.compile(r"[cdef][A-Za-z0-9_-]{21}", re.ASCII)
"""A FID as Firebase's SDKs make it: 17 random bytes, the first four bits 0111, in base64url, cut to 22 characters."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9:_.~%=-]{8,1024}", re.ASCII)
"""Google documents no format of tokens; they have these characters [observed: FCM SDKs, 2026-11]."""
_INSTALLATION: Final = re.compile(r"[A-Za-z0-9_-]{16,64}", re.ASCII)
"""What is taken as a FID: Google documents no format, and its service may choose another one than the SDKs make."""
_STORED: Final = re.compile(r'\{"fid":"([A-Za-z0-9_-]{16,64})"\}', re.ASCII)


class FcmDeviceInvalid(ValueError):
    """Says what is wrong with a token or FID, and never contains it."""


@dataclass(frozen=True, slots=True)
class FcmDevice:
    """One app on one phone, as FCM is told to find it."""

    kind: Literal["token", "fid"]
    """The field of FCM's message that names the device."""
    name: str = field(repr=False)
    """The registration token or the FID."""

    @classmethod
    def of_fid(cls, fid: str) -> "FcmDevice":
        """Check a FID that an app sends; raises FcmDeviceInvalid."""
        if _INSTALLATION.fullmatch(fid):
            return cls("fid", fid)
        if ":" in fid and _TOKEN.fullmatch(fid):
            raise FcmDeviceInvalid("is a registration token: send it as `token`, or send what `onRegistered` gave")
        raise FcmDeviceInvalid("must be a Firebase Installation ID: 16 to 64 letters, digits, - and _")

    @classmethod
    def of_token(cls, token: str) -> "FcmDevice":
        """Check a registration token that an app sends; raises FcmDeviceInvalid."""
        if FID.fullmatch(token):
            raise FcmDeviceInvalid("is a Firebase Installation ID: send it as `fid`")
        if _TOKEN.fullmatch(token):
            return cls("token", token)
        raise FcmDeviceInvalid("must be an FCM registration token: 8 to 1024 letters, digits and :_.~%=-")

    @classmethod
    def read(cls, device_token: str) -> "FcmDevice":
        """Read a device token as the store keeps it; one in another form than `device_token` writes is a token."""
        found = _STORED.fullmatch(device_token)
        return cls("token", device_token) if found is None else cls("fid", found[1])

    @property
    def device_token(self) -> str:
        """The device token that the store keeps; no registration token looks like that of a FID."""
        return self.name if self.kind == "token" else json.dumps({"fid": self.name}, separators=(",", ":"))

    @property
    def phone(self) -> str:
        """A text that is the same for a registration token and the FID of one installation.

        A token of an SDK since 2020 begins with the FID of its installation and a colon
        [github.com/firebase/firebase-admin-java, pull request 1211, comment of 2026-09-21].
        """
        before, colon, _ = self.name.partition(":")
        return before if self.kind == "token" and colon and FID.fullmatch(before) else self.name
