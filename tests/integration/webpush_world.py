"""Helpers of the tests of WebPush: two push services over TLS, a sender that may use both, and phones."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from relay.domain.model import DuePush, Platform
from relay.domain.subscription import Subscription
from relay.process.clock import now
from relay.push.webpush.config import WebPushConfig
from relay.push.webpush.sender import WebPushSender
from relay.push.webpush.vapid import make_key, public_key
from relay.sandbox.certificates import ThrowAwayCa
from relay.sandbox.webpush import WebPushSimulator, open_webpush_simulator
from tests.fakes.egress import MemoryEgress
from tests.unit.relay.push.pushes import due_push

KEY = make_key()


@dataclass(frozen=True)
class WebPushWorld:
    simulator: WebPushSimulator
    other: WebPushSimulator
    sender: WebPushSender
    config: WebPushConfig
    egress: MemoryEgress
    ca: ThrowAwayCa

    def phone(self, simulator: WebPushSimulator | None = None, **changes: Any) -> DuePush:
        """Subscribe a new phone, and return a push to it."""
        return to((simulator or self.simulator).subscribe(public_key(KEY)), **changes)


def to(subscription: dict[str, Any], number: int = 1, **changes: Any) -> DuePush:
    keys = subscription["keys"]
    token = Subscription.of(subscription["endpoint"], keys["p256dh"], keys["auth"]).token
    return due_push(number, platform=Platform.WEBPUSH, device_token=token, **changes)


def endpoint(push: DuePush) -> str:
    return Subscription.read(push.device_token).endpoint


def write_key(folder: Path, key: bytes) -> None:
    """Write the VAPID key of the sender."""
    file = folder / "vapid.pem"
    file.touch(mode=0o600)
    file.write_bytes(key)


@asynccontextmanager
async def world(folder: Path, *more: str, key: bytes = KEY, **changes: Any) -> AsyncIterator[WebPushWorld]:
    """Open two push services, and a sender that may use both and `more`."""
    ca = ThrowAwayCa()
    ca.write_ca(folder / "ca.pem")
    write_key(folder, key)
    async with AsyncExitStack() as stack:
        simulator, other = [
            await stack.enter_async_context(open_webpush_simulator(tls=ca.server_context())) for _ in range(2)
        ]
        services = frozenset({simulator.service, other.service, *more})
        given = WebPushConfig(services, folder / "vapid.pem", "mailto:push@example.com", folder / "ca.pem")
        config = replace(given, **changes)
        egress = MemoryEgress()
        sender = await stack.enter_async_context(WebPushSender(config, now, Random(1), egress))
        yield WebPushWorld(simulator, other, sender, config, egress, ca)
