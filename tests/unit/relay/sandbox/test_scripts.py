import asyncio

import pytest

from relay.sandbox.scripts import Close, Failure, Inbox, Mixture, Received, Script, Stall


def test_failures_happen_in_order_as_often_as_told() -> None:
    script: Script[Failure] = Script()
    script.add(Stall(), 2)
    script.add(Close())

    assert [script.next() for _ in range(4)] == [Stall(), Stall(), Close(), None]


def test_times_zero_means_until_cleared() -> None:
    script: Script[Failure] = Script()
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


def test_a_mixture_fails_the_shares_it_was_told_and_the_same_again_for_the_same_seed() -> None:
    def draw(seed: int) -> list[Failure | None]:
        mixture = Mixture[Failure]([(Stall(), 0.1), (Close(), 0.25)], seed)
        return [mixture.next() for _ in range(10_000)]

    drawn = draw(1)

    assert drawn == draw(1)
    assert drawn != draw(2)
    assert 900 < drawn.count(Stall()) < 1100
    assert 2300 < drawn.count(Close()) < 2700


def test_what_is_scripted_comes_before_the_mixture_and_healing_ends_both() -> None:
    script: Script[Failure] = Script()
    script.mix(Mixture([(Close(), 1.0)], seed=1))
    script.add(Stall())

    assert [script.next() for _ in range(3)] == [Stall(), Close(), Close()]
    script.clear()
    assert script.next() is None


@pytest.mark.parametrize("shares", [[0.6, 0.6], [-0.1]])
def test_shares_that_do_not_fit_are_refused(shares: list[float]) -> None:
    with pytest.raises(ValueError, match="shares"):
        Mixture([(Close(), share) for share in shares], seed=1)
