"""The demo: a relay between a simulated mail server and simulated providers, and the bytes that leave the relay."""

import asyncio
import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import aiohttp
from rich.console import Console
from rich.panel import Panel
from rich.syntax import Syntax

from eas_watcher.names import ServerId
from eas_watcher.transport.tls import client_context
from relay.sandbox.installation import APP, DOMAIN
from relay.sandbox.process import RelayEnded, RelayProcess, open_relay
from relay.sandbox.sandbox import Sandbox, open_sandbox
from relay.sandbox.scripts import Received

USER: Final = f"ann@{DOMAIN}"
PASSWORD: Final = "correct-horse-battery-staple"
PATIENT: Final = {"RELAY__API__VERDICT_WAIT": "30"}
"""Seconds that a registration waits for its verdict: a busy machine starts slowly."""
MAIL: Final = {
    "subject": "Quarterly figures, strictly confidential",
    "sender": f"ben@{DOMAIN}",
    "body": "The merger is signed on Friday.",
}
IPHONE: Final = "4a" * 32
ANDROID: Final = "fcm-token-of-an-android-phone"
PUSH_TIMEOUT: Final = 20.0  # seconds that a push may take in the demo
QUIET: Final = 2.0  # seconds without a push after which the demo concludes that no push comes


class DemoFailed(Exception):
    """A step had the wrong result; the text says which."""


async def run_demo(out: Console, *, once: bool) -> bool:
    """Run the steps of the demo and return whether all had the right result; unless `once`, continue until Ctrl-C."""
    with tempfile.TemporaryDirectory(prefix="relay-demo-") as folder:
        try:
            await _run_steps(out, Path(folder), once=once)
        except (DemoFailed, RelayEnded, aiohttp.ClientError, TimeoutError, OSError) as error:
            out.print(f"\nThe demo failed: {type(error).__name__}: {error}", style="bold red", markup=False)
            return False
        except asyncio.CancelledError:
            out.print("\nStopped.")
            return not once
    return True


async def _run_steps(out: Console, folder: Path, *, once: bool) -> None:
    out.rule("Push relay: new mail becomes a push, and nothing of the mail leaves")
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(open_sandbox(folder / "sandbox", level="debug", browsers=not once))
        sandbox.eas.add_mailbox(USER, PASSWORD)
        _step(
            out,
            1,
            "A simulated mail server, Apple, Google and a push service listen on this machine, all over TLS.",
        )
        out.print(f"   mail server {sandbox.eas.url}\n   APNs        port {sandbox.apns.port}, HTTP/2")
        out.print(f"   FCM         {sandbox.fcm.url}\n   WebPush     {sandbox.webpush.url}")
        relay = await stack.enter_async_context(open_relay(sandbox.toml, sandbox.ports.ops, environ=PATIENT))
        _step(out, 2, "`relay serve` runs on an embedded database and is ready.")
        trust = client_context(sandbox.folder / "ca.pem")
        connector = aiohttp.TCPConnector(ssl=trust)
        api = await stack.enter_async_context(aiohttp.ClientSession(sandbox.api_url, connector=connector))
        await _register_phones(out, api, sandbox)
        await _deliver(out, sandbox)
        await _stay_silent(out, sandbox)
        await _search_for_leaks(out, sandbox, relay)
        await _print_health(out, relay)
        out.rule("All was as it should be")
        if not once:
            await _continue(out, sandbox)


