import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request

from eas_watcher.machine.memory import WatchState
from eas_watcher.peer_clocks import PeerClocks
from eas_watcher.reasons import Reason
from eas_watcher.runtime.context import FleetStats
from relay.domain.model import Platform
from relay.domain.unreadable import UnreadableRows
from relay.http.listeners import open_listener
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
        self.health, lag = Health(parts, self.clock), LoopLag()
        self.metrics = Metrics(
            version="1.2.3",
            role="watch",
            counts=self.counts,
            health=self.health,
            lag=lag,
            clocks=PeerClocks(self.clock),
            fleet=FleetStats(),
            requests=dict,
            servers=list,
            push={Platform.APNS: PushStats()},
            certificates={},
            shards=lambda: 1,
            nodes=lambda: 1,
            clock=self.clock,
            unreadable=UnreadableRows(),
        )
        self.app = create_ops_app(self.health, self.metrics)


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


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LocalHost.:9090", 200),
        ("127.0.0.1:9090", 200),
        ("127.1.2.3", 200),
        ("[::1]:9090", 200),
        ("[::ffff:127.0.0.1]", 200),
        ("relay.example.com:9090", 200),
        ("192.0.2.10", 200),
        ("192.0.2.11", 421),
        ("stranger.example.net", 421),
        ("stranger.example.net:9090", 421),
        ("localhost.example.net", 421),
        ("127.0.0.1.example.net", 421),
        ("x@localhost", 421),
        ("[::1", 421),
        (":9090", 421),
    ],
)
async def test_it_answers_to_its_own_names_alone(ops: Ops, host: str, status: int) -> None:
    app = create_ops_app(ops.health, ops.metrics, {"0.0.0.0", "Relay.example.com", "192.0.2.10"})
    async with TestClient[Request, Application](TestServer(app)) as client:
        for path in ("/livez", "/metrics", "/none"):
            answer = await client.get(path, headers={"Host": host})
            assert answer.status == (404 if status == 200 and path == "/none" else status)


async def test_two_hosts_are_none_and_an_old_probe_needs_none(ops: Ops) -> None:
    async with open_listener(ops.app, "127.0.0.1", 0) as port:
        answers = []
        for hosts in ("Host: localhost\r\nHost: stranger.example.net\r\n", "Host: \r\n", ""):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET /livez HTTP/1.0\r\n{hosts}\r\n".encode())
            answers.append((await reader.readline()).split()[1])
            writer.close()

    assert answers == [b"400", b"421", b"200"]


async def test_it_only_reads(client: Client) -> None:
    for path in ("/livez", "/readyz", "/healthz", "/metrics"):
        assert (await client.post(path)).status == 405
    assert (await client.get("/")).status == 404
