"""The sandbox: simulated mail server, APNs, FCM and push service, one control listener, and the files of a relay."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web
from rich.console import Console

from relay.http.listeners import open_listener
from relay.process.gc_tuning import freeze_heap
from relay.push.webpush.vapid import make_key
from relay.sandbox.apns import ApnsSimulator, open_apns_simulator
from relay.sandbox.certificates import ThrowAwayCa, make_apns_key, public_pem
from relay.sandbox.eas.control import control_app
from relay.sandbox.eas.rules import EasRules
from relay.sandbox.eas.server import ALPN, open_eas_simulator
from relay.sandbox.eas.simulator import EasSimulator
from relay.sandbox.fcm import FcmSimulator, open_fcm_simulator
from relay.sandbox.installation import APP, DOMAIN, PROJECT, TEAM, Ports, PushAccounts, write_installation
from relay.sandbox.push_control import push_control_app
from relay.sandbox.webpush import WebPushSimulator, open_webpush_simulator

PASSWORD: Final = "sandbox"
"""The password of the mailboxes that `relay sandbox` adds at its start."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The running simulators, their ports, and the files for a relay."""

    eas: EasSimulator
    apns: ApnsSimulator
    fcm: FcmSimulator
    webpush: WebPushSimulator
    ports: Ports
    folder: Path
    toml: Path
    """The settings of a relay on this machine that uses the simulators."""

    @property
    def control_url(self) -> str:
        """The URL of the control listener, which delivers mails and returns the received pushes."""
        return f"http://127.0.0.1:{self.ports.control}"

    @property
    def api_url(self) -> str:
        """The URL of the registration API of the relay of `toml`."""
        return f"https://127.0.0.1:{self.ports.api}"


@asynccontextmanager
async def open_sandbox(
    folder: Path,
    ports: Ports | None = None,
    *,
    level: str = "info",
    log_format: str = "json",
    rules: EasRules | None = None,
    http2: bool = True,
) -> AsyncIterator[Sandbox]:
    """Serve all simulators on loopback until the block ends, and write the files for a relay into `folder`.

    `rules` are those of the mail server; None: those of Exchange. `http2`: whether it speaks HTTP/2 too.
    """
    ports = ports or Ports()
    ca = ThrowAwayCa("Push relay sandbox")
    apns_key, key_id = make_apns_key()
    keys = {key_id: (public_pem(apns_key), TEAM)}
    async with AsyncExitStack() as stack:
        served = ca.server_context(alpn=ALPN if http2 else ())
        eas = await stack.enter_async_context(open_eas_simulator(tls=served, port=ports.eas, rules=rules))
        apns = await stack.enter_async_context(
            open_apns_simulator(tls=ca.server_context(alpn=["h2"]), keys=keys, topics=[APP], port=ports.apns)
        )
        fcm = await stack.enter_async_context(
            open_fcm_simulator(tls=ca.server_context(), project=PROJECT, port=ports.fcm)
        )
        webpush = await stack.enter_async_context(open_webpush_simulator(tls=ca.server_context(), port=ports.webpush))
        control = web.Application()
        control.add_subapp("/eas", control_app(eas))
        control.add_subapp("/push", push_control_app(apns, fcm, webpush))
        control_port = await stack.enter_async_context(open_listener(control, "127.0.0.1", ports.control))
        open_ports = Ports(
            eas.port,
            apns.port,
            fcm.port,
            webpush.port,
            control_port,
            ports.api or _free_port(),
            ports.ops or _free_port(),
        )
        accounts = PushAccounts(apns_key, key_id, fcm.service_account(), make_key())
        toml = write_installation(folder, ca, open_ports, accounts, level=level, log_format=log_format)
        yield Sandbox(eas, apns, fcm, webpush, open_ports, folder, toml)


def _free_port() -> int:
    """Return a port that is free now; another program may take it before the relay listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def run_sandbox(
    folder: Path,
    ports: Ports,
    out: Console,
    *,
    mailboxes: int = 0,
    level: str = "info",
    rules: EasRules | None = None,
    http2: bool = True,
) -> None:
    """Print the addresses of a sandbox and how to use it, and serve it until cancelled.

    `rules` are those of the mail server; None: those of Exchange. It has the mailboxes ann and ben, and `mailboxes`
    more: user1, user2, ..., all at example.com. `http2`: whether it speaks HTTP/2 too.
    """
    rules = rules or EasRules()
    like = (
        rules.personality.name.value if rules.workers is None else f"{rules.personality.name}, {rules.workers} workers"
    )
    async with open_sandbox(folder, ports, level=level, rules=rules, http2=http2) as sandbox:
        for name in ("ann", "ben", *(f"user{number}" for number in range(1, mailboxes + 1))):
            sandbox.eas.add_mailbox(f"{name}@{DOMAIN}", PASSWORD)
        lines = (
            f"mail server  {sandbox.eas.url}  (like {like}; ann@{DOMAIN}, ben@{DOMAIN}; password: {PASSWORD})",
            f"APNs         127.0.0.1:{sandbox.ports.apns}",
            f"FCM          {sandbox.fcm.url}",
            f"push service {sandbox.webpush.url}  (WebPush, as distributors of UnifiedPush speak it)",
            f"control      {sandbox.control_url}",
            "",
            f"Run a relay on it:   relay serve --config {sandbox.toml}",
            f"Deliver a mail:      relay deliver ann@{DOMAIN} --control {sandbox.control_url}",
            f"See what Apple got:  curl {sandbox.control_url}/push/apns/received",
            f"Subscribe a phone:   curl -X POST {sandbox.control_url}/push/webpush/subscriptions",
        )
        for line in lines:
            out.print(line, soft_wrap=True, markup=False)
        freeze_heap()
        await asyncio.Event().wait()
