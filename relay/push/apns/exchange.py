"""Own what a connection to APNs is asked and answers: requests, answers, and the two ways to have none."""

import asyncio
from typing import Any, Final

from aioapns import NotificationRequest
from aioapns.common import NotificationResult
from aioapns.exceptions import ConnectionClosed

from relay.push.apns.answers import read_body

BODY_LIMIT: Final = 65_536
"""Bytes of an answer that are kept; Apple's have less than a hundred."""


class NotSent(ConnectionClosed):
    """Tell that the server did nothing with the request: it may be sent again freely."""


class NotBegun(NotSent):
    """Tell that the request never got a stream: its connection ended, or ends, while it waited for one."""


class MaybeSent(ConnectionClosed):
    """Tell that nobody knows whether the push reached the phone: again at most once, under the same ids."""


class Request(NotificationRequest):
    """Carry the very bytes of the body, where aioapns would render it once more."""

    __slots__ = ("body", "expires_at")

    def __init__(self, device_token: str, body: bytes, expires_at: int, **options: Any) -> None:
        """Take a device token in hex, when the push is of no use any more (Unix time), and aioapns' options."""
        super().__init__(device_token, {}, **options)
        self.body = body
        self.expires_at = expires_at

    def headers(self, host: bytes, authorization: str) -> list[tuple[bytes, bytes]]:
        """Write the headers [Apple: Sending notification requests to APNs]; what requests share comes first."""
        headers = [
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":authority", host),
            (b":path", b"/3/device/%b" % self.device_token.encode()),
            (b"apns-topic", str(self.apns_topic).encode()),
            (b"apns-push-type", b"" if self.push_type is None else self.push_type.value.encode()),
            (b"apns-priority", str(self.priority).encode()),
        ]
        if authorization:
            headers.append((b"authorization", authorization.encode()))
        headers += (
            (b"apns-id", self.notification_id.encode()),
            (b"apns-expiration", str(self.expires_at).encode()),
            (b"apns-collapse-id", str(self.collapse_key).encode()),
        )
        return headers


class Answer(NotificationResult):
    """Add to aioapns' answer what else came, and under which authorization it was asked."""

    __slots__ = ("authorization", "retry_after")

    def __init__(self, notification_id: str, status: str) -> None:
        super().__init__(notification_id, status)
        self.retry_after = ""
        self.authorization = ""


class Call:
    """Put one answer together, frame by frame, for whoever waits for `future`."""

    __slots__ = ("_answer", "_body", "future")

    def __init__(self, future: "asyncio.Future[Answer]", notification_id: str, authorization: str) -> None:
        self.future = future
        self._answer = Answer(notification_id, "")
        self._answer.authorization = authorization
        self._body = b""

    def begin(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Take the headers of the answer."""
        for name, value in headers:
            if name == b":status":
                self._answer.status = value.decode("ascii", "replace")
            elif name == b"retry-after":
                self._answer.retry_after = value.decode("ascii", "replace")

    def take(self, data: bytes) -> None:
        """Take a piece of the body; what is past the limit is dropped."""
        if len(self._body) < BODY_LIMIT:
            self._body += data

    def finish(self) -> None:
        """Hand the answer, which is whole now, to whoever still waits for it."""
        if not self.future.done():
            if self._body:
                self._answer.description, self._answer.timestamp = read_body(self._body)
            self.future.set_result(self._answer)

    def fail(self, error: NotSent | MaybeSent) -> None:
        """Tell whoever still waits that no answer will come."""
        if not self.future.done():
            self.future.set_exception(error)
