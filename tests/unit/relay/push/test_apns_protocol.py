import asyncio

import pytest
from h2.exceptions import FrameTooLargeError
from hyperframe.frame import DataFrame, GoAwayFrame, PingFrame, SettingsFrame
from hypothesis import given
from hypothesis import strategies as st

from relay.push.apns_protocol import FRAME_LIMIT, Farewells, Streams

GRACEFUL = GoAwayFrame(0, last_stream_id=7, error_code=0, additional_data=b'{"reason":"Shutdown"}').serialize()
ANGRY = GoAwayFrame(0, last_stream_id=7, error_code=2).serialize()
OTHERS = [
    SettingsFrame(0, {3: 1}).serialize(),
    PingFrame(0, b"12345678").serialize(),
    DataFrame(1, b"x" * 300).serialize(),
]


class Gone(Exception):
    pass


async def test_stream_ids_are_odd_and_rise() -> None:
    streams = Streams(3)

    assert [await streams.acquire() for _ in range(3)] == [1, 3, 5]


async def test_who_comes_when_all_streams_are_open_waits_in_line() -> None:
    streams = Streams(1)
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
    streams = Streams(1)
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
    streams = Streams(1)
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
    streams = Streams(1)
    await streams.acquire()
    waiting = [asyncio.ensure_future(streams.acquire()) for _ in range(3)]
    await asyncio.sleep(0)

    streams.destroy(Gone())

    assert {type(each) for each in await asyncio.gather(*waiting, return_exceptions=True)} == {Gone}
    with pytest.raises(Gone):
        await streams.acquire()


@given(st.lists(st.sampled_from([GRACEFUL, ANGRY, *OTHERS])), st.data())
def test_only_graceful_farewells_are_taken_out_however_the_bytes_come(frames: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    sieve, kept, farewells = Farewells(), b"", []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        some, last = sieve.sift(stream[start:end])
        kept += some
        farewells += last

    assert kept == b"".join(frame for frame in frames if frame != GRACEFUL)
    assert farewells == [7] * frames.count(GRACEFUL)


def test_a_frame_longer_than_allowed_is_refused_before_it_came() -> None:
    oversized = (FRAME_LIMIT + 1).to_bytes(3) + b"\x00" * 6

    with pytest.raises(FrameTooLargeError):
        Farewells().sift(OTHERS[0] + oversized)
