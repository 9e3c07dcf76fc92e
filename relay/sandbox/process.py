"""A relay in a process of its own, started with `relay serve`, for the demo and for tests."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import aiohttp

START: Final = 60.0  # seconds; a busy machine needs ten to import everything
STOP: Final = 20.0  # seconds
INTERVAL: Final = 0.1  # seconds between two requests for /readyz


class RelayEnded(Exception):
    """The relay ended before it was ready; the text is the end of its log."""


class RelayProcess:
    """One `relay serve`."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, ops_port: int, ops_host: str) -> None:
        self.process = process
        self.log = log
        """The file with all output of the process."""
        self._ops = f"http://{ops_host}:{ops_port}"

    async def ready(self) -> None:
        """Return when /readyz answers 200; raises RelayEnded, TimeoutError."""
        async with asyncio.timeout(START), aiohttp.ClientSession() as session:
            while True:
                if self.process.returncode is not None:
                    raise RelayEnded(self.log.read_text(encoding="utf-8")[-2000:])
                try:
                    async with session.get(f"{self._ops}/readyz") as response:
                        if response.status == HTTPStatus.OK:
                            return
                except aiohttp.ClientConnectionError:
                    pass  # the relay does not listen yet
                await asyncio.sleep(INTERVAL)

    async def health(self) -> dict[str, Any]:
        """Return the document of /healthz."""
        async with aiohttp.ClientSession() as session, session.get(f"{self._ops}/healthz") as response:
            document: dict[str, Any] = await response.json()
            return document

    async def metrics(self) -> str:
        """Return the text of /metrics."""
        async with aiohttp.ClientSession() as session, session.get(f"{self._ops}/metrics") as response:
            return await response.text()

    def kill(self) -> None:
        """Send SIGKILL: the relay ends as in a power failure."""
        self.process.kill()

    async def stop(self) -> int:
        """Send SIGTERM, after STOP seconds SIGKILL, and return the exit status."""
        if self.process.returncode is None:
            self.process.terminate()
        try:
            async with asyncio.timeout(STOP):
                return await self.process.wait()
        except TimeoutError:
            self.process.kill()
            return await self.process.wait()


@asynccontextmanager
async def open_relay(
    toml: Path,
    ops_port: int,
    *,
    role: str = "all",
    environ: Mapping[str, str] | None = None,
    ops_host: str = "127.0.0.1",
    within: Sequence[str] = (),
) -> AsyncIterator[RelayProcess]:
    """Run `relay serve` with a relay.toml until the block ends; the relay is ready when the block begins.

    Its output goes to relay.log beside that file. `environ` is added to the environment. `within` is a command that
    runs the command in its arguments, e.g. in another network namespace.
    """
    log = toml.with_name("relay.log")
    command = (*within, sys.executable, "-m", "relay", "serve", "--config", str(toml), "--role", role)
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=output, stderr=output, env={**os.environ, **(environ or {})}
        )
    relay = RelayProcess(process, log, ops_port, ops_host)
    try:
        await relay.ready()
        yield relay
    finally:
        await relay.stop()
