"""Tests of the examination: order, limits, and questions that several checks ask."""

import asyncio
from collections.abc import Sequence

import pytest

from relay.doctor.examination import Check, Once, examine
from relay.doctor.finding import Finding, Subject


def check(name: str, seconds: float) -> Check:
    subject = Subject("TCP", name)

    async def look() -> Sequence[Finding]:
        await asyncio.sleep(seconds)
        return [subject.good("fine")]

    return Check(subject, look)


@pytest.mark.looptime
async def test_checks_run_at_once_and_are_shown_in_their_order() -> None:
    began = asyncio.get_running_loop().time()

    found = [each.subject async for each in examine([check("slow", 5), check("quick", 1), check("other", 4)])]

    assert found == ["slow", "quick", "other"]
    assert asyncio.get_running_loop().time() - began == 5


@pytest.mark.looptime
async def test_a_check_that_hangs_is_bad_and_holds_no_other() -> None:
    found = [each async for each in examine([check("hung", 1000), check("quick", 1)], 10)]

    assert [each.text for each in found] == ["no answer within 10 s", "fine"]
    assert asyncio.get_running_loop().time() == 10


@pytest.mark.looptime
async def test_checks_end_with_their_reader() -> None:
    checks = examine([check("quick", 1), check("slow", 5)])

    assert (await anext(checks)).subject == "quick"
    await checks.aclose()  # type: ignore[attr-defined]  # an asynchronous generator
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.looptime
async def test_a_question_of_several_checks_is_asked_once() -> None:
    asked: list[int] = []

    async def ask() -> int:
        asked.append(1)
        await asyncio.sleep(1)
        return 7

    once = Once(ask)
    assert list(await asyncio.gather(once.answer(), once.answer())) == [7, 7]
    assert asked == [1]


@pytest.mark.looptime
async def test_a_question_goes_on_when_one_check_waits_no_longer() -> None:
    async def ask() -> int:
        await asyncio.sleep(5)
        return 7

    once = Once(ask)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(once.answer(), 1)
    assert await once.answer() == 7


@pytest.mark.looptime
async def test_a_question_ends_with_the_examination() -> None:
    never, unasked = Once(asyncio.Event().wait), Once(asyncio.Event().wait)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(never.answer(), 1)

    await never.cancel()
    await unasked.cancel()
    assert len(asyncio.all_tasks()) == 1
