import asyncio

import pytest

from relay.sandbox.scripts import (
    FCM_KINDS,
    KINDS,
    Answer,
    Close,
    Delay,
    Failure,
    FcmFailure,
    GoAway,
    Inbox,
    Mixture,
    Page,
    Received,
    Script,
    Stall,
    read_failure,
    read_mixture,
)


def test_failures_happen_in_order_and_as_often_as_scripted() -> None:
    script: Script[Failure] = Script()
    script.add(Stall(), 2)
    script.add(Close())

    assert [script.next() for _ in range(4)] == [Stall(), Stall(), Close(), None]


def test_zero_times_means_until_clear() -> None:
    script: Script[Failure] = Script()
    script.add(Close(), 0)

    assert [script.next() for _ in range(3)] == [Close()] * 3
    script.clear()
    assert script.next() is None


async def test_waiting_returns_all_requests_as_soon_as_there_are_enough() -> None:
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


async def test_waiting_for_too_few_requests_raises_a_timeout() -> None:
    with pytest.raises(TimeoutError):
        await Inbox().wait(1, 0.01)


def test_a_mixture_keeps_its_shares_and_repeats_itself_for_the_same_seed() -> None:
    def draw(seed: int) -> list[Failure | None]:
        mixture = Mixture[Failure]([(Stall(), 0.1), (Close(), 0.25)], seed)
        return [mixture.next() for _ in range(10_000)]

    drawn = draw(1)

    assert drawn == draw(1)
    assert drawn != draw(2)
    assert 900 < drawn.count(Stall()) < 1100
    assert 2300 < drawn.count(Close()) < 2700


def test_scripted_failures_precede_the_mixture_and_clear_ends_both() -> None:
    script: Script[Failure] = Script()
    script.mix(Mixture([(Close(), 1.0)], seed=1))
    script.add(Stall())

    assert [script.next() for _ in range(3)] == [Stall(), Close(), Close()]
    script.clear()
    assert script.next() is None


@pytest.mark.parametrize("shares", [[0.6, 0.6], [-0.1]])
def test_shares_below_0_or_above_1_together_are_refused(shares: list[float]) -> None:
    with pytest.raises(ValueError, match="shares"):
        Mixture([(Close(), share) for share in shares], seed=1)


@pytest.mark.parametrize(
    ("fields", "failure"),
    [
        ({"kind": "answer", "status": 503, "reason": "x", "times": 3}, (Answer(503, "x"), 3)),
        ({"kind": "delay", "seconds": 0.5}, (Delay(0.5), 1)),
        ({"kind": "goaway", "graceful": True, "times": 0}, (GoAway(graceful=True), 0)),
        ({"kind": "page", "status": 403}, (Page(403), 1)),
    ],
)
def test_failures_are_read(fields: dict[str, object], failure: tuple[FcmFailure, int]) -> None:
    assert read_failure(fields, FCM_KINDS) == failure


@pytest.mark.parametrize(
    "fields",
    [{}, {"kind": "fire"}, {"kind": "stall", "times": -1}, {"kind": "stall", "times": "x"}, {"kind": "answer"}],
)
def test_a_failure_with_wrong_fields_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"kind|times|answer"):
        read_failure(fields, FCM_KINDS)


def test_a_kind_that_a_simulator_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="kind is one of"):
        read_failure({"kind": "page"}, KINDS)


def test_a_mixture_is_read() -> None:
    mixture = read_mixture({"seed": 3, "failures": [{"kind": "stall", "share": 1}]}, KINDS)

    assert [mixture.next() for _ in range(3)] == [Stall()] * 3


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"failures": {}},
        {"failures": [{"kind": "stall"}]},
        {"failures": ["stall"]},
        {"failures": [{"kind": "stall", "share": 2}]},
        {"failures": [{"kind": "fire", "share": 0.5}]},
        {"seed": "x", "failures": []},
    ],
)
def test_a_mixture_with_wrong_fields_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"failures|share|kind"):
        read_mixture(fields, KINDS)
