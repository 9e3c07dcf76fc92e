"""A small site for tests: the sandbox in this process, and real relay processes that start and end beside it."""

import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from push_relay_client import Identity, RelayApi

from eas_watcher.names import CollectionClass, ServerId
from relay.sandbox.installation import APP, Ports
from relay.sandbox.process import RelayProcess, open_relay
from relay.sandbox.sandbox import Sandbox, open_sandbox
from tests.ports import free_ports
from tests.waiting import until

ANN: Final = "ann@example.com"
PASSWORD: Final = "correct horse"
IPHONE: Final = "4a" * 32
ANDROID: Final = "fcm-token-of-an-android-phone"
PATIENT: Final = 30.0
"""Seconds that a registration waits for the verdict: on a busy machine longer than most phones would wait."""


def identity_of(answer: Mapping[str, Any]) -> Identity:
    """Return id and secret of an answer that has both."""
    return Identity(answer["id"], answer["secret"])


@dataclass
class Site:
    """The sandbox, and the API of a relay that runs on it."""

    sandbox: Sandbox
    api: aiohttp.ClientSession
    environ: Mapping[str, str]

    @asynccontextmanager
    async def relay(self, within: Sequence[str] = ()) -> AsyncIterator[RelayProcess]:
        async with open_relay(
            self.sandbox.toml, self.sandbox.ports.ops, environ=self.environ, within=within
        ) as process:
            yield process

    async def register(
        self, user: str = ANN, password: str = PASSWORD, device: Mapping[str, Any] | None = None, **wish: Any
    ) -> tuple[int, dict[str, Any]]:
        """Register a device, an iPhone unless another is given; return the HTTP status and the answer."""
        body = {
            "mailbox": user,
            "credential": {"kind": "basic", "password": password},
            "device": device or {"platform": "apns", "token": IPHONE, "app": APP},
            **wish,
        }
        async with self.api.post("/v1/registrations", json=body) as response:
            return response.status, await response.json(content_type=None)

    async def register_android(self, user: str = ANN, **wish: Any) -> tuple[int, dict[str, Any]]:
        return await self.register(user, device={"platform": "fcm", "token": ANDROID, "app": APP}, **wish)

    async def register_webpush(self, user: str = ANN, **wish: Any) -> tuple[int, dict[str, Any]]:
        """Subscribe a phone without Google, with the key that the relay publishes, and register it."""
        subscription = self.sandbox.webpush.subscribe(await self.client.vapid_public_key())
        return await self.register(user, device={"platform": "webpush", "app": APP, **subscription}, **wish)

    @property
    def client(self) -> RelayApi:
        """The API as apps ask it, by the reference client."""
        return RelayApi(self.api)

    def deliver(self, user: str = ANN, cls: CollectionClass = CollectionClass.EMAIL, **mail: Any) -> ServerId:
        return self.sandbox.eas.deliver(user, cls, **mail)

    async def held(self, count: int = 1) -> None:
        """Wait until the mail server holds at least so many Pings."""
        await until(lambda: self.sandbox.eas.held >= count)


async def troubles(relay: RelayProcess) -> list[dict[str, str]]:
    """Return the parts of a relay's health that are not ok, without the event loop, which shows this machine's load."""
    parts: list[dict[str, str]] = (await relay.health())["parts"]
    return [part for part in parts if part["state"] != "ok" and part["part"] != "event loop"]


async def healed(relay: RelayProcess) -> None:
    """Wait until no part of a relay's health has trouble."""

    async def well() -> bool:
        return not await troubles(relay)

    await until(well)


async def part_of(relay: RelayProcess, name: str, reason: str) -> dict[str, str]:
    """Wait until a part of a relay's health has a reason; return the part."""
    found: dict[str, str] = {}

    async def has_reason() -> bool:
        found.update(next(part for part in (await relay.health())["parts"] if part["part"] == name))
        return reason in found["reason"]

    await until(has_reason)
    return found


@asynccontextmanager
async def open_site(folder: Path, environ: Mapping[str, str] | None = None) -> AsyncIterator[Site]:
    api_port, ops = free_ports(2)  # a relay that starts again finds them free: no outgoing connection has them
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(open_sandbox(folder, Ports(api=api_port, ops=ops), level="debug"))
        trust = ssl.create_default_context(cafile=sandbox.folder / "ca.pem")
        # Connections to a relay that was killed cannot be used again: each request opens a new one.
        connector = aiohttp.TCPConnector(ssl=trust, force_close=True)
        api = await stack.enter_async_context(aiohttp.ClientSession(sandbox.api_url, connector=connector))
        yield Site(sandbox, api, {"RELAY__API__VERDICT_WAIT": str(PATIENT), **(environ or {})})
