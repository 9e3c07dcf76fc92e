"""An HTTP/2 server of another project: nghttpd of Debian's nghttp2-server, with device tokens as files."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relay.sandbox.certificates import ThrowAwayCa
from tests.ports import free_port
from tests.waiting import until

START: Final = 30.0  # seconds
SBIN: Final = "/usr/sbin"  # where Debian installs it, which is not in every PATH


@dataclass
class Nghttpd:
    """A running server."""

    folder: Path
    ca: ThrowAwayCa
    port: int
    log: Path
    """Every frame that it read and wrote, with the names and values of headers."""
    process: asyncio.subprocess.Process

    def know(self, *tokens: str) -> None:
        """Answer 200 for these device tokens; all others are 404."""
        devices = self.folder / "3" / "device"
        devices.mkdir(parents=True, exist_ok=True)
        for token in tokens:
            (devices / token).write_text("taken\n")

    def frames(self, kind: str) -> int:
        """Count the frames of a kind that it received, e.g. DATA."""
        return self.log.read_text(errors="replace").count(f"recv {kind} frame")

    @property
    def text(self) -> str:
        """The log."""
        return self.log.read_text(errors="replace")

    async def stop(self) -> None:
        """Stop the server."""
        if self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()


@asynccontextmanager
async def nghttpd(folder: Path, *options: str, port: int = 0) -> AsyncIterator[Nghttpd]:
    """Run a server on loopback until the block ends."""
    ca = ThrowAwayCa()
    ca.write_ca(folder / "ca.pem")
    (folder / "server.pem").write_bytes(ca.server_pem())
    server = await start(folder, ca, options, port or free_port())
    try:
        yield server
    finally:
        await server.stop()


async def start(folder: Path, ca: ThrowAwayCa, options: Sequence[str], port: int) -> Nghttpd:
    """Start a server on a port; its certificate is in the folder."""
    program = shutil.which("nghttpd", path=f"{os.environ.get('PATH', '')}:{SBIN}")
    assert program is not None
    pem, log = folder / "server.pem", folder / "nghttpd.log"
    where = ("--verbose", "--address", "127.0.0.1", "--htdocs", str(folder), *options)
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            program, *where, str(port), str(pem), str(pem), stdout=output, stderr=output
        )
    server = Nghttpd(folder, ca, port, log, process)
    await until(lambda: _listens(server), START)
    return server


def _listens(server: Nghttpd) -> bool:
    assert server.process.returncode is None, server.text[-2000:]
    return ":" + str(server.port) in server.text and "listen" in server.text
