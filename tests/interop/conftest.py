"""What interop tests share: the SOGo server, and the browser; where they cannot run, the tests are skipped or fail."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from tests.interop.chromium import Browser, browser
from tests.interop.packages import Unavailable, unavailable
from tests.interop.sogo.configuration import Settings
from tests.interop.sogo.server import SogoServer, User, running_sogo

TIMEOUT = 120  # seconds for a test alone, without the start of the server and without an installation


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.timeout(TIMEOUT, func_only=True))


@pytest.fixture(scope="session")
def sogo() -> Iterator[SogoServer]:
    """Run a server for the whole session; skip, or fail with RELAY_INTEROP=required, where that is impossible."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(running_sogo(Settings(), keep="RELAY_INTEROP_KEEP" in os.environ))
        except Unavailable as reason:
            unavailable(reason)
        yield server


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    """Run a browser for one test; skip, or fail with RELAY_INTEROP=required, where that is impossible."""
    try:
        async with browser() as running:
            yield running
    except Unavailable as reason:
        unavailable(reason)


@pytest.fixture
def user(sogo: SogoServer) -> User:
    """Create a user for one test."""
    return sogo.add_user(f"user{len(sogo.users) + 1:02}")
