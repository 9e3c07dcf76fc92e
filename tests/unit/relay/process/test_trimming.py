import asyncio
import os
from pathlib import Path

import pytest

from relay.process.trimming import WORTH, FreeMemory, Malloc, give_back
from tests.waiting import until

MIB = 2**20


class FakeMalloc(Malloc):
    """An allocator with the given numbers of free bytes, one for each look, that notes at which look it was trimmed."""

    def __init__(self, *free: int) -> None:
        self._free = list(free)
        self.looks = 0
        self.trims: list[int] = []

    def free(self) -> int:
        self.looks += 1
        return self._free[min(self.looks, len(self._free)) - 1]

    def trim(self) -> None:
        self.trims.append(self.looks)


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_that_became_free_is_worth_a_trim_once() -> None:
    memory = FreeMemory()
    assert not memory.worth_a_trim(WORTH - 1)
    assert memory.worth_a_trim(WORTH)

    memory.trimmed(WORTH)
    assert not memory.worth_a_trim(2 * WORTH - 1)


def test_memory_that_was_used_again_since_the_trim_counts_once_more() -> None:
    memory = FreeMemory()
    memory.trimmed(5 * WORTH)

    assert not memory.worth_a_trim(WORTH)
    assert memory.worth_a_trim(2 * WORTH)


@pytest.mark.looptime
async def test_malloc_is_trimmed_at_most_once_per_look_and_only_for_much() -> None:
    malloc = FakeMalloc(MIB, 200 * MIB, 200 * MIB, 201 * MIB, 10 * MIB, 90 * MIB)
    looking = asyncio.get_running_loop().create_task(give_back(lambda: malloc))
    await asyncio.sleep(60.5)
    assert malloc.trims == []
    await asyncio.sleep(60)
    assert malloc.trims == [2]
    await asyncio.sleep(60 * 10)
    looking.cancel()

    assert malloc.trims == [2, 6]


async def test_a_process_without_glibc_is_left_alone() -> None:
    async with asyncio.timeout(1):
        await give_back(lambda: None)


async def test_the_memory_of_a_storm_returns_to_the_system() -> None:
    storm = [bytes(4000) for _ in range(20_000)]
    kept = storm[::50]  # objects that stay among those that go, as in a storm
    del storm
    before = resident()
    looking = asyncio.get_running_loop().create_task(give_back(seconds=0.01))
    try:
        await until(lambda: resident() < before - 40 * MIB)
    finally:
        looking.cancel()
    assert len(kept) == 400
