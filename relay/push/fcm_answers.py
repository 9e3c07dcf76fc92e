"""Own what an answer of FCM v1 means [Google: FCM REST v1, ErrorCode; google.rpc.Status]."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from relay.push.outcome import Delivered, Outcome, Refused, RetryLater, TokenGone

OK: Final = 200
BAD_REQUEST: Final = 400
UNAUTHENTICATED: Final = 401
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
TOO_MANY: Final = 429

FCM_ERROR: Final = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
ERROR_INFO: Final = "type.googleapis.com/google.rpc.ErrorInfo"

CODE: Final = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)
MESSAGE_NAME: Final = re.compile(r"projects/[A-Za-z0-9_.:-]{1,64}/messages/[A-Za-z0-9_.:%-]{1,128}", re.ASCII)

QUOTA_PAUSE: Final = 60.0
"""Seconds to wait after a 429 that names no time [Google: Scale Firebase Cloud Messaging]."""

LONGEST: Final = 3600.0
"""Seconds; a longer Retry-After is not believed, lest one wrong date keeps a push for ever."""

_SENDER: Final = "the app on the device was built for another Firebase project: give it this project's settings file"
_ARGUMENT: Final = "FCM does not take this device token: let the app register again; if every push says so, report it"
_PROJECT: Final = "check project_id in fcm.service_account_file and that the project still exists"
_PERMISSION: Final = (
    "enable the Firebase Cloud Messaging API for the project and give the service account the role to send messages"
)
_KEY: Final = "check fcm.service_account_file: its key may be deleted; check the clock of this host too"
_THIRD_PARTY: Final = "upload a valid APNs or web push key to the Firebase project"

BY_CODE: Final[Mapping[str, tuple[str, bool]]] = {
    "SENDER_ID_MISMATCH": (_SENDER, False),
    "INVALID_ARGUMENT": (_ARGUMENT, False),
    "THIRD_PARTY_AUTH_ERROR": (_THIRD_PARTY, True),
}
"""FCM's own codes that refuse a push: the remedy, and whether the whole channel is at fault."""

PASSING: Final = frozenset({"QUOTA_EXCEEDED", "UNAVAILABLE", "INTERNAL"})
"""FCM's own codes that pass by themselves, whatever the HTTP status."""

BY_STATUS: Final[Mapping[int, tuple[str, bool]]] = {
    BAD_REQUEST: (_ARGUMENT, False),
    UNAUTHENTICATED: (_KEY, True),
    FORBIDDEN: (_PERMISSION, True),
    NOT_FOUND: (_PROJECT, True),
}
"""What refuses a push when no code of FCM's own says more."""


@dataclass(frozen=True, slots=True)
class FcmError:
    """Hold the codes of an error body; each is empty when the body lacks it. Free text is never kept."""

    status: str = ""
    """The canonical code, e.g. NOT_FOUND."""
    code: str = ""
    """FCM's own code, e.g. UNREGISTERED; empty when something before FCM answered."""
    info: str = ""
    """The reason of an ErrorInfo, e.g. SERVICE_DISABLED."""

    def name(self, status: int) -> str:
        """Give the most telling code."""
        return self.code or self.info or self.status or f"http-{status}"


def read_fcm(status: int, body: bytes, headers: Mapping[str, str], now: datetime) -> Outcome:
    """Read an FCM answer; header names are lower-case.

    The meaning comes from FCM's own code in `error.details`, not from the HTTP status: 404 is also the answer for an
    unknown project and 403 for a disabled API, and neither may cost a registration. Only UNREGISTERED is TokenGone.
    """
    if status == OK:
        return Delivered(_message_name(body))
    error = read_error(body)
    name = error.name(status)
    if error.code == "UNREGISTERED":
        return TokenGone(name)
    refusal = BY_CODE.get(error.code)
    if refusal is None and error.code not in PASSING:
        refusal = BY_STATUS.get(status)
    if refusal is not None:
        return Refused(name, *refusal)
    after = retry_after(headers.get("retry-after", ""), now)
    if after is None and (error.code == "QUOTA_EXCEEDED" or status == TOO_MANY):
        after = QUOTA_PAUSE
    return RetryLater(name, after)


def token_refused(status: int, body: bytes) -> bool:
    """Tell whether our access token was refused: a new one may help, once."""
    return status == UNAUTHENTICATED and read_error(body).code != "THIRD_PARTY_AUTH_ERROR"


def read_error(body: bytes) -> FcmError:
    """Find the codes in an error body; anything else, e.g. a proxy's HTML, has none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return FcmError()
    error = document.get("error") if isinstance(document, dict) else None
    if not isinstance(error, dict):
        return FcmError()
    code = info = ""
    for detail in _details(error):
        if detail.get("@type") == FCM_ERROR:
            code = code or _code(detail.get("errorCode"))
        elif detail.get("@type") == ERROR_INFO:
            info = info or _code(detail.get("reason"))
    return FcmError(_code(error.get("status")), code, info)


def retry_after(value: str, now: datetime) -> float | None:
    """Read a Retry-After header, seconds or a date [RFC 9110 10.2.3]; None when it names no time."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value), LONGEST)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, min((moment - now).total_seconds(), LONGEST))


def _details(error: dict[object, object]) -> Iterator[dict[object, object]]:
    details = error.get("details")
    if isinstance(details, list):
        yield from (detail for detail in details if isinstance(detail, dict))


def _code(value: object) -> str:
    return value if isinstance(value, str) and CODE.fullmatch(value) else ""


def _message_name(body: bytes) -> str:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    name = document.get("name") if isinstance(document, dict) else None
    return name if isinstance(name, str) and MESSAGE_NAME.fullmatch(name) else ""
