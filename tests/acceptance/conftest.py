from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.site import ANN, PASSWORD, Site, open_site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path / "sandbox") as opened:
        opened.sandbox.eas.add_mailbox(ANN, PASSWORD)
        yield opened
