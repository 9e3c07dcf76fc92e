import asyncio

import pytest
from h2.exceptions import NoAvailableStreamIDError

from relay.push.apns.streams import Streams


class Gone(Exception):
    pass


class Window:
    """Be the room that flow control leaves."""

    def __init__(self, room: int = 65_535) -> None:
        self.room = room

    def __call__(self) -> int:
        return self.room


def streams_of(bound: int, most: int = 1000, window: Window | None = None) -> Streams:
    return Streams(bound, most, window or Window())


async def test_stream_ids_are_odd_and_rise() -> None:
    streams = streams_of(3)

    assert [await streams.acquire() for _ in range(3)] == [1, 3, 5]


async def test_who_comes_when_all_streams_are_open_waits_in_line() -> None:
    streams = streams_of(1)
    await streams.acquire()
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(streams.acquire()) for _ in range(2)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)

        streams.release()
        assert await waiting[0] == 3
        assert not waiting[1].done()
        streams.release()
    assert waiting[1].result() == 5


async def test_a_raised_limit_lets_waiters_in_at_once_and_a_lowered_one_holds_them_back() -> None:
    streams = streams_of(1)
    await streams.acquire()
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(streams.acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        streams.bound = 3
        await asyncio.sleep(0)
        assert [task.done() for task in waiting] == [True, True, False]

        streams.bound = 1
        streams.release()
        streams.release()
        await asyncio.sleep(0)
        assert not waiting[2].done()
        streams.release()
    assert streams.bound == 1


async def test_who_gives_up_leaves_the_line_and_its_stream() -> None:
    streams = streams_of(1)
    await streams.acquire()
    async with asyncio.TaskGroup() as tasks:
        gives_up_early = tasks.create_task(streams.acquire())
        gives_up_late = tasks.create_task(streams.acquire())
        stays = tasks.create_task(streams.acquire())
        await asyncio.sleep(0)
        gives_up_early.cancel()
        streams.release()
        gives_up_late.cancel()  # it was let in, and has not noticed so far
        await asyncio.sleep(0)
    assert stays.result() == 3


async def test_an_end_reaches_all_who_wait_and_all_who_come() -> None:
    streams = streams_of(1)
    await streams.acquire()
    waiting = [asyncio.ensure_future(streams.acquire()) for _ in range(3)]
    await asyncio.sleep(0)

    streams.destroy(Gone())

    assert {type(each) for each in await asyncio.gather(*waiting, return_exceptions=True)} == {Gone}
    with pytest.raises(Gone):
        await streams.acquire()


async def test_never_more_are_open_than_we_want_whatever_the_server_allows() -> None:
    streams = streams_of(1, most=2)
    streams.bound = 1000
    assert streams.bound == 2


async def test_a_body_waits_for_room_and_those_behind_it_wait_too() -> None:
    window = Window(100)
    streams = streams_of(10, window=window)
    assert await streams.acquire(60) == 1
    window.room -= 60  # it was sent at once
    async with asyncio.TaskGroup() as tasks:
        big = tasks.create_task(streams.acquire(60))
        await asyncio.sleep(0)
        small = tasks.create_task(streams.acquire(10))
        await asyncio.sleep(0)
        assert not big.done()
        assert not small.done()

        window.room += 60
        streams.hand_out()
    assert (big.result(), small.result()) == (3, 5)


async def test_room_is_promised_once() -> None:
    window = Window(0)
    streams = streams_of(10, window=window)
    waiting = [asyncio.ensure_future(streams.acquire(60)) for _ in range(2)]
    await asyncio.sleep(0)

    window.room = 100
    streams.hand_out()
    await asyncio.sleep(0)

    assert [each.done() for each in waiting] == [True, False]
    waiting[1].cancel()


async def test_who_gives_up_before_a_big_body_lets_the_next_one_in() -> None:
    window = Window(50)
    streams = streams_of(10, window=window)
    async with asyncio.TaskGroup() as tasks:
        big = tasks.create_task(streams.acquire(60))
        await asyncio.sleep(0)
        small = tasks.create_task(streams.acquire(10))
        await asyncio.sleep(0)
        big.cancel()
    assert small.result() == 1


async def test_nobody_is_let_in_while_the_socket_takes_no_more() -> None:
    streams = streams_of(10)
    streams.paused = True
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(streams.acquire(1))
        await asyncio.sleep(0)
        assert not waiting.done()
        assert streams.paused
        streams.paused = False
    assert waiting.result() == 1


async def test_the_last_stream_id_is_the_last() -> None:
    streams = streams_of(10)
    streams._next = 2**31 - 1
    assert await streams.acquire() == 2**31 - 1
    with pytest.raises(NoAvailableStreamIDError):
        await streams.acquire()
