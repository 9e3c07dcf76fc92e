"""The compiled clients that the tests share; where a compiler cannot be had, the tests are skipped or fail."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.clients.kotlin import Kotlin
from tests.interop.packages import Unavailable
from tests.site import ANN, PASSWORD, Site, open_site

TIMEOUT = 120  # seconds for a test alone, without the compilation


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.timeout(TIMEOUT, func_only=True))


@pytest.fixture(scope="session")
def kotlin() -> Kotlin:
    """Compile once for all; skip, or fail with RELAY_CLIENTS=required, where there is no compiler."""
    try:
        return Kotlin()
    except Unavailable as reason:
        if os.environ.get("RELAY_CLIENTS") == "required":
            pytest.fail(f"the clients must be compiled: {reason}", pytrace=False)
        pytest.skip(str(reason))


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path / "sandbox") as opened:
        opened.sandbox.eas.add_mailbox(ANN, PASSWORD)
        yield opened
