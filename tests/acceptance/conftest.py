import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.site import ANN, PASSWORD, Site, open_site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path / "sandbox") as opened:
        opened.sandbox.eas.add_mailbox(ANN, PASSWORD)
        yield opened


@pytest.fixture
def free_ports() -> list[int]:
    """Return three ports on which no process listens now."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(3)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
