"""A relay under a service manager like systemd: it says how it is, lives, and takes a socket that listens already."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay.sandbox.process import RelayProcess
from tests.site import Site
from tests.waiting import until

AS_SYSTEMD = 'export LISTEN_PID=$$ LISTEN_FDS=1; fd=$1; shift; exec 3<&"$fd"; exec "$@"'
"""Gives the process its socket as descriptor 3, as systemd does."""


class Manager:
    """The side of the service manager: its datagram socket, and the port that it holds for the relay."""

    def __init__(self, folder: Path, port: int) -> None:
        self.address = str(folder / "notify")
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(self.address)
        self._notify.settimeout(0)
        self.listening = socket.create_server(("127.0.0.1", port), backlog=128)
        self._heard: list[str] = []

    def heard(self) -> list[str]:
        """Return all lines that were told so far."""
        try:
            while True:
                self._heard += self._notify.recv(65_536).decode().split("\n")
        except BlockingIOError:
            return self._heard

    def count(self, line: str) -> int:
        return self.heard().count(line)

    @asynccontextmanager
    async def start(self, site: Site) -> AsyncIterator[RelayProcess]:
        """Start a relay and wait until it has said that it serves."""
        ready = self.count("READY=1")
        descriptor = self.listening.fileno()
        log = site.sandbox.toml.with_name("relay.log")
        serve = [sys.executable, "-m", "relay", "serve", "--config", str(site.sandbox.toml)]
        environ = {**os.environ, **site.environ, "NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": "3000000"}
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *["bash", "-c", AS_SYSTEMD, "systemd", str(descriptor), *serve],
                env=environ,
                pass_fds=[descriptor],
                stdout=output,
                stderr=output,
            )
        relay = RelayProcess(process, log, site.sandbox.ports.ops, "127.0.0.1")
        try:
            await until(lambda: self.count("READY=1") > ready)
            yield relay
        finally:
            await relay.stop()

    def close(self) -> None:
        self._notify.close()
        self.listening.close()


@pytest.fixture
def manager(site: Site, tmp_path: Path) -> Iterator[Manager]:
    opened = Manager(tmp_path, site.sandbox.ports.api)
    yield opened
    opened.close()


@pytest.mark.slow
async def test_a_relay_says_when_it_serves_reloads_lives_and_ends(site: Site, manager: Manager) -> None:
    async with manager.start(site) as relay:
        assert any(line.startswith("STATUS=role all, 0 Pings held") for line in manager.heard())
        lived = manager.count("WATCHDOG=1")
        await until(lambda: manager.count("WATCHDOG=1") >= lived + 3)

        ready = manager.count("READY=1")
        relay.process.send_signal(signal.SIGHUP)
        await until(lambda: manager.count("READY=1") > ready)
        heard = manager.heard()
        assert heard.index("RELOADING=1") < len(heard) - 1 - heard[::-1].index("READY=1")
        assert any(line.startswith("MONOTONIC_USEC=") for line in heard)
        assert manager.count("STOPPING=1") == 0
    assert manager.count("STOPPING=1") == 1
    assert relay.process.returncode == 0


@pytest.mark.slow
async def test_no_phone_is_refused_while_the_next_relay_starts(site: Site, manager: Manager) -> None:
    ended = asyncio.Event()
    refused: list[OSError] = []
    answered = 0

    async def ask_all_the_time() -> None:
        nonlocal answered
        while not ended.is_set():
            try:
                async with site.api.get("/v1/capabilities") as answer:
                    assert answer.status == 200
                answered += 1
            except TimeoutError:
                continue  # it waited, as it should; a busy machine may take long to start the next relay
            except OSError as error:
                refused.append(error)

    async with asyncio.TaskGroup() as tasks:
        async with manager.start(site):
            tasks.create_task(ask_all_the_time())
            await until(lambda: answered > 2)
        async with manager.start(site):
            before = answered
            await until(lambda: answered > before + 2)
            ended.set()

    assert refused == []
