"""The simulated server over HTTP/2, asked by h2, a client that nobody here wrote."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.wbxml.decode import decode
from eas_watcher.wbxml.element import FOLDERHIERARCHY
from eas_watcher.wbxml.encode import encode
from relay.sandbox.certificates import ThrowAwayCa
from relay.sandbox.eas.control import control_app
from relay.sandbox.eas.failures import AnswerHttp, Cut, Delay, FailurePlan, Reset
from relay.sandbox.eas.rules import EasRules
from relay.sandbox.eas.server import ALPN, open_eas_simulator
from relay.sandbox.eas.simulator import EasSimulator
from tests.integration.test_eas_simulator import ANN, INBOX, PASSWORD, WBXML, ping, sync
from tests.waiting import until

HTTP_1_1_REQUIRED, INTERNAL_ERROR = 13, 2


@dataclass
class Streams:
    """One connection; what came is kept by stream id."""

    http: H2Connection
    writer: asyncio.StreamWriter
    port: int
    answers: dict[int, dict[str, list[str]]] = field(default_factory=dict)
    bodies: dict[int, bytes] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    resets: dict[int, int] = field(default_factory=dict)
    farewell: ConnectionTerminated | None = None
    lost: bool = False
    acknowledge: bool = True

    def flush(self) -> None:
        self.writer.write(self.http.data_to_send())

    async def read(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65536):
            for event in self.http.receive_data(data):
                match event:
                    case ResponseReceived(stream_id=int(stream), headers=headers):
                        answer: dict[str, list[str]] = {}
                        for name, value in headers or ():
                            answer.setdefault(str(name), []).append(str(value))
                        self.answers[stream] = answer
                    case DataReceived(stream_id=int(stream), data=bytes(part), flow_controlled_length=int(length)):
                        self.bodies[stream] = self.bodies.get(stream, b"") + part
                        if self.acknowledge:
                            self.http.acknowledge_received_data(length, stream)
                    case StreamEnded(stream_id=int(stream)):
                        self.ended.add(stream)
                    case StreamReset(stream_id=int(stream), error_code=code):
                        self.resets[stream] = int(code or 0)
                    case ConnectionTerminated():
                        self.farewell = event
                    case _:
                        pass
            self.flush()
        self.lost = True

    def send(self, command: str, body: bytes, headers: Mapping[str, str] | None = None) -> int:
        stream = self.http.get_next_available_stream_id()
        query = f"Cmd={command}&User={ANN}&DeviceId=D0011223344&DeviceType=PushRelay"
        fields = {
            ":method": "POST",
            ":scheme": "https",
            ":authority": f"127.0.0.1:{self.port}",
            ":path": f"/Microsoft-Server-ActiveSync?{query}",
            "authorization": BasicCredential(ANN, PASSWORD).authorization(),
            "ms-asprotocolversion": "14.1",
            "content-type": WBXML,
            **(headers or {}),
        }
        self.http.send_headers(stream, list(fields.items()), end_stream=False)
        self.http.send_data(stream, body, end_stream=True)
        self.flush()
        return stream

    async def answer(self, stream: int) -> tuple[str, bytes]:
        await until(lambda: stream in self.ended)
        return self.answers[stream][":status"][0], self.bodies.get(stream, b"")


@asynccontextmanager
async def speaking(simulator: EasSimulator, ca: ThrowAwayCa) -> AsyncIterator[Streams]:
    tls = ca.client_context()
    tls.set_alpn_protocols(["h2", "http/1.1"])
    reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port, ssl=tls)
    agreed: ssl.SSLObject = writer.get_extra_info("ssl_object")
    assert agreed.selected_alpn_protocol() == "h2"
    streams = Streams(H2Connection(H2Configuration(header_encoding="utf-8")), writer, simulator.port)
    streams.http.initiate_connection()
    streams.flush()
    reading = asyncio.get_running_loop().create_task(streams.read(reader))
    try:
        yield streams
    finally:
        reading.cancel()
        writer.transport.abort()
        await asyncio.gather(reading, return_exceptions=True)


@asynccontextmanager
async def server(rules: EasRules | None = None) -> AsyncIterator[tuple[EasSimulator, Streams]]:
    """Serve a mailbox without a policy, whose Inbox is in sync."""
    ca = ThrowAwayCa("Test")
    rules = rules or EasRules(policy=False)
    async with open_eas_simulator(tls=ca.server_context(alpn=ALPN), rules=rules) as simulator:
        simulator.add_mailbox(ANN, PASSWORD)
        async with speaking(simulator, ca) as streams:
            await primed(streams)
            yield simulator, streams


async def primed(streams: Streams) -> None:
    hierarchy = FOLDERHIERARCHY("FolderSync", FOLDERHIERARCHY("SyncKey", "0"))
    assert (await streams.answer(streams.send("FolderSync", encode(hierarchy))))[0] == "200"
    _, body = await streams.answer(streams.send("Sync", encode(sync("0"))))
    key = _key(body)
    while body:
        _, body = await streams.answer(streams.send("Sync", encode(sync(key))))
        key = _key(body) if body else key


def _key(body: bytes) -> str:
    collection = decode(body).children[0].children[0]
    return next(child.string for child in collection.children if child.tag == "SyncKey")


def held(simulator: EasSimulator) -> tuple[int, int]:
    state = simulator.connections.state()
    return state["http/1.1"]["held"], state["h2"]["held"]


PING = encode(ping(60, INBOX))


async def test_a_ping_is_held_on_a_stream_and_ends_with_a_change() -> None:
    async with server() as (simulator, streams):
        stream = streams.send("Ping", PING)
        await until(lambda: held(simulator) == (0, 1))
        simulator.deliver(ANN)

        status, body = await streams.answer(stream)
        assert (status, decode(body).children[0].string) == ("200", "2")
        assert (held(simulator), simulator.held) == ((0, 0), 0)
        assert ANN in simulator.ping_answered_at
        assert simulator.complaints == ()


async def test_a_reset_stream_ends_its_ping_and_no_other_stream() -> None:
    async with server() as (simulator, streams):
        stream = streams.send("Ping", PING)
        await until(lambda: simulator.held == 1)
        streams.http.reset_stream(stream, 8)
        streams.flush()
        await until(lambda: simulator.held == 0)

        assert (await streams.answer(streams.send("Sync", encode(sync("0")))))[0] == "200"
        assert simulator.connections.state()["h2"]["resets"] == 1


async def test_the_end_of_a_connection_ends_its_pings() -> None:
    async with server() as (simulator, streams):
        streams.send("Ping", PING)
        await until(lambda: simulator.held == 1)
        streams.writer.transport.abort()

        await until(lambda: simulator.held == 0)
        assert simulator.connections.state()["h2"]["connections"] == 0


async def test_a_large_answer_waits_for_the_windows_of_the_client() -> None:
    async with server() as (simulator, streams):
        for _ in range(3):
            simulator.deliver(ANN, body="x" * 40_000)
        key = _key((await streams.answer(streams.send("Sync", encode(sync("0")))))[1])
        streams.acknowledge = False
        streams.http.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 100})
        stream = streams.send("Sync", encode(sync(key)))
        await until(lambda: len(streams.bodies.get(stream, b"")) == 100)
        assert stream not in streams.ended
        streams.http.increment_flow_control_window(1_000_000, stream)
        streams.flush()
        await until(lambda: len(streams.bodies[stream]) > 65_000)  # the window of the connection is used up
        assert stream not in streams.ended
        streams.http.increment_flow_control_window(1_000_000)
        streams.flush()

        status, body = await streams.answer(stream)
        assert (status, decode(body).tag) == ("200", "Sync")


@pytest.mark.parametrize(
    ("failure", "code"), [(Reset(HTTP_1_1_REQUIRED), HTTP_1_1_REQUIRED), (Cut(), INTERNAL_ERROR)], ids=["reset", "cut"]
)
async def test_a_scripted_failure_resets_its_stream_only(failure: Reset | Cut, code: int) -> None:
    async with server() as (simulator, streams):
        first = streams.send("Ping", PING)
        await until(lambda: simulator.held == 1)
        simulator.fail(ANN, FailurePlan(failure, "Sync"))
        second = streams.send("Sync", encode(sync("0")))
        await until(lambda: second in streams.resets)

        assert streams.resets == {second: code}
        assert simulator.held == 1
        assert first not in streams.ended


async def test_a_misdirected_request_gets_421() -> None:
    async with server() as (simulator, streams):
        simulator.fail(ANN, FailurePlan(AnswerHttp(421)))
        assert (await streams.answer(streams.send("Ping", PING)))[0] == "421"


async def test_a_delayed_ping_is_held_afterwards() -> None:
    async with server() as (simulator, streams):
        simulator.fail(ANN, FailurePlan(Delay(0.01)))
        streams.send("Ping", PING)
        await until(lambda: held(simulator) == (0, 1))


async def test_few_workers_serve_streams_in_turn() -> None:
    async with server(EasRules(policy=False, workers=1, patience=0.05)) as (simulator, streams):
        streams.send("Ping", PING)
        await until(lambda: simulator.held == 1)

        status, body = await streams.answer(streams.send("Sync", encode(sync("0"))))
        assert (status, b"504" in body) == ("504", True)


async def test_a_server_that_takes_tickets_wants_http_1_1() -> None:
    async with server() as (simulator, streams):
        simulator.identities.ticket_of = lambda _: ANN
        stream = streams.send("Ping", PING, {"authorization": "Negotiate YII="})
        await until(lambda: stream in streams.resets)
        assert streams.resets[stream] == HTTP_1_1_REQUIRED


async def test_a_client_that_breaks_the_protocol_loses_its_connection() -> None:
    async with server() as (simulator, streams):
        streams.writer.write(b"\x00\x00\x00\x01\x05\x00\x00\x00\x00")  # HEADERS on stream 0
        await until(lambda: streams.lost)
        assert simulator.connections.state()["h2"]["violations"] == 1


ORDERS: list[tuple[dict[str, Any], int, bool]] = [
    ({"action": "go-away"}, 1, False),
    ({"action": "refuse", "error": HTTP_1_1_REQUIRED}, 1, False),
    ({"action": "reset", "error": HTTP_1_1_REQUIRED}, 0, False),
    ({"action": "drop"}, 0, True),
    ({"action": "freeze"}, 1, False),
]


@pytest.mark.parametrize(("order", "still_held", "lost"), ORDERS, ids=[order["action"] for order, _, _ in ORDERS])
async def test_the_control_ends_connections(order: dict[str, Any], still_held: int, lost: bool) -> None:
    async with server() as (simulator, streams), TestClient(TestServer(control_app(simulator))) as control:
        stream = streams.send("Ping", PING)
        await until(lambda: simulator.held == 1)
        async with control.post("/connections", json=order) as response:
            assert response.status == 204
        match order["action"]:
            case "go-away":
                await until(lambda: streams.farewell is not None)
                simulator.deliver(ANN)  # the stream ends, then the connection
                await until(lambda: simulator.connections.state()["h2"]["connections"] == 0)
            case "refuse":
                await until(lambda: streams.lost)
                assert streams.farewell is not None
                assert (streams.farewell.error_code, streams.farewell.last_stream_id) == (HTTP_1_1_REQUIRED, 0)
            case "reset":
                await until(lambda: streams.resets == {stream: HTTP_1_1_REQUIRED})
                assert simulator.held == still_held
            case "freeze":
                simulator.deliver(ANN)
                streams.send("Sync", encode(sync("0")))
                await asyncio.sleep(0.05)
                assert not streams.ended.intersection({stream, stream + 2})
            case _:
                await until(lambda: streams.lost == lost and simulator.held == still_held)


async def test_the_control_limits_streams() -> None:
    async with server() as (simulator, streams), TestClient(TestServer(control_app(simulator))) as control:
        async with control.post("/streams", json={"streams": 7}) as response:
            assert response.status == 204
        await until(lambda: streams.http.remote_settings.max_concurrent_streams == 7)