async def _register_phones(out: Console, api: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    iphone = {"platform": "apns", "token": IPHONE, "app": APP, "environment": "production"}
    android = {"platform": "fcm", "token": ANDROID, "app": APP}
    async with api.get("/v1/webpush") as response:
        key = (await response.json())["vapid_public_key"]
    webpush = {"platform": "webpush", "app": APP, **sandbox.webpush.subscribe(key)}
    _step(out, 3, f"An iPhone, an Android phone and a phone without Google register for {USER}.")
    for name, device in (("iPhone", iphone), ("Android", android), ("own push service", webpush)):
        status, answer = await _register(api, device, PASSWORD)
        _expect(status == HTTPStatus.CREATED, f"the registration of the {name} answered {status}")
        out.print(f"   {name}: HTTP {status}, state {answer['state']}: the mail server accepted the credential")
    status, answer = await _register(api, iphone, "wrong")
    _expect(status == HTTPStatus.FORBIDDEN, f"a wrong password answered {status}")
    out.print(f"   another try with a wrong password: HTTP {status}, {answer['code']}: asked once, nothing kept")


async def _register(
    api: aiohttp.ClientSession, device: Mapping[str, object], password: str
) -> tuple[int, dict[str, Any]]:
    body = {"mailbox": USER, "credential": {"kind": "basic", "password": password}, "device": device}
    async with api.post("/v1/registrations", json=body) as response:
        return response.status, await response.json(content_type=None)


async def _deliver(out: Console, sandbox: Sandbox) -> None:
    _step(out, 4, "A mail arrives. Its subject, sender and body stay on the mail server:")
    out.print(Panel("\n".join(f"{name}: {text}" for name, text in MAIL.items()), expand=False))
    await _wait_for_ping(sandbox)
    _deliver_mail(sandbox)
    apple = (await sandbox.apns.wait(1, PUSH_TIMEOUT))[0]
    google = (await sandbox.fcm.wait(1, PUSH_TIMEOUT))[0]
    _step(out, 5, "What Apple received, every header and byte:")
    _print_push(out, apple)
    _step(out, 6, "What Google received:")
    _print_push(out, google)
    encrypted = (await sandbox.webpush.wait(1, PUSH_TIMEOUT))[0]
    _step(
        out,
        7,
        f"What the push service received: {len(encrypted.body)} bytes that only the phone can read, "
        "and what that reads:",
    )
    _print_push(out, encrypted._replace(body=sandbox.webpush.open(encrypted)))


def _deliver_mail(sandbox: Sandbox) -> ServerId:
    return sandbox.eas.deliver(USER, subject=MAIL["subject"], sender=MAIL["sender"], body=MAIL["body"])


async def _wait_for_ping(sandbox: Sandbox) -> None:
    """Wait until the mail server holds a Ping of the relay."""
    async with asyncio.timeout(PUSH_TIMEOUT):
        while sandbox.eas.held == 0:  # noqa: ASYNC110 -- the simulator has no event for it
            await asyncio.sleep(0.05)


async def _stay_silent(out: Console, sandbox: Sandbox) -> None:
    _step(out, 8, "Two more mails arrive; then all are read and deleted.")
    ids = [_deliver_mail(sandbox) for _ in range(2)]
    await sandbox.apns.wait(2, PUSH_TIMEOUT)
    await sandbox.fcm.wait(2, PUSH_TIMEOUT)
    await sandbox.webpush.wait(2, PUSH_TIMEOUT)
    await _wait_for_silence(sandbox)
    before = _counts(sandbox)
    for id_ in ids:
        sandbox.eas.mark_read(USER, id_)
        sandbox.eas.delete(USER, id_)
    await asyncio.sleep(QUIET)
    after = _counts(sandbox)
    _expect(before == after, "reading or deleting a mail led to a push")
    apple, google, service = after
    text = f"Apple {apple}, Google {google}, push service {service}; reading and deleting led to none"
    out.print(f"   pushes so far: {text}")


async def _wait_for_silence(sandbox: Sandbox) -> None:
    """Wait until no push arrived for QUIET seconds."""
    count = -1
    while count != (count := sum(_counts(sandbox))):  # noqa: ASYNC110 -- silence has no event
        await asyncio.sleep(QUIET)


def _counts(sandbox: Sandbox) -> tuple[int, int, int]:
    """Return the number of pushes at Apple, Google and the push service."""
    return len(sandbox.apns.received), len(sandbox.fcm.received), len(sandbox.webpush.received)


async def _search_for_leaks(out: Console, sandbox: Sandbox, relay: RelayProcess) -> None:
    words = [*MAIL.values(), PASSWORD, USER]
    sent = [*sandbox.apns.received, *sandbox.fcm.received, *sandbox.webpush.received]
    _step(
        out, 9, f"Subject, sender, body, password and address are looked for in all {len(sent)} pushes, and in the log."
    )
    for content in (*map(_bytes_of, sent), *sandbox.webpush.messages):
        _expect(not _found(words, content), "a push holds a word of the mail or the credential")
    log = relay.log.read_bytes()
    _expect(not _found([*MAIL.values(), PASSWORD], log), "the log holds a word of the mail or the password")
    database = b"".join(path.read_bytes() for path in (sandbox.folder / "state").iterdir() if "sqlite" in path.name)
    _expect(not _found([*MAIL.values(), PASSWORD], database), "the database holds a word of the mail or the password")
    out.print("   in no push, in no line of the log at level debug, in no page of the database", style="green")


async def _print_health(out: Console, relay: RelayProcess) -> None:
    health = await relay.health()
    _step(out, 10, f"Health: {health['state']}.")
    for part in health["parts"]:
        out.print(f"   {part['part']}: {part['state']}")


async def _continue(out: Console, sandbox: Sandbox) -> None:
    out.print("\nRelay and sandbox run on until Ctrl-C. Deliver a mail yourself and see what Apple gets:")
    mail = json.dumps({"user": USER, "subject": "Hello", "sender": MAIL["sender"], "body": "..."})
    out.print(
        f"  curl -X POST {sandbox.control_url}/eas/mail -H 'content-type: application/json' -d '{mail}'", soft_wrap=True
    )
    out.print(f"  curl http://127.0.0.1:{sandbox.ports.ops}/healthz", soft_wrap=True)
    out.print("\nOr let a browser on this machine ring, through the push service of its maker:")
    out.print(
        f"  open {sandbox.web_url}, sign in as {USER} with the password {PASSWORD}, then deliver a mail", soft_wrap=True
    )
    shown = len(sandbox.apns.received)
    while True:
        for received in (await sandbox.apns.wait(shown + 1, float("inf")))[shown:]:
            shown += 1
            _print_push(out, received)


def _print_push(out: Console, received: Received) -> None:
    for name, value in received.headers.items():
        shown = f"{value[:12]}… (signed token)" if name.lower() == "authorization" else value
        out.print(f"   {name}: {shown}", markup=False, soft_wrap=True)
    out.print(Syntax(received.body.decode(), "json", word_wrap=True, background_color="default"))


def _bytes_of(received: Received) -> bytes:
    return "\n".join(f"{name}: {value}" for name, value in received.headers.items()).encode() + received.body


def _found(words: Sequence[str], content: bytes) -> list[str]:
    return [word for word in words if word.encode() in content]


def _step(out: Console, number: int, text: str) -> None:
    out.print(f"\n[bold cyan]{number}[/bold cyan] {text}")


def _expect(condition: bool, fault: str) -> None:
    if not condition:
        raise DemoFailed(fault)
