"""An egress log in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from relay.push.egress.leaving import Leaving, Unwritable
from relay.push.payload import WebPushMessage


@dataclass
class MemoryEgress:
    """An egress log that keeps the bodies that would leave, or refuses them as a full disk does."""

    bodies: list[str] = field(default_factory=list)
    full: bool = False

    def apns(self, pushes: Sequence[Leaving]) -> None:
        for push in pushes:
            self._note(push.message.rendered)

    def fcm(self, app: str, device_token: str, body: bytes) -> None:
        self._note(body.decode())

    def webpush(self, app: str, device_token: str, message: WebPushMessage) -> None:
        self._note(message.content.decode())

    def _note(self, body: str) -> None:
        if self.full:
            raise Unwritable("No space left on device")
        self.bodies.append(body)
