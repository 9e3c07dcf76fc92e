"""A request to APNs, its answer, and the two ways to end without one.

The values are aioapns' `NotificationRequest` and `NotificationResult`, each with the little that it lacks.
"""

from dataclasses import dataclass
from enum import StrEnum

from aioapns import NotificationRequest
from aioapns.common import NotificationResult


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
    CONNECTING_STOPPED = "connecting-stopped"
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


class NotBegun(NotSent):
    """The request never got a stream: its connection ended, or ends, while the request waited for one."""


class MaybeSent(Unanswered):
    """It is unknown whether the push reached the phone: send it again at most once, under the same ids."""


@dataclass(frozen=True, slots=True)
class Request:
    """One push to one device token."""

    notification: NotificationRequest
    """Its `message` and `time_to_live` stay empty: both are below in the form that goes out."""
    body: bytes
    expires_at: int
    """When the push is of no use any more, as Unix time."""

    def headers(self, host: bytes, authorization: str) -> list[tuple[bytes, bytes]]:
        """Return the headers [Apple: Sending notification requests to APNs]; those that requests share come first."""
        push = self.notification
        headers = [
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":authority", host),
            (b":path", b"/3/device/%b" % push.device_token.encode()),
            (b"apns-topic", str(push.apns_topic).encode()),
            (b"apns-push-type", b"" if push.push_type is None else push.push_type.value.encode()),
            (b"apns-priority", str(push.priority).encode()),
        ]
        if authorization:
            headers.append((b"authorization", authorization.encode()))
        headers += (
            (b"apns-id", push.notification_id.encode()),
            (b"apns-expiration", str(self.expires_at).encode()),
            (b"apns-collapse-id", str(push.collapse_key).encode()),
        )
        return headers


@dataclass(frozen=True, slots=True)
class Answer:
    """What APNs says about one push."""

    result: NotificationResult
    retry_after: str = ""
    """The header of that name."""
    authorization: str = ""
    """The authorization header of the request."""
