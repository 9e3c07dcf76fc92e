"""When two device tokens mean the same app on the same device. Pure."""

import hashlib
import json
from typing import Final

from relay.domain.fcm_device import FcmDevice
from relay.domain.model import Platform

NO_IPHONE: Final = b"relay doctor: no device has this".hex()
"""A device token of APNs' form that no device has: Apple answers BadDeviceToken, and so does the sandbox."""


def normalise_token(platform: Platform, token: str) -> str:
    """Return a device token in its one spelling.

    An APNs token is bytes, written as hexadecimal digits [Apple: Registering your app with APNs]: case means nothing. A
    token of FCM is opaque, and a subscription of WebPush has one spelling already.
    """
    return token.lower() if platform is Platform.APNS else token


def fingerprint(platform: Platform, token: str) -> str:
    """Return a text that is the same for two device tokens of one installed app, and says nothing else about them.

    The SHA-256 of the token, as hexadecimal digits: device tokens are long and random, so nobody finds one by its hash.
    Of a WebPush subscription the endpoint alone counts, since it names the device and its keys may change; of an FCM
    token the Firebase Installation ID that it begins with.
    """
    match platform:
        case Platform.APNS:
            text = normalise_token(platform, token)
        case Platform.FCM:
            text = FcmDevice.read(token).phone
        case Platform.WEBPUSH:  # pragma: no branch  -- mypy proves that no other platform is left
            text = _endpoint(token)
    return hashlib.sha256(f"{platform.value} {text}".encode("utf-8", "surrogatepass")).hexdigest()


def _endpoint(token: str) -> str:
    """Return the endpoint of a subscription as `Subscription.token` writes it; the whole text if there is none."""
    try:
        return str(json.loads(token)["endpoint"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return token
