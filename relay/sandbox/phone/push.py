"""A push as the phone's provider has it: read from what the simulated provider received, without I/O."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from relay.domain.model import Platform

MONTH: Final = 30 * 86_400.0
"""Seconds that APNs keeps a push without apns-expiration at most: Apple names no time."""
FOUR_WEEKS: Final = 28 * 86_400.0
"""Seconds that FCM keeps a message without a ttl [Google: FCM REST v1, AndroidConfig]."""


@dataclass(frozen=True, slots=True)
class Push:
    """A push for one app on one phone."""

    platform: Platform
    registration: str
    kind: str
    cls: str = ""
    """Class of new items."""
    certain: bool = True
    title: str = ""
    """What the system shows (APNs only); elsewhere the app makes the text."""
    body: str = ""
    loud: bool = False
    """APNs: push type alert; FCM: high priority; WebPush: Urgency high."""
    collapse: str | None = None
    """Names the older push that this one replaces while it waits (on an iPhone also on the screen); None: none."""
    lifetime: float = 0.0
    """Seconds that the provider keeps it for a phone that it does not reach."""
    nonce: str = field(default="", repr=False)
    """What the app returns to a challenge."""
    payload: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The whole JSON of the push."""

    @property
    def tag(self) -> str:
        """The banner that it replaces on the screen: on an iPhone by collapse id, elsewhere as the app tags it."""
        if self.platform is Platform.APNS and self.collapse is not None:
            return self.collapse
        return f"{self.registration}.{self.cls or self.kind}"


def read_push(platform: Platform, received: Mapping[str, Any], now: float) -> Push | None:
    """Return the push of one entry of `received` of the control listener; None: the phone cannot read it.

    `now` is the time in seconds since 1970, from which apns-expiration counts.
    """
    headers = received["headers"]
    if platform is Platform.APNS:
        return _apns(_object(received["body"]), headers, now)
    if platform is Platform.FCM:
        return _fcm(_object(received["body"]))
    payload = _object(received.get("message"))
    loud = headers.get("urgency", "normal") == "high"
    return _made(platform, payload, payload, loud, headers.get("topic"), _number(headers.get("ttl"), 0.0))


def _apns(payload: Mapping[str, Any], headers: Mapping[str, str], now: float) -> Push | None:
    aps = payload.get("aps")
    alert = aps.get("alert") if isinstance(aps, dict) else None
    ends = headers.get("apns-expiration")
    lifetime = MONTH if ends is None else max(0.0, _number(ends, 0.0) - now)
    loud = headers.get("apns-push-type") == "alert"
    collapse = headers.get("apns-collapse-id")
    data = payload.get("relay")
    return _made(Platform.APNS, payload, data, loud, collapse, lifetime, alert)


def _fcm(document: Mapping[str, Any]) -> Push | None:
    message = document.get("message")
    if not isinstance(message, dict):
        return None
    android = message.get("android")
    options = android if isinstance(android, dict) else {}
    lifetime = _number(str(options.get("ttl", "")).removesuffix("s"), FOUR_WEEKS)
    loud = options.get("priority") == "HIGH"
    return _made(Platform.FCM, message, message.get("data"), loud, options.get("collapse_key"), lifetime)


def _made(
    platform: Platform,
    payload: Mapping[str, Any],
    data: object,
    loud: bool,
    collapse: str | None,
    lifetime: float,
    alert: object = None,
) -> Push | None:
    """Return the push of its parts; None: its data is not the relay's."""
    if not isinstance(data, dict) or not {"registration", "kind"} <= data.keys():
        return None
    shown = alert if isinstance(alert, dict) else {}
    return Push(
        platform,
        registration=str(data["registration"]),
        kind=str(data["kind"]),
        cls=str(data.get("class", "")),
        certain=data.get("certain") not in (False, "false"),
        title=str(shown.get("title", "")),
        body=str(shown.get("body", "")),
        loud=loud,
        collapse=collapse,
        lifetime=lifetime,
        nonce=str(data.get("nonce", "")),
        payload=payload,
    )


def _object(text: object) -> dict[str, Any]:
    """Return the JSON object of a text; empty: it has none."""
    try:
        document = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _number(text: str | None, default: float) -> float:
    """Return the number of a header; `default` without one."""
    try:
        return float(text or "")
    except ValueError:
        return default
