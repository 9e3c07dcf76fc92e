"""The Kotlin client: its own tests, and the life of an app on it against a real relay and the sandbox."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.clients.kotlin import SOURCES, Kotlin, run
from tests.site import ANN, PASSWORD, Site, open_site
from tests.waiting import SOON, until


def test_its_own_tests_pass(kotlin: Kotlin) -> None:
    said = run(kotlin.command("pushrelay.RunnerKt"))

    assert re.search(r"^\d\d+ passed, 0 failed$", said, re.MULTILINE), said


@pytest.mark.parametrize(
    "name",
    ["android/KeystoreStore", "android/LookWorker", "fcm/RelayMessagingService", "unifiedpush/RelayPushService"],
)
def test_the_modules_of_android_compile_against_stubs(kotlin: Kotlin, name: str) -> None:
    assert (kotlin.android / "pushrelay" / f"{name}.class").exists()


def test_no_job_is_expedited_where_that_takes_a_foreground_service() -> None:
    """Before Android 12 WorkManager fails an expedited job whose worker has no notification for a service."""
    relay = (SOURCES / "android/src/main/kotlin/pushrelay/android/Relay.kt").read_text(encoding="utf-8")

    assert relay.count("setExpedited(") == 1
    assert re.search(r"if \(Build\.VERSION\.SDK_INT >= Build\.VERSION_CODES\.S\) \{[^}]*setExpedited\(", relay)


class Phone:
    """The client as a process: it gets orders, and answers each in a line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def do(self, order: str, **more: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": order, **more}).encode() + b"\n")
        async with asyncio.timeout(SOON):
            line = await self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def open_phone(kotlin: Kotlin, site: Site) -> AsyncIterator[Phone]:
    command = kotlin.command("pushrelay.jvm.LifeKt", site.sandbox.api_url, site.sandbox.folder / "ca.pem")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    try:
        yield Phone(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def an_android_phone(site: Site, key: str) -> Mapping[str, Any]:
    """Return a phone whose app has registration tokens at first, then Firebase Installation IDs."""
    return (
        {"fid": "cFakeFakeFakeFakeFakeF"} if site.sandbox.fcm.received else {"token": "registration-token-of-a-phone"}
    )


def a_phone_without_google(site: Site, key: str) -> Mapping[str, Any]:
    return site.sandbox.webpush.subscribe(key)


def on(device: Mapping[str, Any], site: Site) -> list[str]:
    """Return the data of the pushes that reached a device, as JSON."""
    if "endpoint" not in device:
        (address,) = device.values()
        sent = [push for push in site.sandbox.fcm.received if push.device_token == address]
        return [json.dumps(json.loads(push.body)["message"]["data"]) for push in sent]
    webpush = site.sandbox.webpush
    return [webpush.open(push).decode() for push in webpush.received if push.device_token == device["endpoint"]]


@pytest.mark.parametrize("device", [an_android_phone, a_phone_without_google])
async def test_an_app_from_its_first_start_to_the_logout(
    kotlin: Kotlin, site: Site, device: Callable[[Site, str], Mapping[str, Any]]
) -> None:
    async with site.relay(), open_phone(kotlin, site) as phone:
        key = (await phone.do("key"))["key"]
        first = device(site, key)
        refused = await phone.do("register", mailbox=ANN, password="wrong", device=first)
        assert (refused["step"], refused["id"]) == ("ASK_USER", None), refused
        made = await phone.do("register", mailbox=ANN, password=PASSWORD, device=first)
        assert (made["step"], made["state"]) == ("NOTHING", "active"), made
        own = made["id"]
        await site.held()

        site.deliver(subject="canary")
        await until(lambda: on(first, site))
        read = await phone.do("push", data=on(first, site)[-1])
        assert read["push"] == f"NewItems(registration={own}, cls=email, count=1, certain=true)"

        second = device(site, key)
        assert (await phone.do("open", device=second))["step"] == "NOTHING"
        assert (await phone.do("test"))["step"] == "NOTHING"
        await until(lambda: on(second, site))
        assert (await phone.do("push", data=on(second, site)[-1]))["push"] == f"TestPush(registration={own})"
        assert (await phone.do("push", data='{"registration":"other","kind":"test"}'))["push"] is None

        site.sandbox.eas.add_mailbox(ANN, "battery staple")
        assert (await phone.do("password", password="battery stable"))["step"] == "ASK_USER"
        assert (await phone.do("password", password="battery staple"))["step"] == "NOTHING"
        assert (await phone.do("open", device=second))["state"] == "active"

        gone = await phone.do("logout")
        assert (gone["step"], gone["id"]) == ("NOTHING", None)


async def test_an_app_proves_its_device(kotlin: Kotlin, tmp_path: Path) -> None:
    async with open_site(tmp_path / "strict", {"RELAY__API__PROVE_POSSESSION": "apns, fcm, webpush"}) as site:
        site.sandbox.eas.add_mailbox(ANN, PASSWORD)
        async with site.relay(), open_phone(kotlin, site) as phone:
            device = an_android_phone(site, "")
            made = await phone.do("register", mailbox=ANN, password=PASSWORD, device=device)
            assert (made["step"], made["state"]) == ("WAIT", "proving"), made
            await until(lambda: on(device, site))
            proved = await phone.do("push", data=on(device, site)[-1])
            assert (proved["step"], proved["state"]) == ("NOTHING", "active"), proved
