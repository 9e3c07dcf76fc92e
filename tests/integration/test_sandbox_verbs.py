"""The verbs of the sandbox over HTTP and on the command line, and the two environments of APNs."""

import asyncio
import inspect
import re
import ssl
import typing
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import typer

from relay.cli.sandbox import sandbox as commands
from relay.domain.model import Environment
from relay.sandbox.installation import APP
from relay.sandbox.place import Place
from relay.sandbox.remote import SandboxRefused, order
from relay.sandbox.sandbox import Sandbox, open_sandbox
from relay.sandbox.verbs import ORDERS

ANN = "ann@example.com"
ROOT = Path(__file__).parents[2]


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with open_sandbox(tmp_path / "sandbox") as opened:
        opened.eas.add_mailbox(ANN, "old")
        yield opened


async def do(sandbox: Sandbox, verb: str, **fields: Any) -> dict[str, Any]:
    return await order(sandbox.control_url, verb, fields)


async def test_items_are_delivered_and_read(sandbox: Sandbox) -> None:
    folder = (await do(sandbox, "folder", user=ANN, name="Project"))["folder"]
    await do(sandbox, "deliver", user=ANN)
    await do(sandbox, "deliver", user=ANN, folder=folder)
    await do(sandbox, "deliver", user=ANN, **{"class": "calendar"})

    mailbox = sandbox.eas.mailbox(ANN)
    assert len(list(mailbox.items(folder))) == 1
    assert await do(sandbox, "read", user=ANN) == {"read": 3}
    assert all(item.read for each in mailbox.folders for item in mailbox.items(each))


async def test_a_password_is_changed_and_a_mailbox_added(sandbox: Sandbox) -> None:
    await do(sandbox, "password", user=ANN, password="new")
    await do(sandbox, "password", user="ben@example.com", password="his")

    assert not sandbox.eas.admit(ANN, "old")
    assert sandbox.eas.admit(ANN, "new")
    assert sandbox.eas.admit("ben@example.com", "his")


@pytest.mark.parametrize("verb", ["wipe", "block"])
async def test_an_order_for_devices_says_that_there_are_none(sandbox: Sandbox, verb: str) -> None:
    with pytest.raises(SandboxRefused, match="register a phone first"):
        await do(sandbox, verb, user=ANN)


async def test_an_outage_takes_all_services_down_until_it_ends(sandbox: Sandbox) -> None:
    await do(sandbox, "outage")
    failing = (sandbox.apns.failing, sandbox.apns_sandbox.failing, sandbox.fcm.failing, sandbox.webpush.failing)
    assert (sandbox.eas.backend_down, *failing) == (True,) * 5

    await do(sandbox, "outage", of="apns", end=True)
    assert (sandbox.apns.failing, sandbox.apns_sandbox.failing, sandbox.fcm.failing) == (False, False, True)

    await do(sandbox, "outage", of="all", end=True)
    assert (sandbox.eas.backend_down, sandbox.fcm.failing, sandbox.webpush.failing) == (False, False, False)


@pytest.mark.parametrize(
    ("verb", "fields", "words"),
    [
        ("deliver", {"user": "nobody@example.com"}, "there is no nobody@example.com"),
        ("deliver", {}, "user"),
        ("password", {"user": ANN, "password": "x", "more": 1}, "more"),
        ("outage", {"of": "moon"}, "of"),
        ("gone", {"token": "https://127.0.0.1/push/none"}, "no phone has this endpoint"),
        ("nonsense", {}, "Not Found"),
    ],
)
async def test_a_faulty_order_is_refused_with_its_fault(
    sandbox: Sandbox, verb: str, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(SandboxRefused, match=words):
        await do(sandbox, verb, **fields)


async def test_a_restart_ends_held_pings(sandbox: Sandbox) -> None:
    assert await do(sandbox, "restart") == {}


async def test_each_environment_refuses_tokens_of_the_other(sandbox: Sandbox) -> None:
    made = (await do(sandbox, "token", environment="sandbox"))["token"]
    known = (await do(sandbox, "token", environment="production", token="AB" * 32))["token"]
    assert known == "ab" * 32

    async with aiohttp.ClientSession(sandbox.control_url) as control:
        for prefix in ("apns", "apns-sandbox"):
            async with control.get(f"/push/{prefix}/received") as response:
                assert await response.json() == {"received": []}
        async with control.post("/push/apns-sandbox/devices") as response:
            other = (await response.json())["token"]
    devices = {made: Environment.SANDBOX, other: Environment.SANDBOX, known: Environment.PRODUCTION}
    for token, environment in devices.items():
        for simulator in (sandbox.apns, sandbox.apns_sandbox):
            refusal = simulator.check_device(token, APP)
            assert (refusal and refusal.reason) == (None if simulator.environment is environment else "BadDeviceToken")

    await do(sandbox, "gone", token=made)
    gone = sandbox.apns_sandbox.check_device(made, APP)
    assert gone is not None
    assert (gone.status, gone.reason) == (410, "Unregistered")


async def test_phones_reach_a_sandbox_under_its_names_with_a_ca_that_lasts(tmp_path: Path) -> None:
    place = Place("0.0.0.0", ("phone.test", "192.0.2.7"))
    authorities = []
    for _ in range(2):
        async with open_sandbox(tmp_path / "sandbox", place=place) as sandbox:
            authorities.append((tmp_path / "sandbox/ca.pem").read_text())
            trust = ssl.create_default_context(cadata=authorities[0])
            for port in (sandbox.ports.apns, sandbox.ports.eas, sandbox.ports.fcm, sandbox.ports.webpush):
                for name in ("phone.test", "192.0.2.7", "127.0.0.1", "localhost"):
                    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname=name)
                    writer.close()
            assert sandbox.control_url == f"http://phone.test:{sandbox.ports.control}"
            assert sandbox.webpush.url == f"https://127.0.0.1:{sandbox.ports.webpush}"
            assert 'host = "0.0.0.0"' in sandbox.toml.read_text()

    assert authorities[0] == authorities[1]


def fields_of(verb: str) -> set[str]:
    return {field.alias or name for name, field in ORDERS[verb].model_fields.items()}


def test_every_verb_is_a_command_and_is_documented() -> None:
    group = typer.main.get_command(commands)
    group_commands: dict[str, Any] = typing.cast("Any", group).commands
    page = (ROOT / "docs/sandbox.md").read_text()
    documented = {
        found[1]: set(re.findall(r"`(\w+)`", found[2]))
        for found in re.finditer(r"^\| `([a-z]+)` \| (.*?) \|", page, re.MULTILINE)
    }

    assert set(group_commands) == set(ORDERS)
    for verb in ORDERS:
        options = {option.opts[-1].lstrip("-").replace("-", "_") for option in group_commands[verb].params} - {
            "control",
            "help",
        }
        options = {"password" if option == "new" and verb == "password" else option for option in options}
        assert options == fields_of(verb), verb
        assert fields_of(verb) <= documented[verb] | {"user"}, verb
        assert inspect.getdoc(ORDERS[verb])
