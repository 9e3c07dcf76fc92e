"""Pushes over HTTP/2 to nghttpd, which has the compression, windows and limits of nghttp2, not ours."""

import asyncio
from pathlib import Path

import pytest

from eas_watcher.http2.keepalive import KeepaliveTimings
from relay.domain.model import Environment
from relay.domain.outcome import Delivered, Outcome, Refused
from relay.push.apns.config import ApnsConfig
from relay.push.apns.connection import ApnsConnection
from relay.push.apns.sender import ApnsSender, message_id
from tests.integration.push_world import APP, account, apns_key, apns_sender
from tests.interop.nghttpd import Nghttpd, nghttpd, start
from tests.interop.packages import Unavailable, install, unavailable
from tests.unit.relay.push.pushes import due_push
from tests.waiting import until

PUSHES = 300


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    try:
        install("nghttp2-server")
    except Unavailable as reason:
        unavailable(reason)


def config(server: Nghttpd) -> ApnsConfig:
    return ApnsConfig(
        (account(apns_key(server.folder)),), host="localhost", port=server.port, ca_file=server.folder / "ca.pem"
    )


async def send_all(sender: ApnsSender, count: int = PUSHES) -> list[Outcome]:
    return await asyncio.gather(*(sender.send(due_push(number)) for number in range(1, count + 1)))


def connections(sender: ApnsSender) -> list[ApnsConnection]:
    return sender.accounts[0].pool(Environment.PRODUCTION).connections


@pytest.mark.both_loops
async def test_a_push_arrives_as_nghttp2_reads_it(tmp_path: Path) -> None:
    async with nghttpd(tmp_path) as server, apns_sender(config(server)) as sender:
        push = due_push()
        server.know(push.device_token)
        assert isinstance(await sender.send(push), Delivered)
        # The second one refers to entries that the first one left in the table.
        assert isinstance(await sender.send(push), Delivered)

        wanted = {
            ":method": "POST",
            ":scheme": "https",
            ":authority": "localhost",
            ":path": f"/3/device/{push.device_token}",
            "apns-topic": APP,
            "apns-push-type": "alert",
            "apns-priority": "10",
            "apns-collapse-id": "registration-1.email",
            "apns-id": message_id(push),
        }
        # The log comes in pieces, which may end between two headers.
        await until(lambda: all(server.text.count(f"{name}: {value}\n") >= 2 for name, value in wanted.items()))
        await until(lambda: server.text.count("authorization: bearer ") >= 2)
        for name, value in wanted.items():
            assert server.text.count(f"{name}: {value}\n") == 2, name
        assert server.text.count("authorization: bearer ") == 2


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--max-concurrent-streams=3",),
        ("--header-table-size=0",),
        ("--header-table-size=200",),
        ("--encoder-header-table-size=0",),
        ("--padding=200",),
        ("--window-bits=9", "--connection-window-bits=16"),
        ("--trailer", "checked: yes"),
        ("--early-response",),
        ("--workers=2",),
    ],
    ids=lambda options: " ".join(options) or "as it comes",
)
async def test_every_push_is_answered_on_one_connection(tmp_path: Path, options: tuple[str, ...]) -> None:
    async with nghttpd(tmp_path, *options) as server, apns_sender(config(server)) as sender:
        server.know(*(due_push(number).device_token for number in range(1, PUSHES + 1, 2)))
        outcomes = await send_all(sender)

        known, unknown = outcomes[::2], outcomes[1::2]
        assert all(isinstance(outcome, Delivered) for outcome in known)
        assert all(isinstance(outcome, Refused) and outcome.reason == "http-404" for outcome in unknown)
        (connection,) = connections(sender)
        assert connection.in_flight == 0
        assert len(connection._engine._answers) == 0
        await until(lambda: server.frames("HEADERS") == PUSHES)


async def test_a_cancelled_push_resets_its_stream_alone(tmp_path: Path) -> None:
    async with nghttpd(tmp_path) as server, apns_sender(config(server)) as sender:
        server.know(due_push(1).device_token)
        assert isinstance(await sender.send(due_push(1)), Delivered)
        async with asyncio.TaskGroup() as tasks:
            cancelled = [tasks.create_task(sender.send(due_push(1))) for _ in range(20)]
            others = [tasks.create_task(sender.send(due_push(1))) for _ in range(50)]
            for _ in range(2):  # the first steps of all tasks, then the turn in which their pushes leave
                await asyncio.sleep(0)
            assert connections(sender)[0].in_flight == 70
            for task in cancelled:
                task.cancel()
        assert all(isinstance(task.result(), Delivered) for task in others)
        assert isinstance(await sender.send(due_push(1)), Delivered)
        assert len(connections(sender)) == 1


async def test_an_idle_connection_answers_pings(tmp_path: Path) -> None:
    timings = KeepaliveTimings(idle=0.05, waiting=5.0, pong=60.0, tick=0.02)
    async with nghttpd(tmp_path) as server, apns_sender(config(server), timings=timings) as sender:
        server.know(due_push().device_token)
        await sender.send(due_push())
        (connection,) = connections(sender)
        await until(lambda: server.frames("PING") >= 5, 30.0)
        assert isinstance(await sender.send(due_push()), Delivered)
        assert connections(sender) == [connection]


async def test_a_server_that_comes_back_is_used_again(tmp_path: Path) -> None:
    async with nghttpd(tmp_path) as server, apns_sender(config(server)) as sender:
        server.know(due_push().device_token)
        assert isinstance(await sender.send(due_push()), Delivered)
        await server.stop()
        await until(lambda: connections(sender) == [])
        assert not isinstance(await sender.send(due_push()), Delivered)

        again = await start(server.folder, server.ca, (), server.port)
        try:
            assert isinstance(await sender.send(due_push()), Delivered)
        finally:
            await again.stop()
