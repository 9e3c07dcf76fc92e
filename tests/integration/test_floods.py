"""Providers that flood a connection are given up, and others are pushed to meanwhile."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from eas_watcher.proxy.faults import NotConnected
from relay.domain.outcome import Delivered, RetryLater
from relay.network.posting import INTERIM, RAW, SLICE, Poster, Reply
from relay.network.route import DIRECT
from relay.push.apns.connection import GIVEN_UP as GIVEN_UP_AFTER
from relay.sandbox.scripts import Stall
from tests.fakes.floods import ANSWERS, FRAMES, serve
from tests.integration.push_world import apns_sender, apns_world, fcm
from tests.integration.test_apns_failures import hurry, pool_of
from tests.unit.relay.push.pushes import due_push
from tests.waiting import until

ENDINGS = {"server-floods", "connection-broken", "server-goes-away", "stream-reset"}


@asynccontextmanager
async def flooding(kind: str, tls: ssl.SSLContext) -> AsyncIterator[int]:
    server = await serve(kind, tls)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.both_loops
async def test_an_apns_that_floods_is_given_up_and_fcm_goes_on(tmp_path: Path, kind: str) -> None:
    (tmp_path / "fcm").mkdir()
    async with (
        apns_world(tmp_path) as world,
        fcm(tmp_path / "fcm") as (_, honest),
        flooding(kind, world.ca.server_context(alpn=["h2"])) as port,
        apns_sender(replace(world.config, port=port, time_limit=20.0)) as sender,
    ):
        flooded = asyncio.ensure_future(sender.send(due_push()))
        for number in range(20):
            assert isinstance(await honest.send(due_push(number)), Delivered)
        outcome = await flooded

        assert isinstance(outcome, RetryLater)
        assert outcome.reason.partition(":")[0] in ENDINGS
        await until(
            lambda: pool_of(sender).connections == []
        )  # the first reset may end the push before the flood is told


async def test_a_flood_is_told_by_its_frames_and_counts_as_no_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        apns_world(tmp_path) as world,
        flooding("ping", world.ca.server_context(alpn=["h2"])) as port,
        apns_sender(replace(world.config, port=port)) as sender,
    ):
        outcome = await sender.send(due_push())
        again = await sender.send(due_push())

    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.provider) == ("server-floods: PING", True)
    assert again == outcome
    floods = [record for record in caplog.records if record.message.startswith("APNs connection given up")]
    assert {(vars(record)["host"], vars(record)["frames"]) for record in floods} == {("localhost", "PING")}
    assert len(floods) == 2, "then the next connection waits"


@pytest.mark.parametrize("kind", ANSWERS)
async def test_an_answer_without_end_is_not_read_to_it(tmp_path: Path, kind: str) -> None:
    async with apns_world(tmp_path) as world, flooding(f"http1:{kind}", world.ca.server_context()) as port:
        poster = Poster(tmp_path / "ca.pem", 1, DIRECT)
        async with asyncio.timeout(20.0):
            (reply,) = await asyncio.gather(
                poster.post(f"https://localhost:{port}/", {}, b"{}"), return_exceptions=True
            )
        await poster.close()

    if kind in {"endless-body", "bomb"}:
        assert isinstance(reply, Reply)
        assert len(reply.body) <= RAW + SLICE
    else:
        assert isinstance(reply, NotConnected)
        assert reply.reason == "server-floods"


async def ask_after(interim: int) -> Reply | BaseException:
    """Ask a server that sends so many answers 1xx before its answer."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * interim + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    poster = Poster(None, 1, DIRECT)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    (reply,) = await asyncio.gather(poster.post(url, {}, b"{}"), return_exceptions=True)
    await poster.close()
    server.close()
    return reply


async def test_a_few_interim_answers_are_no_flood() -> None:
    reply = await ask_after(INTERIM)

    assert isinstance(reply, Reply)
    assert (reply.status, reply.body) == (200, b"ok")


async def test_many_interim_answers_are_a_flood() -> None:
    reply = await ask_after(2000)

    assert isinstance(reply, NotConnected)
    assert reply.reason == "server-floods"


async def test_a_compressed_answer_stays_as_it_is(tmp_path: Path) -> None:
    async with apns_world(tmp_path) as world, flooding("http1:bomb", world.ca.server_context()) as port:
        poster = Poster(tmp_path / "ca.pem", 1, DIRECT)
        reply = await poster.post(f"https://localhost:{port}/", {}, b"{}")
        await poster.close()

    assert reply.body.startswith(b"\x1f\x8b")


async def test_a_connection_that_serves_no_push_is_left_for_another(tmp_path: Path) -> None:
    async with apns_world(tmp_path) as world, apns_sender(world.config) as sender:
        assert isinstance(await sender.send(due_push()), Delivered)
        world.simulator.fail(Stall(), GIVEN_UP_AFTER)
        hurry(sender, 0.3)
        for number in range(GIVEN_UP_AFTER):
            assert world.simulator.accepted == 1
            assert isinstance(await sender.send(due_push(number)), RetryLater)

        hurry(sender, world.config.time_limit)
        assert isinstance(await sender.send(due_push()), Delivered)
        assert world.simulator.accepted == 2
