"""What is about to leave the company, as senders hand it to the egress log, and a push that the log cannot take."""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from relay.domain.outcome import Reach, RetryLater
from relay.push.payload import ApnsMessage, WebPushMessage

AGAIN: Final = 2.0
"""Seconds until a push is tried again that could not be logged."""
ROOM: Final = (
    "pushes wait until the egress log can be written, and go on by themselves: make room on the disk of egress.folder, "
    "and see that the relay may write there"
)


class Unwritable(Exception):
    """A push cannot be logged, so it must not be sent."""


def held(error: Unwritable) -> RetryLater:
    """Return the outcome of a push that cannot be logged: it was not tried."""
    return RetryLater(f"egress-log: {error}", AGAIN, ROOM, reach=Reach.HERE)


class Leaving(NamedTuple):
    """A push to APNs that is about to leave."""

    app: str
    device_token: str
    message: ApnsMessage


class Egress(Protocol):
    """Records what is about to leave the company."""

    def apns(self, pushes: Sequence[Leaving]) -> None:
        """Record pushes to APNs that leave together, all or none; raise Unwritable."""

    def fcm(self, app: str, device_token: str, body: bytes) -> None:
        """Record a push to FCM; raise Unwritable."""

    def webpush(self, app: str, device_token: str, message: WebPushMessage) -> None:
        """Record the plaintext of an encrypted push to a push service; raise Unwritable."""
