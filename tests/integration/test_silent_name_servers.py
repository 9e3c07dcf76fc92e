"""Connections while the name servers of other names are silent, on the relay's event loop with this host's resolver."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

LIMIT = 60.0  # seconds; a limit, never a wait


async def test_names_that_hang_delay_no_other_connection(tmp_path: Path) -> None:
    pipe = tmp_path / "aliases"
    os.mkfifo(pipe)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fakes.silent_names"),
        env={**os.environ, "HOSTALIASES": str(pipe)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(LIMIT):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    if b"do not hang" in said:
        pytest.skip("the resolver of this host reads no HOSTALIASES")

    assert said.decode().splitlines() == [
        "mail server 127.0.0.1 is connected",
        "provider 127.0.0.1 is connected",
        "mail server localhost is connected",
        "provider localhost is connected",
    ]
