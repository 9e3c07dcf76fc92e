"""The meaning of APNs' answers [Apple: Handling notification responses from APNs]."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from relay.domain.outcome import Delivered, Outcome, Reach, Refused, RetryLater, TokenGone

OK: Final = 200
FORBIDDEN: Final = 403
GONE: Final = 410
TOO_LARGE: Final = 413
TOO_MANY: Final = 429
SERVER_ERROR: Final = 500

CODE: Final = re.compile(r"[A-Za-z0-9]{1,64}", re.ASCII)

TOKEN_UPDATES_PAUSE: Final = 60.0
"""Seconds to wait when Apple saw too many provider tokens; it wants at most one new token in 20 minutes
[Apple: Establishing a token-based connection to APNs], and the relay uses one for 30."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = 253_402_300_799_999
"""The last millisecond that a datetime can name; a later timestamp is invalid."""

_TOKEN: Final = "compare the registration's app (topic) and environment with the build of the app on the device"
_TOPIC: Final = (
    "allow this topic for the push key or certificate in the Apple developer account, or correct apns.topics"
)
_KEY: Final = (
    "check apns.key_file, apns.key_id and apns.team_id against the key in the Apple developer account, and whether the "
    "clock of this host is ahead: Apple refuses provider tokens from the future, too"
)
_CERTIFICATE: Final = "check apns.certificate_file: its expiry, its topics and its environment"
_CLOCK: Final = "set the clock of this host, which is behind: the provider token counts as older than an hour"
_ENVIRONMENT: Final = (
    "the key or certificate is for the other environment: say so with `environments` of its account, "
    "and add one for this environment under apns.accounts"
)
_DOWN: Final = "Apple asks to wait: see Apple's system status page"
_UPDATES: Final = "do other servers use this key, or do several relays start again and again? They share Apple's limit"
_OURS: Final = "this is a fault of the relay: report it with the reason and the relay's version"

CHANNEL: Final = {
    "TopicDisallowed": _TOPIC,
    "BadTopic": _TOPIC,
    "MissingTopic": _TOPIC,
    "BadCertificate": _CERTIFICATE,
    "BadCertificateEnvironment": _ENVIRONMENT,
    "ExpiredProviderToken": _CLOCK,
    "InvalidProviderToken": _KEY,
    "MissingProviderToken": _KEY,
    "UnrelatedKeyIdInToken": _KEY,
    "BadEnvironmentKeyIdInToken": _ENVIRONMENT,
    "PayloadTooLarge": _OURS,
}
"""Reasons that concern every push of this app, with what the operator can do."""

UNNAMED: Final = {FORBIDDEN: f"{_KEY}; {_CERTIFICATE}", TOO_LARGE: _OURS}
"""Statuses that concern every push whatever their reason says."""

BAD_DEVICE_TOKEN: Final = "BadDeviceToken"
"""Apple does not know the device token in this environment."""
TOKEN: Final = frozenset({BAD_DEVICE_TOKEN, "DeviceTokenNotForTopic", "MissingDeviceToken"})


def read_apns(status: int, reason: str, timestamp: int | None, after: float | None = None) -> Outcome:
    """Read an APNs answer; `timestamp` is that of a 410, in milliseconds since 1970, `after` the requested pause (s).

    Only 410 is TokenGone. BadDeviceToken and DeviceTokenNotForTopic are Refused: Apple also answers a wrong environment
    or topic with them, and one slip in the settings must not delete every registration. A refusal with an unknown
    reason counts against this token only: its row waits, and other pushes show whether the channel is at fault.
    """
    code = reason if CODE.fullmatch(reason) else f"http-{status}"
    if status == OK:
        return Delivered()
    if status == GONE:
        return TokenGone(code, _moment(timestamp))
    if code == "TooManyProviderTokenUpdates":
        return RetryLater(code, max(after or 0.0, TOKEN_UPDATES_PAUSE), _UPDATES, provider=True)
    if status >= SERVER_ERROR:
        return RetryLater(code, after, _DOWN, provider=True, reach=Reach.ANSWERED)
    if status == TOO_MANY or code == "IdleTimeout":
        return RetryLater(code, after, reach=Reach.ANSWERED)
    return _refused(status, code)


def _refused(status: int, code: str) -> Refused:
    if code in TOKEN:
        return Refused(code, _TOKEN, reach=Reach.CHECKED)
    if code in CHANNEL:
        return Refused(code, CHANNEL[code], channel=True)
    return Refused(code, UNNAMED.get(status, _OURS), channel=status in UNNAMED)


def _moment(milliseconds: int | None) -> datetime | None:
    if milliseconds is None or not 0 < milliseconds <= LATEST:
        return None
    return EPOCH + timedelta(milliseconds=milliseconds)


def read_body(body: bytes) -> tuple[str, int | None]:
    """Return reason and timestamp from the body of an error answer; ("", None) when it has not Apple's form."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return "", None
    if not isinstance(document, dict):
        return "", None
    reason, timestamp = document.get("reason"), document.get("timestamp")
    return reason if isinstance(reason, str) else "", timestamp if isinstance(timestamp, int) else None
