import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request

from eas_watcher.machine.memory import WatchState
from eas_watcher.reasons import Reason
from eas_watcher.runtime.context import FleetStats
from relay.domain.model import Platform
from relay.domain.unreadable import UnreadableRows
from relay.ops import checks
from relay.ops.app import create_ops_app
from relay.ops.counts import CountsCache
from relay.ops.health import Health
from relay.ops.lag import LoopLag
from relay.ops.metrics import Metrics
from relay.push.stats import PushStats
from tests.fakes.ops import HandClock, OpsCounts

Client = TestClient[Request, Application]


class Ops:
    """A running ops listener with the parts that it shows."""

    def __init__(self) -> None:
        self.clock, self.store, self.leased = HandClock(), OpsCounts(), True
        self.counts = CountsCache(self.store, self.clock)
        parts = [
            checks.database(self.counts, self.clock),
            checks.mailboxes(lambda: self.counts.newest.mailboxes if self.counts.newest else None),
            checks.leases(lambda: self.leased),
        ]
        health, lag = Health(parts, self.clock), LoopLag()
        metrics = Metrics(
            version="1.2.3",
            role="watch",
            counts=self.counts,
            health=health,
            lag=lag,
            fleet=FleetStats(),
            requests=dict,
            servers=list,
            push={Platform.APNS: PushStats()},
            certificates={},
            shards=lambda: 1,
            clock=self.clock,
            unreadable=UnreadableRows(),
        )
        self.app = create_ops_app(health, metrics)


@pytest.fixture
def ops() -> Ops:
    return Ops()


@pytest.fixture
async def client(ops: Ops) -> AsyncIterator[Client]:
    async with TestClient(TestServer(ops.app)) as client:
        yield client


async def test_a_well_process_is_alive_ready_and_healthy(ops: Ops, client: Client) -> None:
    await ops.counts.refresh()

    assert (await client.get("/livez")).status == 200
    assert (await client.get("/readyz")).status == 200
    answer = await client.get("/healthz")
    assert answer.status == 200
    assert await answer.json() == {
        "state": "ok",
        "parts": [
            {"part": name, "state": "ok", "since": "2026-11-24T12:00:00+00:00", "reason": "", "remedy": ""}
            for name in ("database", "mail servers", "leases")
        ],
    }


async def test_without_a_lease_it_lives_but_is_not_ready(ops: Ops, client: Client) -> None:
    await ops.counts.refresh()
    ops.leased = False

    assert (await client.get("/livez")).status == 200
    assert (await client.get("/readyz")).status == 503
    answer = await client.get("/healthz")
    assert answer.status == 503
    parts = {part["part"]: part for part in (await answer.json())["parts"]}
    assert parts["leases"]["state"] == "failed"
    assert parts["leases"]["remedy"]


async def test_an_ill_mail_server_shows_but_does_not_make_it_unready(ops: Ops, client: Client) -> None:
    ops.store.mailboxes = {(WatchState.WAITING, Reason.UNREACHABLE): 4}
    await ops.counts.refresh()

    assert (await client.get("/readyz")).status == 200
    assert (await client.get("/healthz")).status == 503


async def test_metrics_answer_while_the_database_hangs(ops: Ops, client: Client) -> None:
    ops.store.hanging = True
    async with asyncio.TaskGroup() as tasks:
        refreshing = tasks.create_task(ops.counts.run())
        async with asyncio.timeout(5):
            answer = await client.get("/metrics")
            text = await answer.text()
        refreshing.cancel()

    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert 'relay_build_info{role="watch",version="1.2.3"} 1.0' in text
    assert "relay_database_up 0.0" in text


async def test_it_only_reads(client: Client) -> None:
    for path in ("/livez", "/readyz", "/healthz", "/metrics"):
        assert (await client.post(path)).status == 405
    assert (await client.get("/")).status == 404
