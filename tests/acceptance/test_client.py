"""An app's life with the reference client against a real relay and the sandbox, on each kind of phone."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from push_relay_client import (
    Apns,
    App,
    Basic,
    Challenge,
    Fcm,
    Fid,
    MemoryStore,
    NewItems,
    Push,
    Step,
    TestPush,
    WebPush,
    Wish,
)
from push_relay_client.wish import Device

from relay.sandbox.installation import APP
from tests.site import ANN, PASSWORD, Site, open_site
from tests.waiting import SOON, until


def an_iphone(site: Site, life: int) -> Device:
    return Apns(APP, f"{life:02}" * 32)


def an_android_phone(site: Site, life: int) -> Device:
    return Fcm(APP, f"registration-token-of-phone-{life}") if life == 1 else Fid(APP, "cFakeFakeFakeFakeFakeF")


def a_phone_without_google(site: Site, life: int) -> Device:
    subscription: dict[str, Any] = site.sandbox.webpush.subscribe()
    return WebPush(APP, subscription["endpoint"], subscription["keys"])


def on(device: Device, site: Site) -> list[Mapping[str, Any]]:
    """Return the data of the pushes that reached a device, as its system hands them to the app."""
    match device:
        case Apns(token=token):
            return [json.loads(push.body) for push in site.sandbox.apns.received if push.device_token == token]
        case Fcm(token=token) | Fid(fid=token):
            sent = [push for push in site.sandbox.fcm.received if push.device_token == token]
            return [json.loads(push.body)["message"]["data"] for push in sent]
        case WebPush(endpoint=endpoint):
            webpush = site.sandbox.webpush
            return [json.loads(webpush.open(push)) for push in webpush.received if push.device_token == endpoint]


async def next_push(app: App, device: Device, site: Site, count: int) -> Push | None:
    """Return what the app makes of a device's newest push, after waiting until there are `count`."""
    await until(lambda: len(on(device, site)) >= count)
    return await app.received(on(device, site)[-1])


async def recorded(app: App, site: Site) -> None:
    """Wait until the relay has recorded a push: it repeats one if it gets another device token before that."""
    identity = app.identity
    assert identity is not None

    async def has_outcome() -> bool:
        return (await site.client.get(identity)).last_outcome == "delivered"

    await until(has_outcome)


@pytest.fixture
async def strict_site(tmp_path: Path) -> AsyncIterator[Site]:
    """Return a site whose relay wants every device to prove that it holds its token."""
    async with open_site(tmp_path / "strict", {"RELAY__API__PROVE_POSSESSION": "apns, fcm, webpush"}) as opened:
        opened.sandbox.eas.add_mailbox(ANN, PASSWORD)
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize("phone", [an_iphone, an_android_phone, a_phone_without_google])
async def test_an_app_proves_its_device_and_each_later_one(
    strict_site: Site, phone: Callable[[Site, int], Device]
) -> None:
    site = strict_site
    app = App(site.client, MemoryStore())
    first, second = phone(site, 1), phone(site, 2)
    async with site.relay():
        told = await app.register(Wish(ANN, Basic(PASSWORD), first))
        assert told.registration is not None
        assert (told.step, told.registration.state) == (Step.WAIT, "proving")
        assert isinstance(await next_push(app, first, site, 1), Challenge)
        assert (await app.opened(first)).step is Step.NOTHING

        assert (await app.opened(second)).step is Step.WAIT
        assert isinstance(await next_push(app, second, site, 1), Challenge)
        assert (await app.opened(second)).step is Step.NOTHING
        await site.held()
        site.deliver(subject="canary")
        assert isinstance(await next_push(app, second, site, 2), NewItems)
        assert (await app.logout()).step is Step.NOTHING


@pytest.mark.parametrize(
    "phone",
    [an_iphone, *(pytest.param(phone, marks=pytest.mark.slow) for phone in (an_android_phone, a_phone_without_google))],
)
async def test_an_app_from_its_first_start_to_the_logout(site: Site, phone: Callable[[Site, int], Device]) -> None:
    app = App(site.client, MemoryStore())
    first, second = phone(site, 1), phone(site, 2)
    async with site.relay():
        capabilities = await site.client.capabilities(ANN)
        assert capabilities["platforms"].keys() == {"apns", "fcm", "webpush"}
        assert capabilities["enrolment"]["alternatives"] == [["open"]]
        assert (await app.register(Wish(ANN, Basic("wrong"), first))).step is Step.ASK_USER
        assert app.identity is None
        assert (await app.register(Wish(ANN, Basic(PASSWORD), first))).step is Step.NOTHING
        assert app.identity is not None
        own = app.identity.id
        await site.held()

        site.deliver(subject="canary")
        assert await next_push(app, first, site, 1) == NewItems(own, "email", 1, certain=True)
        await recorded(app, site)

        # The system gives the app another token: the next start sends it, and pushes go there.
        assert (await app.opened(second)).step is Step.NOTHING
        await app.test_push()
        assert await next_push(app, second, site, 1) == TestPush(own)
        assert len(on(first, site)) == 1

        # The user changes the password elsewhere, and mistypes it here at first.
        site.sandbox.eas.add_mailbox(ANN, "battery staple")
        assert (await app.credential_changed(Basic("battery stable"))).step is Step.ASK_USER
        assert (await app.credential_changed(Basic("battery staple"))).step is Step.NOTHING
        assert (await app.opened(second)).step is Step.NOTHING

        identity = app.identity
        assert (await app.logout()).step is Step.NOTHING
        assert app.identity is None
        async with site.api.get(
            f"/v1/registrations/{identity.id}", headers={"Authorization": f"Bearer {identity.secret}"}
        ) as response:
            assert (response.status, (await response.json())["code"]) == (410, "gone")


@pytest.mark.slow
async def test_the_example_of_the_readme_shows_the_first_push(site: Site) -> None:
    example = Path(__file__).parents[2] / "clients/python/examples/first_push.py"
    arguments = (site.sandbox.api_url, str(site.sandbox.folder / "ca.pem"), site.sandbox.control_url, PASSWORD)
    async with site.relay():
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(example), *arguments),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(example.parents[1] / "src")},
        )
        await site.held()
        site.deliver(subject="canary")
        async with asyncio.timeout(SOON):
            out, _ = await process.communicate()

    said = out.decode().splitlines()
    assert process.returncode == 0
    assert said[0].startswith("registered: ")
    assert said[-2].startswith("push: NewItems(")
    assert "cls='email', count=1" in said[-2]
    assert said[-1] == "logged out: NOTHING"
