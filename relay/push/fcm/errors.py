"""The codes, fields and times in the body of an FCM answer [google.rpc.Status, error_details].

The relay keeps only texts that have the form of a code: a body may come from anything between here and Google.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

CODE: Final = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)
FIELD: Final = re.compile(r"[A-Za-z0-9_.\[\]]{1,128}", re.ASCII)
DURATION: Final = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,9})?)s", re.ASCII)
MESSAGE_NAME: Final = re.compile(r"projects/[A-Za-z0-9_.:-]{1,64}/messages/[A-Za-z0-9_.:%-]{1,128}", re.ASCII)
DEVICE: Final = re.compile(r"\bdevice\b|\btoken\b|\bfid\b|\binstallation\b", re.ASCII | re.IGNORECASE)
"""The words of a violated quota that is one device's; Google documents that the quota is named, but not how."""


class Detail(StrEnum):
    """The kinds of `error.details` that say more than the canonical code."""

    FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
    ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
    BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
    QUOTA_FAILURE = "type.googleapis.com/google.rpc.QuotaFailure"
    RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


@dataclass(frozen=True, slots=True)
class FcmError:
    """The content of an error body; a field is empty when the body lacks it."""

    canonical: str = ""
    """The canonical code, e.g. NOT_FOUND; empty when something that is not Google answered."""
    code: str = ""
    """FCM's own code, e.g. UNREGISTERED; empty when something before FCM answered."""
    info: str = ""
    """The reason of an ErrorInfo, e.g. SERVICE_DISABLED."""
    fields: frozenset[str] = frozenset()
    """The fields of the request that are at fault, e.g. message.token."""
    device_quota: bool = False
    """True if the quota of this one device is used up."""
    retry_delay: float | None = None
    """Seconds to wait, if the body itself names them."""

    def name(self, status: int) -> str:
        """Return the most specific code."""
        return self.code or self.info or self.canonical or f"http-{status}"


def read_error(body: bytes) -> FcmError:
    """Read an error body; all fields are empty for another form than Google's, e.g. a proxy's HTML."""
    error = _document(body).get("error")
    if not isinstance(error, dict):
        return FcmError()
    code = info = ""
    fields: set[str] = set()
    device_quota, delay = False, None
    for detail in _objects(error.get("details")):
        match detail.get("@type"):
            case Detail.FCM_ERROR:
                code = code or _code(detail.get("errorCode"))
            case Detail.ERROR_INFO:
                info = info or _code(detail.get("reason"))
            case Detail.BAD_REQUEST:
                fields.update(_fields(detail))
            case Detail.QUOTA_FAILURE:
                device_quota = device_quota or _concerns_device(detail)
            case Detail.RETRY_INFO:
                delay = _seconds(detail.get("retryDelay"))
            case _:
                pass
    return FcmError(_code(error.get("status")), code, info, frozenset(fields), device_quota, delay)


def message_name(body: bytes) -> str | None:
    """Return the name of an accepted message; "" for a name in an unknown form, None when FCM accepts no message."""
    name = _document(body).get("name")
    if not isinstance(name, str):
        return None
    return name if MESSAGE_NAME.fullmatch(name) else ""


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body.decode())  # json would guess the encoding, which takes as long as the rest
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))


def _fields(detail: Mapping[str, Any]) -> Iterator[str]:
    for violation in _objects(detail.get("fieldViolations")):
        field = violation.get("field")
        # A field with another form is at fault as well, but its text may not enter a log.
        yield field if isinstance(field, str) and FIELD.fullmatch(field) else "unknown-field"


def _concerns_device(detail: Mapping[str, Any]) -> bool:
    return any(
        DEVICE.search(str(violation.get(name, "")))
        for violation in _objects(detail.get("violations"))
        for name in ("subject", "description")
    )


def _seconds(value: object) -> float | None:
    found = DURATION.fullmatch(value) if isinstance(value, str) else None
    return None if found is None else float(found[1])


def _code(value: object) -> str:
    return value if isinstance(value, str) and CODE.fullmatch(value) else ""
