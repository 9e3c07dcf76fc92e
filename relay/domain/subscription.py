"""WebPush subscriptions: an endpoint at a push service and the keys of one app on one device.

The API takes a subscription, the store keeps it as a device token, the push role sends to it. The endpoint comes from a
phone, and the relay connects to the host that it names. So only URLs are allowed that every parser reads alike.
"""

import binascii
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Container, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey

LONGEST_ENDPOINT: Final = 1024
"""Characters; endpoints seen have 60 to 400 [observed: ntfy, NextPush, Mozilla, Google, 2026-11]."""
POINT: Final = 65  # bytes of an uncompressed P-256 point [RFC 8291 3.1]
SECRET: Final = 16  # bytes of an authentication secret [RFC 8291 3.2]
HTTPS: Final = 443
WINDOWS: Final = "*.notify.windows.com"
"""Stands in a list of push services for those of Edge on Windows: their names, one for each data centre, change."""
BROWSERS: Final[Mapping[str, str]] = {
    "apple": "web.push.apple.com",
    "google": "fcm.googleapis.com",
    "mozilla": "updates.push.services.mozilla.com",
    "microsoft": WINDOWS,
}
"""The push services of browsers, by the word that names each in a list [observed: Safari, Chrome, Firefox, Edge]."""

_WINDOWS: Final = re.compile(r"wns2-[a-z]{2,5}[0-9]{1,3}p\.notify\.windows\.com", re.ASCII)
"""[observed: wns2-par02p, wns2-ln2p, wns2-pn1p; 2024 to 2026]. Names below notify.windows.com are Microsoft's alone."""
_LABEL: Final = r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?"
_HOST: Final = rf"(?P<host>{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]{{2,45}}\])(?::(?P<port>[1-9][0-9]{{0,4}}))?"
SERVICE: Final = re.compile(_HOST, re.ASCII | re.IGNORECASE)
"""A push service: a host, and a port unless it is 443."""
ENDPOINT: Final = re.compile(
    # No user, no fragment, no backslash, nothing outside ASCII; escapes are whole [RFC 3986 3.3, 3.4]. No "?" at the
    # end: yarl leaves out an empty query, so the relay would ask for another path than the app registered.
    rf"https://{_HOST}(?P<rest>/(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{{2}})*(?<!\?))",
    re.ASCII | re.IGNORECASE,
)
_BASE64: Final = re.compile(r"[A-Za-z0-9_+/-]*={0,2}", re.ASCII)
"""Both alphabets [RFC 4648 4, 5]: apps that read the keys by `getKey()` often write the other one."""


class SubscriptionInvalid(ValueError):
    """Says what is wrong with a part of a subscription, and never contains the part itself."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """A checked subscription."""

    endpoint: str = field(repr=False)
    """A secret: who knows it can push to the device, unless the push service asks for more."""
    p256dh: bytes = field(repr=False)
    auth: bytes = field(repr=False)
    service: str
    """Which push service the endpoint names: a host, and a port unless it is 443."""

    @classmethod
    def of(cls, endpoint: str, p256dh: str, auth: str) -> "Subscription":
        """Check the parts that an app sends, the keys in base64url; raises SubscriptionInvalid."""
        written, service = read_endpoint(endpoint)
        return cls(written, read_p256dh(p256dh), read_auth(auth), service)

    @classmethod
    def read(cls, token: str) -> "Subscription":
        """Read a device token that `token` wrote; raises SubscriptionInvalid."""
        try:
            parts = json.loads(token)
            endpoint, p256dh, auth = parts["endpoint"], parts["p256dh"], parts["auth"]
        except (KeyError, TypeError, ValueError, RecursionError):
            raise SubscriptionInvalid("is no subscription") from None
        return cls.of(str(endpoint), str(p256dh), str(auth))

    @property
    def token(self) -> str:
        """The subscription as a device token; each has one spelling."""
        parts = {"auth": base64url(self.auth), "endpoint": self.endpoint, "p256dh": base64url(self.p256dh)}
        return json.dumps(parts, separators=(",", ":"), sort_keys=True)


def naming(service: str) -> str:
    """Return the text that a device token contains if, and only if, it names this push service."""
    return f'"endpoint":"https://{service}/'


def is_listed(service: str, services: Container[str]) -> bool:
    """Return True if the relay may push to this service; `services` may hold WINDOWS, which stands for several."""
    return service in services or (WINDOWS in services and _WINDOWS.fullmatch(service) is not None)


def read_service(name: str) -> str | None:
    """Return the name of a push service (host, or host:port) as subscriptions write it; None if it is not one."""
    found = SERVICE.fullmatch(name)
    return None if found is None else _service(found)


def read_endpoint(endpoint: str) -> tuple[str, str]:
    """Return an endpoint in its one spelling, and the name of its push service; raises SubscriptionInvalid."""
    found = ENDPOINT.fullmatch(endpoint) if len(endpoint) <= LONGEST_ENDPOINT else None
    service = None if found is None else _service(found)
    if found is None or service is None:
        raise SubscriptionInvalid(
            f"must be an https:// URL of {LONGEST_ENDPOINT} characters at most, with host and path, all in ASCII"
        )
    return f"https://{service}{found['rest']}", service


def read_p256dh(text: str) -> bytes:
    """Return the public key of a subscriber, 65 bytes; raises SubscriptionInvalid."""
    key = _bytes(text, POINT)
    try:
        EllipticCurvePublicKey.from_encoded_point(SECP256R1(), key)
    except ValueError:
        raise SubscriptionInvalid("must be a point of the curve P-256") from None
    return key


def read_auth(text: str) -> bytes:
    """Return the authentication secret of a subscriber, 16 bytes; raises SubscriptionInvalid."""
    return _bytes(text, SECRET)


def base64url(content: bytes) -> str:
    """Return base64url without padding, as WebPush uses it everywhere."""
    return urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


def _service(found: re.Match[str]) -> str | None:
    host, port = found["host"].lower(), int(found["port"] or HTTPS)
    if host.startswith("["):
        try:
            host = f"[{IPv6Address(host[1:-1])}]"
        except ValueError:
            return None
    if len(host) > 253 or port > 65535:  # noqa: PLR2004 -- octets of a name [RFC 1035 2.3.4], and the last port
        return None
    return host if port == HTTPS else f"{host}:{port}"


def _bytes(text: str, size: int) -> bytes:
    text = "".join(text.split())  # Android's Base64.DEFAULT breaks lines
    digits = text.rstrip("=").replace("+", "-").replace("/", "_")
    content = b""
    if len(text) <= 2 * size and _BASE64.fullmatch(text):
        with suppress(binascii.Error):
            content = urlsafe_b64decode(digits + "=" * (-len(digits) % 4))
    if len(content) != size:
        raise SubscriptionInvalid(f"must be {size} bytes in base64url")
    return content
