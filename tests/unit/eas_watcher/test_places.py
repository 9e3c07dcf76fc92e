import asyncio

from eas_watcher.places import Places


async def test_a_place_goes_to_the_first_that_waits_and_has_not_given_up() -> None:
    places = Places(1)
    order: list[int] = []

    async def take(number: int) -> None:
        async with places:
            order.append(number)

    await places.acquire()
    first, second, third = [asyncio.ensure_future(take(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert (places.free, places.waiting) == (0, 3)
    first.cancel()  # it gives up before its turn
    await asyncio.sleep(0)
    places.release()
    second.cancel()  # it gives up after it got the place, which goes on to the third
    await asyncio.wait({first, second, third})

    assert (order, places.free, places.waiting) == ([2], 1, 0)
