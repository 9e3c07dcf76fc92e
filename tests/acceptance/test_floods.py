"""Strangers that open connections to the registration API of a real relay, and what else goes on meanwhile."""

import asyncio
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.site import PASSWORD, Site, troubles
from tests.waiting import SOON

FILES = 1000
"""Files that the relay may open; the strangers have three times as many connections."""
STRANGERS = 3000


@pytest.fixture(autouse=True)
def files() -> Iterator[None]:
    """Let this process open as many files as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < STRANGERS + 500:
        pytest.skip("this process may not open enough files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.slow
@pytest.mark.parametrize("addresses", [1, 100])
async def test_silent_connections_take_neither_pings_nor_pushes_nor_health(site: Site, addresses: int) -> None:
    limited = ("sh", "-c", f'ulimit -n {FILES}; exec "$@"', "sh")
    async with site.relay(within=limited) as relay:
        assert (await site.register())[0] == 201
        await site.held()
        with ExitStack() as silent:
            for number in range(STRANGERS):
                stranger = silent.enter_context(socket.socket())
                stranger.settimeout(0)
                stranger.bind((f"127.0.1.{number % addresses + 1}", 0))
                stranger.connect_ex(("127.0.0.1", site.sandbox.ports.api))
                if number % 100 == 0:
                    await asyncio.sleep(0.05)
            assert open_files(relay.process.pid) < FILES / 2
            site.deliver()
            assert len(await site.sandbox.apns.wait(1, SOON)) == 1
            await site.held()  # the Ping after it needs no new file, those of two more mailboxes do
            assert await troubles(relay) == []
            if addresses == 1:
                site.sandbox.eas.add_mailbox("ben@example.com", PASSWORD)
                assert (await site.register("ben@example.com"))[0] == 201
                await site.held(2)
    assert "Traceback" not in relay.log.read_text()
