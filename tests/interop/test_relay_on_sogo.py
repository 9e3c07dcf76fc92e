"""The whole relay against SOGo: registration over its API, a watch in its own process, pushes to both providers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from eas_watcher.commands.http_status import UNAUTHORIZED
from relay.sandbox.scripts import Received
from tests.interop.sogo.server import SogoServer, User
from tests.interop.watching import until_held
from tests.site import Site, open_site
from tests.waiting import SOON, until

CLASSES: Final = ["email", "calendar", "contacts"]
ALERT: Final = b'"title": "New mail"'
QUIET: Final = 3.0  # seconds without a push after an event that must not lead to one


@pytest.fixture
async def site(sogo: SogoServer, tmp_path: Path) -> AsyncIterator[Site]:
    environ = {"RELAY__SERVERS__SANDBOX__URL": sogo.url, "RELAY__SERVERS__SANDBOX__CA_FILE": str(sogo.ca_file)}
    async with open_site(tmp_path / "sandbox", environ) as opened:
        yield opened


def classes(pushes: list[Received]) -> list[str]:
    """Return the class of each push that APNs got, from its collapse id."""
    return [push.headers["apns-collapse-id"].rpartition(".")[2] for push in pushes]


async def register_phones(site: Site, user: User, wanted: list[str]) -> None:
    """Register an iPhone and an Android phone."""
    assert (await site.register(user.name, user.password, classes=wanted))[0] == 201
    assert (await site.register_android(user.name, password=user.password, classes=wanted))[0] == 201


async def settled(sogo: SogoServer, site: Site, user: User) -> tuple[int, int]:
    """Wait until no push has come for a while; return the numbers of pushes at Apple and Google."""
    while True:
        before = (len(site.sandbox.apns.received), len(site.sandbox.fcm.received))
        await asyncio.sleep(QUIET)
        await until_held(sogo, user)
        if before == (len(site.sandbox.apns.received), len(site.sandbox.fcm.received)):
            return before


async def test_a_mail_is_one_push_per_device_and_tidying_up_is_none(sogo: SogoServer, user: User, site: Site) -> None:
    await asyncio.to_thread(sogo.deliver, user.name)  # items from before the registration are not new
    async with site.relay():
        await register_phones(site, user, ["email"])
        await until_held(sogo, user)

        await asyncio.to_thread(sogo.deliver, user.name, "Canary subject", "Canary body")
        (apple,) = await site.sandbox.apns.wait(1, SOON)
        (google,) = await site.sandbox.fcm.wait(1, SOON)
        assert await settled(sogo, site, user) == (1, 1)

        for act in (sogo.mark_read, sogo.delete_all):
            await asyncio.to_thread(act, user.name)
            assert await settled(sogo, site, user) == (1, 1)

    assert ALERT in apple.body
    assert b'"class": "email", "count": 1' in apple.body
    assert b'"class":"email","count":"1"' in google.body
    for push in (apple, google):
        assert b"Canary" not in push.body
        assert user.name.encode() not in push.body


async def test_events_and_contacts_are_pushed_to_a_device_that_asked_for_them(
    sogo: SogoServer, user: User, site: Site
) -> None:
    async with site.relay():
        assert (await site.register(user.name, user.password, classes=CLASSES))[0] == 201
        assert (await site.register_android(user.name, password=user.password))[0] == 201
        for number, (act, cls) in enumerate(((sogo.add_event, "calendar"), (sogo.add_contact, "contacts")), start=1):
            await until_held(sogo, user)
            await asyncio.to_thread(act, user.name)
            assert classes(await site.sandbox.apns.wait(number, SOON))[-1] == cls
        assert await settled(sogo, site, user) == (2, 0)


async def test_a_wrong_password_is_refused_after_one_request(sogo: SogoServer, user: User, site: Site) -> None:
    async with site.relay():
        status, problem = await site.register(user.name, "wrong")

        assert (status, problem["code"]) == (403, "credential-refused")
        assert [request.status for request in sogo.requests(user.name)] == [UNAUTHORIZED]


async def test_a_server_restarted_during_a_ping_loses_nothing(sogo: SogoServer, user: User, site: Site) -> None:
    async with site.relay():
        await register_phones(site, user, ["email"])
        await until_held(sogo, user)

        await asyncio.to_thread(sogo.restart, kill=True)
        await asyncio.to_thread(sogo.deliver, user.name)

        await site.sandbox.apns.wait(1, 90)
        await site.sandbox.fcm.wait(1, 90)


async def test_a_relay_that_was_killed_pushes_what_came_meanwhile(sogo: SogoServer, user: User, site: Site) -> None:
    async with site.relay() as relay:
        await register_phones(site, user, ["email"])
        await until_held(sogo, user)
        relay.kill()
        await relay.process.wait()
    await asyncio.to_thread(sogo.deliver, user.name)

    async with site.relay():
        await until(lambda: site.sandbox.apns.received and site.sandbox.fcm.received)
