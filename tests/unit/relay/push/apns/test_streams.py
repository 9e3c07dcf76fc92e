"""Open streams against a window of the test's own, and play a server's frames through h2 on both sides."""

import asyncio

import pytest
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import NoAvailableStreamIDError

from relay.push.apns.exchange import Answer, Ending, MaybeSent, NotSent
from relay.push.apns.streams import BODY_LIMIT, InFlight, PendingAnswer, StreamSlots
from tests.unit.relay.push.apns.test_h2_engine import block, connected

WINDOW = 1000


class Gone(Exception):
    pass


class Window:
    """The bytes that flow control lets through."""

    def __init__(self, size: int = 65_535) -> None:
        self.size = size

    def __call__(self) -> int:
        return self.size


def slots_of(limit: int, ceiling: int = 1000, window: Window | None = None) -> StreamSlots:
    return StreamSlots(limit, ceiling, window or Window())


async def test_stream_ids_are_odd_and_rise() -> None:
    slots = slots_of(3)

    assert [await slots.acquire() for _ in range(3)] == [1, 3, 5]


async def test_a_request_waits_in_line_when_all_streams_are_open() -> None:
    slots = slots_of(1)
    await slots.acquire()
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(slots.acquire()) for _ in range(2)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)

        slots.release()
        assert await waiting[0] == 3
        assert not waiting[1].done()
        slots.release()
    assert waiting[1].result() == 5


