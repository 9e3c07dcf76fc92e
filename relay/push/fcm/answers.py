"""The meaning of FCM v1's answers [Google: FCM REST v1, ErrorCode; google.rpc.Status, error_details]."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from eas_watcher.retry_after import LONGEST, retry_after
from relay.domain.outcome import Delivered, Outcome, Reach, Refused, RetryLater, TokenGone
from relay.push.fcm.errors import FcmError, message_name, read_error

OK: Final = 200
BAD_REQUEST: Final = 400
UNAUTHENTICATED: Final = 401
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
TIMED_OUT: Final = 408
TOO_MANY: Final = 429
SERVER_ERROR: Final = 500

QUOTA_PAUSE: Final = 60.0
"""Seconds to wait after a 429 that names no time [Google: Scale Firebase Cloud Messaging]."""


TOKEN_FIELDS: Final = frozenset({"message.token", "token", "message.fid", "fid"})
"""The names of the device token or FID in a violation."""

_SENDER: Final = (
    "the app on the device was built for another Firebase project than that of [{table}]: give it this project's "
    "settings file, or list the app in the table of its project"
)
_ARGUMENT: Final = (
    "FCM does not take this registration token or FID: let the app register again; if every push says so, report it"
)
_OURS: Final = "this is a fault of the relay, not of a phone: report it with this reason; all pushes are kept"
_PROJECT: Final = "check project_id in {table}.service_account_file and that the project still exists"
_PERMISSION: Final = (
    "enable the Firebase Cloud Messaging API for the project of [{table}] and give the service account the role to "
    "send messages"
)
_KEY: Final = "check {table}.service_account_file: its key may be deleted; check the clock of this host too"
_THIRD_PARTY: Final = "upload a valid APNs or web push key to the Firebase project of [{table}]"
_FOREIGN: Final = "something that is not FCM answers: check fcm.url and any proxy on the way"
_QUOTA: Final = (
    "FCM's quota of the project of [{table}] is used up: look at the quotas of the Firebase Cloud Messaging API"
)
_DOWN: Final = "FCM itself is in trouble: nothing to do here; look at Google's status page if it lasts"

BY_CODE: Final[Mapping[str, tuple[str, bool]]] = {
    "SENDER_ID_MISMATCH": (_SENDER, False),
    "INVALID_ARGUMENT": (_ARGUMENT, False),
    "THIRD_PARTY_AUTH_ERROR": (_THIRD_PARTY, True),
}
"""FCM's own codes that refuse a push: the remedy, and whether the whole channel is at fault.

In remedies, {table} stands for the project's table in relay.toml.
"""

PASSING: Final = frozenset({"QUOTA_EXCEEDED", "UNAVAILABLE", "INTERNAL"})
"""FCM's own codes that pass by themselves, whatever the HTTP status."""

BY_STATUS: Final[Mapping[int, tuple[str, bool]]] = {
    BAD_REQUEST: (_ARGUMENT, False),
    UNAUTHENTICATED: (_KEY, True),
    FORBIDDEN: (_PERMISSION, True),
    NOT_FOUND: (_PROJECT, True),
}
"""The same for refusals of Google without a code of FCM's own, by HTTP status."""


def read_fcm(status: int, body: bytes, headers: Mapping[str, str], now: datetime, table: str = "fcm") -> Outcome:
    """Read an FCM answer; header names are lower-case, `table` is that of the project in relay.toml, for remedies.

    The meaning comes from FCM's own code in `error.details`, not from the HTTP status: 404 is also the answer for an
    unknown project and 403 for a disabled API, and neither may cost a registration. Only UNREGISTERED is TokenGone.
    An answer that is not in Google's form came from something else, whatever its status: the push was not delivered.
    """
    if status == OK:
        name = message_name(body)
        return Refused("not-from-fcm", _FOREIGN, channel=True) if name is None else Delivered(name)
    error = read_error(body)
    if error.code == "UNREGISTERED":
        return TokenGone(error.code)
    outcome = _refusal(status, error) or _passing(status, error, headers, now)
    return replace(outcome, remedy=outcome.remedy.replace("{table}", table))


def quota_of_project(status: int, body: bytes) -> bool:
    """Return True if an answer says that a quota of the whole project is used up, and not one of a single device."""
    if status == OK:
        return False
    error = read_error(body)
    return _is_quota(status, error) and not error.device_quota


def token_refused(status: int, body: bytes) -> bool:
    """Return True if Google refuses the access token: a new one may help, once."""
    return status == UNAUTHENTICATED and read_error(body).code != "THIRD_PARTY_AUTH_ERROR"


def _refusal(status: int, error: FcmError) -> Refused | None:
    """Return the refusal that an answer means; None if the push may succeed later."""
    name = error.name(status)
    ours = sorted(error.fields - TOKEN_FIELDS)
    if ours and error.canonical == "INVALID_ARGUMENT":
        # All bodies come from the same few templates: if FCM rejects a field of one, it rejects it for every token.
        return Refused(f"{name}: {', '.join(ours)}", _OURS, channel=True)
    if error.code in BY_CODE:
        return Refused(name, *BY_CODE[error.code], reach=Reach.CHECKED)
    if error.code in PASSING or status in {TIMED_OUT, TOO_MANY} or status >= SERVER_ERROR:
        return None
    if not error.canonical:
        return Refused(name, _KEY if status == UNAUTHENTICATED else _FOREIGN, channel=True)
    return Refused(name, *BY_STATUS[status]) if status in BY_STATUS else None


def _passing(status: int, error: FcmError, headers: Mapping[str, str], now: datetime) -> RetryLater:
    """Return the wait that an answer means; it concerns all pushes unless it is one device's quota or is unknown."""
    after = retry_after(headers.get("retry-after", ""), now)
    if after is None and error.retry_delay is not None:
        after = min(error.retry_delay, LONGEST)
    quota = _is_quota(status, error)
    if quota and after is None:
        after = QUOTA_PAUSE
    name = error.name(status)
    if quota:
        if error.device_quota:
            return RetryLater(name, after, reach=Reach.ANSWERED)
        return RetryLater(name, after, _QUOTA, provider=True, reach=Reach.ANSWERED)
    if error.code in PASSING or status == TIMED_OUT or status >= SERVER_ERROR:
        remedy = _DOWN if error.canonical else _FOREIGN
        return RetryLater(name, after, remedy, provider=True, reach=Reach.ANSWERED)
    return RetryLater(name, after, reach=Reach.ANSWERED)


def _is_quota(status: int, error: FcmError) -> bool:
    return error.code == "QUOTA_EXCEEDED" or status == TOO_MANY
