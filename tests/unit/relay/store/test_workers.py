"""Test the threads that run functions for an event loop."""

import asyncio
import threading
from functools import partial
from typing import Any

import pytest

from relay.domain.errors import StoreUnavailable
from relay.store import workers
from relay.store.workers import Job, Jobs

LONG = 10.0  # seconds; a limit, never a wait


def run(jobs: Jobs) -> list[Job[Any]]:
    done = []
    for job in jobs:
        job.run()
        done.append(job)
    return done


Workers = partial(workers.Workers, run=run)


class Gate:
    """A function that runs until a test lets it end."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self) -> str:
        self.entered.set()
        assert self.open.wait(LONG)
        return "passed"


async def test_a_function_returns_or_raises_in_its_caller() -> None:
    workers = Workers("test", 1, LONG)

    assert await workers.run(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await workers.run(lambda: 1 // 0)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await workers.run(lambda: next(iter(())))

    await workers.close()


async def test_one_that_gets_no_turn_in_time_never_runs_and_the_one_before_ends() -> None:
    workers, gate, ran = Workers("test", 1, LONG), Gate(), []
    before = asyncio.ensure_future(workers.run(gate))
    assert await asyncio.to_thread(gate.entered.wait, LONG)
    workers._patience = 0.1

    with pytest.raises(StoreUnavailable, match="no turn within"):
        await workers.run(lambda: ran.append(1))
    gate.open.set()

    assert await before == "passed"
    await workers.close()
    assert ran == []


async def test_as_many_run_at_a_time_as_there_are_threads() -> None:
    workers, gates = Workers("test", 2, LONG), [Gate(), Gate()]
    tasks = [asyncio.ensure_future(workers.run(gate)) for gate in gates]
    for gate in gates:
        assert await asyncio.to_thread(gate.entered.wait, LONG)
    for gate in gates:
        gate.open.set()

    assert await asyncio.gather(*tasks) == ["passed", "passed"]
    await workers.close()


async def test_those_that_wait_run_before_the_end_and_none_after_it() -> None:
    workers, gate = Workers("test", 1, LONG), Gate()
    tasks = [asyncio.ensure_future(workers.run(gate)) for _ in range(3)]
    await asyncio.sleep(0)
    gate.open.set()
    await workers.close()

    assert await asyncio.gather(*tasks) == ["passed"] * 3
    with pytest.raises(StoreUnavailable, match="closed"):
        await workers.run(gate)


async def test_threads_that_were_never_used_end_at_once() -> None:
    await Workers("test", 1, LONG).close()


async def test_how_long_a_function_runs_is_known_while_it_runs() -> None:
    workers, gate = Workers("test", 1, LONG), Gate()
    assert workers.longest == 0.0
    running = asyncio.ensure_future(workers.run(gate))
    assert await asyncio.to_thread(gate.entered.wait, LONG)

    assert workers.longest > 0.0
    gate.open.set()
    await running
    await workers.run(lambda: None)
    await workers.close()
    assert workers.longest == 0.0
