"""A request to APNs, its answer, and the two ways to end without one.

The values are aioapns' `NotificationRequest` and `NotificationResult`, each with the little that it lacks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from aioapns import NotificationRequest
from aioapns.common import NotificationResult

from eas_watcher.http2.header_block import header_block, header_field, header_name, integer
from relay.push.egress.leaving import Leaving
from relay.push.payload import ApnsMessage


class Ending(StrEnum):
    """Why a request ended without an answer; operators read the values as reasons."""

    CONNECTION_LOST = "connection-lost"
    CONNECTION_BROKEN = "connection-broken"
    """One side broke HTTP/2."""
    CONNECTION_SILENT = "connection-silent"
    SERVER_FLOODS = "server-floods"
    """It sends far more frames than pushes need."""
    SERVER_GOES_AWAY = "server-goes-away"
    SERVER_HANGS_UP = "server-hangs-up"
    """With an error, in a GOAWAY."""
    NO_HTTP2 = "no-http2"
    STREAM_REFUSED = "stream-refused"
    STREAM_RESET = "stream-reset"
    STREAM_IDS_USED_UP = "stream-ids-used-up"
    KEY_CHANGED = "key-changed"
    RELAY_STOPS = "relay-stops"

    @property
    def concerns_all(self) -> bool:
        """True if APNs, or the way to it, would end the next request like this one."""
        return self in {
            Ending.CONNECTION_LOST,
            Ending.CONNECTION_BROKEN,
            Ending.CONNECTION_SILENT,
            Ending.SERVER_FLOODS,
            Ending.SERVER_GOES_AWAY,
            Ending.SERVER_HANGS_UP,
            Ending.NO_HTTP2,
        }


class Unanswered(Exception):
    """A request ended without an answer; `detail` is the name of an HTTP/2 error, if one came."""

    def __init__(self, ending: Ending, detail: str = "") -> None:
        super().__init__(f"{ending}: {detail}" if detail else ending.value)
        self.ending = ending


class NotSent(Unanswered):
    """The server did nothing with the request: it may be sent again freely."""


class MaybeSent(Unanswered):
    """It is unknown whether the push reached the phone: send it again at most once, under the same ids."""


class Request:
    """One push to one device token."""

    __slots__ = ("body", "expires_at", "message", "notification")

    def __init__(self, notification: NotificationRequest, message: ApnsMessage, expires_at: int) -> None:
        """`expires_at` is when the push is of no use any more, as Unix time.

        The notification's `message` and `time_to_live` stay empty: both are here in the form that goes out.
        """
        self.notification = notification
        self.message = message
        self.body = message.rendered.encode()
        self.expires_at = expires_at

    @property
    def leaving(self) -> Leaving:
        """What the egress log records of it."""
        return Leaving(str(self.notification.apns_topic), self.notification.device_token, self.message)


Record: TypeAlias = Callable[[Sequence[Request]], None]
"""Records requests that are about to leave, in the egress log; raises Unwritable, and then they must not leave."""


@dataclass(slots=True)
class Answer:
    """What APNs says about one push."""

    result: NotificationResult
    retry_after: str = ""
    """The header of that name."""
    authorization: str = ""
    """The authorization header of the request."""


_LATIN: Final = "latin-1"
"""Blocks are put together as text and encoded once: each octet is one character."""
_PATH: Final = header_name(b":path").decode(_LATIN)
_ID: Final = header_name(b"apns-id").decode(_LATIN)
_EXPIRATION: Final = header_name(b"apns-expiration").decode(_LATIN)
_COLLAPSE_ID: Final = header_name(b"apns-collapse-id").decode(_LATIN)
_SHORT: Final = 127
"""The length from which on a string's length takes more than one octet [RFC 7541 5.1]."""


class HeaderBlocks:
    """The header blocks of requests to one host; the parts that requests share are written once."""

    __slots__ = ("_authorization", "_authorized", "_pseudo", "_shared")

    def __init__(self, host: str) -> None:
        pseudo = ((b":method", b"POST"), (b":scheme", b"https"), (b":authority", host.encode()))
        self._pseudo = header_block(pseudo).decode(_LATIN)
        self._shared: dict[tuple[object, object, object], str] = {}
        """By topic, push type and priority, of which the settings and the templates make a few."""
        self._authorization = ""
        self._authorized = ""

    def write(self, request: Request, authorization: str) -> bytes:
        """Return the headers [Apple: Sending notification requests to APNs]; values need no check: they are our own."""
        push = request.notification
        key = (push.apns_topic, push.push_type, push.priority)
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = _write_shared(push)
        if authorization != self._authorization:
            self._authorization = authorization
            field = header_field(b"authorization", authorization.encode()) if authorization else b""
            self._authorized = field.decode(_LATIN)
        path, collapse_id = f"/3/device/{push.device_token}", push.collapse_key or ""
        return (
            f"{self._pseudo}{_PATH}{_length(path)}{path}{shared}{self._authorized}"
            f"{_ID}{_length(push.notification_id)}{push.notification_id}"
            f"{_EXPIRATION}\x0a{request.expires_at:010}"
            f"{_COLLAPSE_ID}{_length(collapse_id)}{collapse_id}"
        ).encode(_LATIN)


def _length(text: str) -> str:
    length = len(text)
    return chr(length) if length < _SHORT else integer(length, 7).decode(_LATIN)


def _write_shared(push: NotificationRequest) -> str:
    push_type = b"" if push.push_type is None else push.push_type.value.encode()
    return header_block(
        (
            (b"apns-topic", str(push.apns_topic).encode()),
            (b"apns-push-type", push_type),
            (b"apns-priority", str(push.priority).encode()),
        )
    ).decode(_LATIN)
