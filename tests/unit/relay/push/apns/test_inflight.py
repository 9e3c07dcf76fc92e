"""Play what a server says on streams, through h2 on both sides, and see who hears of it."""

import asyncio

import pytest
from h2.connection import H2Connection
from h2.errors import ErrorCodes

from relay.push.apns.exchange import Answer, Call, MaybeSent, NotSent
from relay.push.apns.inflight import UnderWay
from relay.push.apns.streams import Streams
from tests.unit.relay.push.apns.test_h2_engine import block, connected

ROOM = 1000


class World:
    """Hold a connection of which three requests are under way, on streams 1, 3 and 5."""

    def __init__(self) -> None:
        self.engine, self.server = connected()
        self.streams = Streams(3, 3, lambda: ROOM)
        self.requests = UnderWay(self.engine, self.streams)
        self.futures: dict[int, asyncio.Future[Answer]] = {}

    async def begin(self) -> None:
        for _ in range(3):
            stream_id = await self.streams.acquire()
            self.engine.request(stream_id, block(stream_id), b"12345")
            self.futures[stream_id] = asyncio.get_running_loop().create_future()
            self.requests.add(stream_id, Call(self.futures[stream_id], f"id-{stream_id}", ""))
        self.server.receive_data(self.engine.data_to_send())

    def hear(self) -> None:
        """Let the engine read what the server said."""
        for event in self.engine.receive_data(self.server.data_to_send()):
            self.requests.take(event)


@pytest.fixture
async def world() -> World:
    made = World()
    await made.begin()
    return made


def refuse(server: H2Connection, stream_id: int, body: bytes) -> None:
    server.send_headers(stream_id, [(":status", "400")])
    server.send_data(stream_id, body, end_stream=True)


async def test_each_answer_reaches_who_waits_for_it_in_whatever_order_they_come(world: World) -> None:
    assert not world.requests.answered
    world.server.send_headers(5, [(":status", "200")], end_stream=True)
    refuse(world.server, 1, b'{"reason":"BadDeviceToken"}')
    world.hear()

    assert (await world.futures[5]).status == "200"
    assert (await world.futures[1]).description == "BadDeviceToken"
    assert not world.futures[3].done()
    assert world.requests.answered
    assert (len(world.requests), 3 in world.requests, 5 in world.requests) == (1, True, False)
    assert list(world.engine.streams) == [3]


async def test_a_stream_that_ended_may_be_used_by_the_next(world: World) -> None:
    waiting = asyncio.ensure_future(world.streams.acquire())
    await asyncio.sleep(0)
    assert not waiting.done()

    world.server.send_headers(3, [(":status", "200")], end_stream=True)
    world.hear()

    assert await waiting == 7


async def test_what_was_read_of_bodies_is_given_back_to_the_server(world: World) -> None:
    before = world.server.outbound_flow_control_window
    for stream_id in world.futures:
        refuse(world.server, stream_id, b"x" * 16_000)  # together more than half a window, when h2 gives room back
    world.hear()
    world.server.receive_data(world.engine.data_to_send())

    assert world.server.outbound_flow_control_window > before - 48_000


@pytest.mark.parametrize(
    ("code", "error", "reason"),
    [
        (ErrorCodes.REFUSED_STREAM, NotSent, "stream-refused"),
        (ErrorCodes.INTERNAL_ERROR, MaybeSent, "stream-reset: INTERNAL_ERROR"),
    ],
)
async def test_a_reset_ends_its_stream_alone(
    world: World, code: ErrorCodes, error: type[Exception], reason: str
) -> None:
    world.server.reset_stream(3, code)
    world.hear()

    with pytest.raises(error, match=reason):
        await world.futures[3]
    assert len(world.requests) == 2
    assert not world.requests.answered


async def test_what_comes_for_a_stream_that_nobody_waits_for_any_more_is_dropped(world: World) -> None:
    refuse(world.server, 1, b'{"reason":"BadDeviceToken"}')
    world.server.reset_stream(3, ErrorCodes.CANCEL)
    world.server.ping(b"12345678")
    events = world.engine.receive_data(world.server.data_to_send())
    assert [world.requests.end(stream_id) is None for stream_id in (1, 3, 1)] == [False, False, True]

    for event in events:
        world.requests.take(event)

    assert [future.done() for future in world.futures.values()] == [False] * 3
    assert len(world.requests) == 1
    assert (await world.streams.acquire(), await world.streams.acquire()) == (7, 9), "a stream is given back once"


async def test_all_or_the_later_ones_are_failed_each_with_an_error_of_its_own(world: World) -> None:
    world.requests.fail(NotSent, "server-goes-away", 3)
    assert [future.done() for future in world.futures.values()] == [False, False, True]
    with pytest.raises(NotSent, match="server-goes-away"):
        await world.futures[5]

    world.requests.fail(MaybeSent, "connection-lost")

    errors = [world.futures[stream_id].exception() for stream_id in (1, 3)]
    assert [str(error) for error in errors] == ["connection-lost"] * 2
    assert errors[0] is not errors[1]
    assert len(world.requests) == 0
