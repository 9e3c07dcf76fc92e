"""The sandbox: simulated mail server, APNs, FCM and push service, one control listener, and the files of a relay."""

import asyncio
import errno
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from random import SystemRandom
from typing import Final

from aiohttp import web
from rich.console import Console

from relay.domain.model import Environment
from relay.http.listeners import open_listener
from relay.process.clock import now
from relay.process.gc_tuning import freeze_heap
from relay.push.webpush.vapid import make_key
from relay.sandbox.apns import ApnsDevices, ApnsSimulator, open_apns_simulator
from relay.sandbox.certificates import lasting_ca, make_apns_key, public_pem
from relay.sandbox.eas.control import control_app
from relay.sandbox.eas.rules import EasRules
from relay.sandbox.eas.server import ALPN, open_eas_simulator
from relay.sandbox.eas.simulator import EasSimulator
from relay.sandbox.fcm import FcmSimulator, open_fcm_simulator
from relay.sandbox.front import open_front
from relay.sandbox.installation import APP, DOMAIN, PROJECT, TEAM, Ports, PushAccounts, write_installation
from relay.sandbox.place import Place, in_url
from relay.sandbox.push_control import push_control_app
from relay.sandbox.smtp import PASSWORD as SMTP_PASSWORD
from relay.sandbox.smtp import USER as SMTP_USER
from relay.sandbox.smtp import SmtpSimulator, open_smtp_simulator
from relay.sandbox.verbs import add_verbs
from relay.sandbox.webpush import WebPushSimulator, open_webpush_simulator

PASSWORD: Final = "sandbox"
"""The password of the mailboxes that `relay sandbox` adds at its start."""

PORTS: Final = range(10_000, 20_000)
"""Below those that the kernel gives to connections."""

OPEN: Final = ("Everybody who reaches this address controls the sandbox: use it in a network that you trust.",)

WEB_WITH: Final = "its pushes go through the push service of your browser's maker"
WEB_WITHOUT: Final = "with --browsers its pushes reach real browsers"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The running simulators, their ports, and the files for a relay."""

    eas: EasSimulator
    apns: ApnsSimulator
    """APNs' production environment."""
    apns_sandbox: ApnsSimulator
    """APNs' sandbox environment."""
    fcm: FcmSimulator
    webpush: WebPushSimulator
    smtp: SmtpSimulator
    ports: Ports
    place: Place
    folder: Path
    toml: Path
    """The settings of a relay on this machine that uses the simulators."""

    @property
    def control_url(self) -> str:
        """The URL of the control listener, which delivers mails and returns the received pushes."""
        return f"http://{self.place.shown}:{self.ports.control}"

    @property
    def web_url(self) -> str:
        """The URL of the relay's web app, for browsers on this machine."""
        return f"http://localhost:{self.ports.web}/app/"

    @property
    def api_url(self) -> str:
        """The URL of the registration API of the relay of `toml`."""
        return f"https://{self.place.shown}:{self.ports.api}"


@asynccontextmanager
async def open_sandbox(
    folder: Path,
    ports: Ports | None = None,
    *,
    level: str = "info",
    log_format: str = "json",
    rules: EasRules | None = None,
    http2: bool = True,
    place: Place | None = None,
    browsers: bool = False,
) -> AsyncIterator[Sandbox]:
    """Serve all simulators until the block ends, and write the files for a relay into `folder`.

    `place` is where they listen; None: on loopback. `rules` are those of the mail server; None: those of Exchange.
    `http2`: whether it speaks HTTP/2 too. With `browsers` the relay may push to the real push services of browsers.
    """
    ports = ports or Ports()
    place = place or Place()
    host, reached = place.host, place.reached
    ca = lasting_ca(folder, "Push relay sandbox", now())
    apns_key, key_id = make_apns_key()
    keys = {key_id: (public_pem(apns_key), TEAM)}
    async with AsyncExitStack() as stack:
        served = ca.server_context(*place.certified, alpn=ALPN if http2 else ())
        eas = await stack.enter_async_context(
            open_eas_simulator(tls=served, host=host, port=ports.eas, rules=rules, reached=reached)
        )
        devices = ApnsDevices()
        apns, apns_sandbox = [
            await stack.enter_async_context(
                open_apns_simulator(
                    tls=ca.server_context(*place.certified, alpn=["h2"]),
                    keys=keys,
                    topics=[APP],
                    host=host,
                    port=port,
                    environment=environment,
                    devices=devices,
                )
            )
            for environment, port in (
                (Environment.PRODUCTION, ports.apns),
                (Environment.SANDBOX, ports.apns_sandbox),
            )
        ]
        tls = ca.server_context(*place.certified)
        fcm = await stack.enter_async_context(
            open_fcm_simulator(tls=tls, host=host, project=PROJECT, port=ports.fcm, reached=reached)
        )
        webpush = await stack.enter_async_context(
            open_webpush_simulator(
                tls=ca.server_context(*place.certified), host=host, port=ports.webpush, reached=reached
            )
        )
        smtp = await stack.enter_async_context(
            open_smtp_simulator(
                tls=ca.server_context(*place.certified),
                deliver=lambda recipient, subject: eas.deliver(recipient, subject=subject),
                host=host,
                port=ports.smtp,
            )
        )
        control = web.Application()
        control.add_subapp("/eas", control_app(eas))
        control.add_subapp("/push", push_control_app(apns, fcm, webpush, apns_sandbox))
        add_verbs(control, eas, apns, apns_sandbox, fcm, webpush)
        control_port = await stack.enter_async_context(open_listener(control, host, ports.control))
        api, ops = _unless_given(ports.api, ports.ops)
        web_port = await stack.enter_async_context(open_front(f"https://{reached}:{api}", folder / "ca.pem", ports.web))
        open_ports = Ports(
            eas.port,
            apns.port,
            fcm.port,
            webpush.port,
            control_port,
            api,
            ops,
            apns_sandbox.port,
            web_port,
            smtp.port,
        )
        accounts = PushAccounts(apns_key, key_id, fcm.service_account(), make_key())
        toml = write_installation(
            folder, ca, open_ports, accounts, place=place, level=level, log_format=log_format, browsers=browsers
        )
        _write_site(folder, place, open_ports)
        yield Sandbox(eas, apns, apns_sandbox, fcm, webpush, smtp, open_ports, place, folder, toml)


