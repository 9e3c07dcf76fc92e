import asyncio

import pytest

from relay.sandbox.push_control import read_failure
from relay.sandbox.scripts import Answer, Close, Delay, Failure, GoAway, Inbox, Received, Script, Stall


def test_failures_happen_in_order_as_often_as_told() -> None:
    script = Script()
    script.add(Stall(), 2)
    script.add(Close())

    assert [script.next() for _ in range(4)] == [Stall(), Stall(), Close(), None]


def test_times_zero_means_until_cleared() -> None:
    script = Script()
    script.add(Close(), 0)

    assert [script.next() for _ in range(3)] == [Close()] * 3
    script.clear()
    assert script.next() is None


async def test_who_waits_gets_all_requests_once_there_are_enough() -> None:
    inbox = Inbox()
    first, second = (Received(moment, {}, b"", "", 200) for moment in (1, 2))
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(inbox.wait(2, 5.0))
        await asyncio.sleep(0)
        inbox.add(first)
        await asyncio.sleep(0)
        assert not waiting.done()
        inbox.add(second)
    assert waiting.result() == [first, second]


async def test_who_waits_in_vain_is_told() -> None:
    with pytest.raises(TimeoutError):
        await Inbox().wait(1, 0.01)


@pytest.mark.parametrize(
    ("fields", "failure"),
    [
        ({"kind": "answer", "status": 503, "reason": "x", "times": 3}, (Answer(503, "x"), 3)),
        ({"kind": "delay", "seconds": 0.5}, (Delay(0.5), 1)),
        ({"kind": "goaway", "graceful": True, "times": 0}, (GoAway(graceful=True), 0)),
    ],
)
def test_failures_are_read_from_json(fields: dict[str, object], failure: tuple[Failure, int]) -> None:
    assert read_failure(fields) == failure


@pytest.mark.parametrize(
    "fields",
    [{}, {"kind": "fire"}, {"kind": "stall", "times": -1}, {"kind": "stall", "times": "x"}, {"kind": "answer"}],
)
def test_failures_that_are_none_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"kind|times|answer"):
        read_failure(fields)
