from dataclasses import replace

import pytest

from eas_watcher.commands.folder_sync import FolderSync
from eas_watcher.commands.options import Options
from eas_watcher.commands.request import HttpReply
from eas_watcher.errors import Unauthorized
from eas_watcher.names import NO_SYNC_KEY, PolicyKey, ProtocolVersion
from eas_watcher.server.admissions import Admissions
from eas_watcher.tools.probe.device import ProbeDevice, probe_device
from tests.fakes.eas import Answer, ScriptedTransport
from tests.unit.eas_watcher.running import Middle, account, folders
from tests.unit.eas_watcher.watching import NOW

pytestmark = pytest.mark.looptime

OFFER = HttpReply(200, {"ms-asprotocolversions": "14.1"}, b"", ("backend=b7; path=/",))


def device(*script: Answer | tuple[float, Answer]) -> tuple[ProbeDevice, ScriptedTransport]:
    transport = ScriptedTransport(*script)
    return ProbeDevice(account(), transport, Admissions(1, Middle(), lambda: NOW)), transport


async def test_no_user_is_tried_by_a_look() -> None:
    (probe, own), anonymous = device(), ScriptedTransport((3.0, HttpReply(401, {}, b"")))

    assert (await probe.look(anonymous)).status == 401

    [request] = anonymous.requests
    assert (request.method, request.headers["Authorization"]) == ("OPTIONS", "Bearer")
    assert "ann" not in request.url
    assert (own.requests, probe.times()) == ([], ())


@pytest.mark.parametrize("status", [200, 403, 503])
async def test_a_look_returns_any_answer(status: int) -> None:
    probe, _ = device()

    assert (await probe.look(ScriptedTransport(HttpReply(status, {}, b"")))).status == status


async def test_commands_carry_what_was_learnt_and_each_has_its_time() -> None:
    probe, transport = device((1.0, OFFER), (2.0, folders("h1")))

    assert (await probe.send(Options())).http is OFFER
    assert probe.times() == (1.0,)
    probe.version, probe.policy_key = ProtocolVersion.V14_1, PolicyKey("7")
    await probe.ask(FolderSync(NO_SYNC_KEY))

    headers = transport.requests[1].headers
    assert (headers["MS-ASProtocolVersion"], headers["X-MS-PolicyKey"]) == ("14.1", "7")
    assert headers["Cookie"] == "backend=b7"
    assert probe.times() == (2.0,)
    assert probe.times() == ()


async def test_a_refused_password_is_tried_once() -> None:
    probe, transport = device((1.0, HttpReply(401, {}, b"")))

    with pytest.raises(Unauthorized):
        await probe.send(Options())

    assert (len(transport.requests), probe.times()) == (1, (1.0,))


async def test_a_server_that_wants_all_clients_to_start_over_is_asked_once_more() -> None:
    changed = replace(folders("h2"), headers={"x-ms-rp": "14.1;Sync"})
    probe, transport = device(folders("h1"), changed, folders("h3"))
    probe.version = ProtocolVersion.V14_1

    reply = await probe.ask(FolderSync((await probe.ask(FolderSync(NO_SYNC_KEY))).sync_key))

    assert reply.sync_key == "h3"
    assert len(transport.requests) == 3


def test_the_device_of_a_mailbox_is_always_the_same() -> None:
    assert probe_device("https://mail.example.com/eas", "ann") == probe_device("https://mail.example.com/eas", "ann")
    assert probe_device("https://mail.example.com/eas", "ann") != probe_device("https://mail.example.com/eas", "ben")
