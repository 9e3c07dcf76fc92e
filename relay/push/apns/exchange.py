"""A request to APNs, its answer, and the two ways to end without one.

The values are aioapns' `NotificationRequest` and `NotificationResult`, each with the little that it lacks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from aioapns import NotificationRequest
from aioapns.common import NotificationResult

from eas_watcher.http2.header_block import header_block, header_field, header_name, string
from relay.push.egress.log import Leaving
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


_PATH: Final = header_name(b":path")
_ID: Final = header_name(b"apns-id")
_EXPIRATION: Final = header_name(b"apns-expiration")
_COLLAPSE_ID: Final = header_name(b"apns-collapse-id")
_ONE_OCTET: Final = 127
"""The length of a string that takes more than one octet [RFC 7541 5.1]."""


class HeaderBlocks:
    """The header blocks of requests to one host; the parts that requests share are written once."""

    __slots__ = ("_authorization", "_authorized", "_pseudo", "_shared")

    def __init__(self, host: str) -> None:
        self._pseudo = header_block(((b":method", b"POST"), (b":scheme", b"https"), (b":authority", host.encode())))
        self._shared: dict[tuple[object, object, object], bytes] = {}
        """By topic, push type and priority, of which the settings and the templates make a few."""
        self._authorization = ""
        self._authorized = b""

    def write(self, request: Request, authorization: str) -> bytes:
        """Return the headers [Apple: Sending notification requests to APNs]; values need no check: they are our own."""
        push = request.notification
        key = (push.apns_topic, push.push_type, push.priority)
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = _write_shared(push)
        if authorization != self._authorization:
            self._authorization = authorization
            self._authorized = header_field(b"authorization", authorization.encode()) if authorization else b""
        path = b"/3/device/" + push.device_token.encode()
        collapse_id = push.collapse_key.encode() if push.collapse_key else b""
        identity, expires_at = push.notification_id.encode(), b"%d" % request.expires_at
        if len(path) < _ONE_OCTET and len(collapse_id) < _ONE_OCTET and len(identity) < _ONE_OCTET:
            return b"%b%b%c%b%b%b%b%c%b%b%c%b%b%c%b" % (
                *(self._pseudo, _PATH, len(path), path),
                *(shared, self._authorized),
                *(_ID, len(identity), identity),
                *(_EXPIRATION, len(expires_at), expires_at),
                *(_COLLAPSE_ID, len(collapse_id), collapse_id),
            )
        own = ((_ID, identity), (_EXPIRATION, expires_at), (_COLLAPSE_ID, collapse_id))
        written = [name + string(value) for name, value in own]
        return b"".join((self._pseudo, _PATH, string(path), shared, self._authorized, *written))


def _write_shared(push: NotificationRequest) -> bytes:
    push_type = b"" if push.push_type is None else push.push_type.value.encode()
    return header_block(
        (
            (b"apns-topic", str(push.apns_topic).encode()),
            (b"apns-push-type", push_type),
            (b"apns-priority", str(push.priority).encode()),
        )
    )
