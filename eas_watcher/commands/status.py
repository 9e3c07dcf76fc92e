"""The status codes that all commands share [MS-ASCMD 2.2.2], and the EasError that each means."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from eas_watcher.errors import (
    AccessDenied,
    EasError,
    NotProvisioned,
    ProtocolViolation,
    RemoteWipeRequested,
    RequestRefused,
    ServerBusy,
    StateLost,
    VersionRefused,
)
from eas_watcher.reasons import Reason

OK: Final = 1
COMMON_FROM: Final = 101  # lower codes have another meaning in every command
LONG: Final = 900.0  # seconds; the wait after "do not retry soon" and for a full mailbox


@dataclass(frozen=True, slots=True)
class Meaning:
    """The error that a status means, and its description in fixed words."""

    error: type[EasError]
    detail: str
    retry_after: float | None = None
    """Seconds to wait; for ServerBusy only."""
    reason: Reason | None = None
    """For AccessDenied only."""


def _denied(reason: Reason, detail: str) -> Meaning:
    return Meaning(AccessDenied, detail, reason=reason)


def _foreign(about: str) -> Meaning:
    """Return the meaning of a status of commands that the relay never sends: the answer counts as unreadable."""
    return Meaning(ProtocolViolation, f"the server answers with a status about {about}, which we never ask for")


COMMON: Final = MappingProxyType(
    {
        101: Meaning(RequestRefused, "the server calls our request invalid"),
        102: Meaning(RequestRefused, "the server calls our WBXML invalid"),
        103: Meaning(RequestRefused, "the server calls our XML invalid"),
        104: Meaning(RequestRefused, "the server calls a date of ours invalid"),
        105: Meaning(RequestRefused, "the server calls a combination of our ids invalid"),
        106: Meaning(RequestRefused, "the server calls our ids invalid"),
        107: Meaning(RequestRefused, "the server calls our MIME invalid"),
        108: Meaning(RequestRefused, "the server calls our device id invalid"),
        109: Meaning(RequestRefused, "the server calls our device type invalid"),
        110: Meaning(ServerBusy, "the server has an error and asks not to retry soon", LONG),
        111: Meaning(ServerBusy, "the server has an error and asks to retry later"),
        112: _denied(Reason.EAS_112, "the server may not read the account in the directory"),
        113: Meaning(ServerBusy, "the mailbox is full", LONG),
        114: Meaning(ServerBusy, "the mailbox server is offline"),
        115: Meaning(ServerBusy, "the send quota is exceeded", LONG),
        **dict.fromkeys(range(116, 123), _foreign("sending mail")),
        123: _denied(Reason.EAS_123, "the user has no mailbox"),
        124: _denied(Reason.EAS_124, "anonymous access is not allowed"),
        125: _denied(Reason.EAS_125, "the user is not found in the directory"),
        126: _denied(Reason.EAS_126, "the user may not use ActiveSync"),
        127: _denied(Reason.EAS_127, "the mailbox is on a newer server that serves it at another URL"),
        128: _denied(Reason.EAS_128, "the mailbox is on an older server that serves it at another URL"),
        129: _denied(Reason.EAS_129, "the device is blocked for this user"),
        130: _denied(Reason.EAS_130, "access is denied"),
        131: _denied(Reason.EAS_131, "the account is disabled"),
        132: Meaning(StateLost, "the server lost the sync state"),
        133: Meaning(ServerBusy, "the sync state is locked, as while a mailbox moves"),
        134: Meaning(StateLost, "the sync state is corrupt"),
        135: Meaning(StateLost, "the sync state exists already"),
        136: Meaning(StateLost, "the sync state is of another version"),
        137: Meaning(VersionRefused, "the server does not know the command"),
        138: Meaning(VersionRefused, "the server does not serve this protocol version"),
        139: _denied(Reason.EAS_139, "the server wants its policy enforced by the device"),
        140: Meaning(RemoteWipeRequested, "a remote wipe is requested"),
        141: Meaning(NotProvisioned, "the server wants a policy key"),
        142: Meaning(NotProvisioned, "the device is not provisioned"),
        143: Meaning(NotProvisioned, "the policy is due for a refresh"),
        144: Meaning(NotProvisioned, "the policy key is not valid"),
        145: _denied(Reason.EAS_145, "the server refuses devices that a third party manages"),
        146: _foreign("a recurrence"),
        147: _foreign("the class of an item"),
        148: _foreign("another server's TLS"),
        149: Meaning(ServerBusy, "the server forgot the request it had stored"),
        150: _foreign("a single item"),
        151: _denied(Reason.EAS_151, "the mailbox has more folders than the server can list"),
        152: Meaning(ServerBusy, "the server found no folders"),
        **dict.fromkeys(range(153, 157), _foreign("moving or deleting items")),
        **dict.fromkeys(range(160, 164), _foreign("the availability of people")),
        164: Meaning(RequestRefused, "the server calls the kind of body that we ask for unsupported"),
        165: Meaning(NotProvisioned, "the server wants our device information"),
        **dict.fromkeys((166, 167), _foreign("the account to send from")),
        **dict.fromkeys(range(168, 173), _foreign("rights management")),
        **dict.fromkeys(range(173, 176), _foreign("pictures")),
        176: _foreign("parts of bodies"),
        177: _denied(Reason.EAS_177, "the user has too many devices: remove old ones"),
        **dict.fromkeys((178, 179, 183, 184), _foreign("sending or editing")),
    }
)
"""Status -> its meaning; other values are not in the specification."""


def raise_for_status(command: str, status: int) -> None:
    """Raise the EasError that a common status of a command's answer means; 1 is success and returns.

    `command` must be our own text, because the error repeats it. Raises ProtocolViolation for an unknown status.
    """
    if status == OK:
        return
    meaning = COMMON.get(status)
    if meaning is None:
        raise ProtocolViolation(f"{command} was answered with the unexpected status {status}")
    detail = f"{meaning.detail} ({command} status {status})"
    if meaning.reason is not None:
        raise AccessDenied(detail, meaning.reason)
    if meaning.error is ServerBusy:
        raise ServerBusy(detail, meaning.retry_after)
    raise meaning.error(detail)
