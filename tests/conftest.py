"""Event loops, a check for forgotten tasks, Hypothesis profiles, and what saves CPU time in all tests."""

import asyncio
import gc
import logging
import os
from collections.abc import Callable, Generator, Iterator
from functools import lru_cache
from typing import Final

import looptime
import pytest
import uvloop
from cryptography.hazmat.primitives import serialization
from hypothesis import HealthCheck, settings

# pytest-asyncio 1.5 on Python 3.11 leaks a loop when a plain test precedes an async one, and warnings are errors here.
asyncio.set_event_loop(None)

# OpenSSL checks an RSA key for 36 ms of CPU, and tests read the same few keys thousands of times. Set before modules of
# the relay import the function by its name.
_load: Final = lru_cache(maxsize=256)(serialization.load_pem_private_key)
serialization.load_pem_private_key = _load  # type: ignore[assignment] # takes what can be hashed only

for profile, examples in {"quick": 25, "default": 100, "thorough": 2000}.items():
    settings.register_profile(
        profile, deadline=None, max_examples=examples, suppress_health_check=[HealthCheck.too_slow]
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

Loops = dict[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Loops:
    """Return the kinds of event loop that a test runs on: uvloop, as the relay does, unless a marker says otherwise."""
    if item.get_closest_marker("looptime"):
        return {"looptime": at_once}
    if item.get_closest_marker("both_loops"):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"uvloop": uvloop.new_event_loop}


def at_once() -> asyncio.AbstractEventLoop:
    """Return a loop whose clock jumps to the next timer when nothing else is to do.

    By default looptime turns the loop 42 times before each jump, and asks the kernel for I/O as often.
    """
    return looptime.new_event_loop(start=0.0, noop_cycles=0)


SLOW: Final = 600.0
"""Seconds that a slow test may take on two busy cores; the limit of the others is in pyproject.toml."""


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
        item.add_marker(pytest.mark.timeout(SLOW))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep modules and collected tests out of garbage collections: they live until the end, half a million objects."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


class Forgotten(logging.Handler):
    """Notes tasks whose exception was not retrieved, or that were not awaited: asyncio only logs them."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "was never retrieved" in message or "was destroyed but it is pending" in message:
            self.found.append(message)

    def check(self) -> None:
        """Fail if there were any; a task shows when it is collected, so it may be an earlier test's."""
        found, self.found = self.found, []
        assert not found, "forgotten by this test or an earlier one: " + "\n".join(found)


@pytest.fixture(scope="session")
def _forgotten() -> Iterator[Forgotten]:
    forgotten = Forgotten()
    logging.getLogger("asyncio").addHandler(forgotten)
    yield forgotten
    gc.collect()
    forgotten.check()


@pytest.fixture(autouse=True)
def _nothing_is_forgotten(_forgotten: Forgotten) -> Iterator[None]:
    yield
    _forgotten.check()