async def test_a_raised_limit_admits_waiting_requests_at_once_and_a_lowered_one_holds_them_back() -> None:
    slots = slots_of(1)
    await slots.acquire()
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(slots.acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        slots.limit = 3
        await asyncio.sleep(0)
        assert [task.done() for task in waiting] == [True, True, False]

        slots.limit = 1
        slots.release()
        slots.release()
        await asyncio.sleep(0)
        assert not waiting[2].done()
        slots.release()
    assert slots.limit == 1


async def test_a_cancelled_request_leaves_the_line_and_its_slot() -> None:
    slots = slots_of(1)
    await slots.acquire()
    async with asyncio.TaskGroup() as tasks:
        cancelled_early = tasks.create_task(slots.acquire())
        cancelled_late = tasks.create_task(slots.acquire())
        stays = tasks.create_task(slots.acquire())
        await asyncio.sleep(0)
        cancelled_early.cancel()
        slots.release()
        cancelled_late.cancel()  # it was admitted, and has not run yet
        await asyncio.sleep(0)
    assert stays.result() == 3


async def test_closing_ends_the_requests_that_wait_and_those_that_come_later() -> None:
    slots = slots_of(1)
    await slots.acquire()
    waiting = [asyncio.ensure_future(slots.acquire()) for _ in range(3)]
    await asyncio.sleep(0)

    slots.close(Gone())

    assert {type(each) for each in await asyncio.gather(*waiting, return_exceptions=True)} == {Gone}
    with pytest.raises(Gone):
        await slots.acquire()


async def test_never_more_streams_are_open_than_configured_whatever_the_server_allows() -> None:
    slots = slots_of(1, ceiling=2)
    slots.limit = 1000
    assert slots.limit == 2


async def test_a_body_waits_for_room_in_the_window_and_those_behind_it_wait_too() -> None:
    window = Window(100)
    slots = slots_of(10, window=window)
    assert await slots.acquire(60) == 1
    window.size -= 60  # it was sent at once
    async with asyncio.TaskGroup() as tasks:
        big = tasks.create_task(slots.acquire(60))
        await asyncio.sleep(0)
        small = tasks.create_task(slots.acquire(10))
        await asyncio.sleep(0)
        assert not big.done()
        assert not small.done()

        window.size += 60
        slots.admit()
    assert (big.result(), small.result()) == (3, 5)


async def test_room_in_the_window_is_reserved_once() -> None:
    window = Window(0)
    slots = slots_of(10, window=window)
    waiting = [asyncio.ensure_future(slots.acquire(60)) for _ in range(2)]
    await asyncio.sleep(0)

    window.size = 100
    slots.admit()
    await asyncio.sleep(0)

    assert [each.done() for each in waiting] == [True, False]
    waiting[1].cancel()


async def test_a_cancelled_big_request_lets_the_next_one_in() -> None:
    window = Window(50)
    slots = slots_of(10, window=window)
    async with asyncio.TaskGroup() as tasks:
        big = tasks.create_task(slots.acquire(60))
        await asyncio.sleep(0)
        small = tasks.create_task(slots.acquire(10))
        await asyncio.sleep(0)
        big.cancel()
    assert small.result() == 1


async def test_no_request_is_admitted_while_the_socket_accepts_no_bytes() -> None:
    slots = slots_of(10)
    slots.paused = True
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(slots.acquire(1))
        await asyncio.sleep(0)
        assert not waiting.done()
        assert slots.paused
        slots.paused = False
    assert waiting.result() == 1


async def test_the_last_stream_id_is_the_last() -> None:
    slots = slots_of(10)
    slots._next = 2**31 - 1
    assert await slots.acquire() == 2**31 - 1
    with pytest.raises(NoAvailableStreamIDError):
        await slots.acquire()


async def pending() -> PendingAnswer:
    return PendingAnswer(asyncio.get_running_loop().create_future(), "5f0e", "bearer x")


async def test_an_answer_is_put_together_of_its_frames() -> None:
    waiting = await pending()

    waiting.add_headers([(b":status", b"410"), (b"apns-id", b"5f0e"), (b"retry-after", b"30")])
    waiting.add_data(b'{"reason":"Unregis')
    waiting.add_data(b'tered","timestamp":1700000000000}')
    waiting.finish()

    answer = await waiting.future
    result = answer.result
    assert (result.status, result.description, result.timestamp) == ("410", "Unregistered", 1700000000000)
    assert (result.notification_id, answer.authorization, answer.retry_after) == ("5f0e", "bearer x", "30")


async def test_an_endless_body_is_not_kept() -> None:
    waiting = await pending()

    for _ in range(100):
        waiting.add_data(bytes(BODY_LIMIT // 2))

    assert len(waiting._body) == BODY_LIMIT


async def test_a_request_ends_once() -> None:
    answered, failed = await pending(), await pending()

    answered.finish()
    answered.fail(MaybeSent(Ending.CONNECTION_LOST))
    failed.fail(NotSent(Ending.STREAM_REFUSED))
    failed.finish()

    assert isinstance(await answered.future, Answer)
    with pytest.raises(NotSent, match="stream-refused"):
        await failed.future


async def test_a_cancelled_request_gets_nothing_more() -> None:
    waiting = await pending()
    waiting.future.cancel()

    waiting.finish()
    waiting.fail(MaybeSent(Ending.CONNECTION_LOST))

    assert waiting.future.cancelled()


class World:
    """A connection with three requests in flight, on streams 1, 3 and 5."""

    def __init__(self) -> None:
        self.engine, self.server = connected()
        self.slots = StreamSlots(3, 3, lambda: WINDOW)
        self.requests = InFlight(self.engine, self.slots)
        self.futures: dict[int, asyncio.Future[Answer]] = {}

    async def begin(self) -> None:
        for _ in range(3):
            stream_id = await self.slots.acquire()
            self.engine.request(stream_id, block(stream_id), b"12345")
            self.futures[stream_id] = asyncio.get_running_loop().create_future()
            self.requests.add(stream_id, PendingAnswer(self.futures[stream_id], f"id-{stream_id}", ""))
        self.server.receive_data(self.engine.data_to_send())

    def hear(self) -> None:
        """Let the engine read what the server said."""
        events, _ = self.engine.receive(self.server.data_to_send())
        for event in events:
            self.requests.handle(event)


@pytest.fixture
async def world() -> World:
    made = World()
    await made.begin()
    return made


def refuse(server: H2Connection, stream_id: int, body: bytes) -> None:
    server.send_headers(stream_id, [(":status", "400")])
    server.send_data(stream_id, body, end_stream=True)


async def test_each_answer_reaches_its_request_in_whatever_order_they_come(world: World) -> None:
    assert not world.requests.answered
    world.server.send_headers(5, [(":status", "200")], end_stream=True)
    refuse(world.server, 1, b'{"reason":"BadDeviceToken"}')
    world.hear()

    assert (await world.futures[5]).result.status == "200"
    assert (await world.futures[1]).result.description == "BadDeviceToken"
    assert not world.futures[3].done()
    assert world.requests.answered
    assert (len(world.requests), 3 in world.requests, 5 in world.requests) == (1, True, False)


async def test_the_slot_of_a_stream_that_ended_goes_to_the_next_request(world: World) -> None:
    waiting = asyncio.ensure_future(world.slots.acquire())
    await asyncio.sleep(0)
    assert not waiting.done()

    world.server.send_headers(3, [(":status", "200")], end_stream=True)
    world.hear()

    assert await waiting == 7


async def test_the_server_may_send_again_as_much_as_was_read(world: World) -> None:
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


async def test_what_comes_for_a_request_that_is_gone_is_dropped(world: World) -> None:
    refuse(world.server, 1, b'{"reason":"BadDeviceToken"}')
    world.server.reset_stream(3, ErrorCodes.CANCEL)
    world.server.ping(b"12345678")
    events, _ = world.engine.receive(world.server.data_to_send())
    assert [world.requests.end(stream_id) is None for stream_id in (1, 3, 1)] == [False, False, True]

    for event in events:
        world.requests.handle(event)

    assert [future.done() for future in world.futures.values()] == [False] * 3
    assert len(world.requests) == 1
    assert (await world.slots.acquire(), await world.slots.acquire()) == (7, 9), "a slot is given back once"


async def test_all_or_the_later_requests_fail_each_with_an_error_of_its_own(world: World) -> None:
    world.requests.fail(NotSent, Ending.SERVER_GOES_AWAY, beyond=3)
    assert [future.done() for future in world.futures.values()] == [False, False, True]
    with pytest.raises(NotSent, match="server-goes-away"):
        await world.futures[5]

    world.requests.fail(MaybeSent, Ending.CONNECTION_LOST)

    errors = [world.futures[stream_id].exception() for stream_id in (1, 3)]
    assert [str(error) for error in errors] == ["connection-lost"] * 2
    assert errors[0] is not errors[1]
    assert len(world.requests) == 0
