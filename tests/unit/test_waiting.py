"""The helper that every test waits with."""

import pytest

from tests.waiting import until


async def test_a_fact_may_be_awaited() -> None:
    looks = 0

    async def third_time() -> bool:
        nonlocal looks
        looks += 1
        return looks == 3

    await until(third_time)

    assert looks == 3


async def test_a_wait_in_vain_names_what_it_waited_for() -> None:
    held = 1

    with pytest.raises(AssertionError, match=r"after 0 seconds still False: .*held == 2.*test_waiting\.py:\d+"):
        await until(lambda: held == 2, 0.0)


async def test_a_wait_in_vain_for_an_object_shows_it() -> None:
    with pytest.raises(AssertionError, match=r"after 0 seconds still 0: <method-wrapper .__len__"):
        await until([].__len__, 0.0)