def _write_site(folder: Path, place: Place, ports: Ports) -> None:
    """Write where `relay phone` finds relay and sandbox on this machine."""
    site = {
        "api": f"https://{place.reached}:{ports.api}",
        "control": f"http://{place.reached}:{ports.control}",
    }
    (folder / "sandbox.json").write_text(json.dumps(site), encoding="utf-8")


def _unless_given(*ports: int) -> list[int]:
    """Return ports, and for each 0 among them another one that is free now.

    Another program may take it before the relay listens, but no connection gets it from the kernel.
    """
    with ExitStack() as held:
        return [port or _free_port(held) for port in ports]


def _free_port(held: ExitStack) -> int:
    """Return a port that is free now; it stays bound until `held` closes, so that none is returned twice."""
    first = SystemRandom().choice(PORTS)
    for port in chain(range(first, PORTS.stop), range(PORTS.start, first)):
        probe = held.enter_context(socket.socket())
        with suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(errno.EADDRINUSE, f"no port from {PORTS.start} to {PORTS.stop - 1} is free")


async def run_sandbox(
    folder: Path,
    ports: Ports,
    out: Console,
    *,
    mailboxes: int = 0,
    level: str = "info",
    rules: EasRules | None = None,
    http2: bool = True,
    place: Place | None = None,
    browsers: bool = False,
) -> None:
    """Print the addresses of a sandbox and how to use it, and serve it until cancelled.

    `rules` are those of the mail server; None: those of Exchange. It has the mailboxes ann and ben, and `mailboxes`
    more: user1, user2, ..., all at example.com. `http2`: whether it speaks HTTP/2 too. `place` is where
    all listens; None: on loopback. With `browsers` the relay may push to the real push services of browsers.
    """
    rules = rules or EasRules()
    like = (
        rules.personality.name.value if rules.workers is None else f"{rules.personality.name}, {rules.workers} workers"
    )
    async with open_sandbox(
        folder, ports, level=level, rules=rules, http2=http2, place=place, browsers=browsers
    ) as sandbox:
        for name in ("ann", "ben", *(f"user{number}" for number in range(1, mailboxes + 1))):
            sandbox.eas.add_mailbox(f"{name}@{DOMAIN}", PASSWORD)
        at = in_url(sandbox.place.address)
        lines = (
            f"mail server  {sandbox.eas.url}  (like {like}; ann@{DOMAIN}, ben@{DOMAIN}; password: {PASSWORD})",
            f"             {at}:{sandbox.ports.smtp}  (SMTP; user: {SMTP_USER}; password: {SMTP_PASSWORD})",
            f"APNs         {at}:{sandbox.ports.apns}  (production)",
            f"             {at}:{sandbox.ports.apns_sandbox}  (sandbox, for builds from Xcode)",
            f"FCM          {sandbox.fcm.url}",
            f"push service {sandbox.webpush.url}  (WebPush, as distributors of UnifiedPush speak it)",
            f"control      {sandbox.control_url}",
            "",
            f"CA certificate {folder / 'ca.pem'}: trust it on phones and simulators; it stays the same over restarts",
            *(OPEN if sandbox.place.public else ()),
            "",
            f"Run a relay on it:   relay serve --config {sandbox.toml}",
            f"Deliver a mail:      relay deliver ann@{DOMAIN} --control {sandbox.control_url}",
            f"Open the web app:    {sandbox.web_url}  ({WEB_WITH if browsers else WEB_WITHOUT})",
            f"Be a phone:          relay phone --folder {folder}",
            f"See what Apple got:  curl {sandbox.control_url}/push/apns/received",
            f"Subscribe a phone:   curl -X POST {sandbox.control_url}/push/webpush/subscriptions",
        )
        for line in lines:
            out.print(line, soft_wrap=True, markup=False)
        freeze_heap()
        await asyncio.Event().wait()
