"""What the answers of a broken or hostile mail server cost the process that reads them.

    make bench B=hostile [ARGS="--only cookies"]

The server runs in a process of its own. For each kind of answer one client sends a FolderSync; the figures are the CPU
"""

import argparse
import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from time import process_time, thread_time
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.commands.folder_sync import FolderSync
from eas_watcher.errors import EasError
from eas_watcher.machine.memory import Partnership
from eas_watcher.names import DeviceId, MailboxId, ProtocolVersion, SyncKey
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.client import EasClient
from eas_watcher.server.admissions import Admissions
from eas_watcher.transport.http import open_transport
from eas_watcher.wbxml.element import FOLDERHIERARCHY, Element
from eas_watcher.wbxml.encode import encode
from tests.fakes.gzip_bomb import MEGABYTE
from tests.fakes.tls import Authority, Talk, talking
from tests.integration.mean_server import HEADER, answer, mean_talks, saying

TURN: Final = 0.002  # seconds between two looks
PATIENCE: Final = 20.0  # seconds for one answer
FOLDERS: Final = 10_000
BEGIN: Final = HEADER + b"\x45"


def talks() -> dict[str, Talk]:
    """Return all kinds of answers by name."""
    return mean_talks() | {
        "60 cookies of backslashes": saying(
            answer(b"", *[b'Set-Cookie: c="' + b"\\" * 8000 + b'"\r\n'] * 60),
        ),
        "eight megabytes of open and close": saying(answer(BEGIN + b"\x4b\x01" * (3 * MEGABYTE))),
        "texts of one letter": saying(answer(BEGIN + b"\x4b\x03x\x00\x01" * MEGABYTE)),
        "up and down": saying(answer(BEGIN + (b"\x45" * 60 + b"\x01" * 60) * 60_000)),
        "page switches": saying(answer(BEGIN + b"\x00\x02" * (3 * MEGABYTE))),
        "pieces of a string": saying(answer(BEGIN + b"\x03x\x00" * (2 * MEGABYTE))),
        "overlong numbers": saying(answer(BEGIN + b"\xc3\x80\x80\x80\x80\x01x" * MEGABYTE)),
        "a string table of 7 MB": saying(answer(b"\x03\x01\x6a\x83\xc0\x80\x00" + bytes(7 * MEGABYTE))),
        "10,000 folders": saying(answer(folders())),
    }


def folders() -> bytes:
    """Return a valid answer to FolderSync."""
    added: list[Element] = [
        FOLDERHIERARCHY(
            "Add",
            FOLDERHIERARCHY("ServerId", str(number)),
            FOLDERHIERARCHY("ParentId", "0"),
            FOLDERHIERARCHY("DisplayName", "x"),
            FOLDERHIERARCHY("Type", "12"),
        )
        for number in range(FOLDERS)
    ]
    status, key = FOLDERHIERARCHY("Status", "1"), FOLDERHIERARCHY("SyncKey", "h2")
    return encode(FOLDERHIERARCHY("FolderSync", status, key, FOLDERHIERARCHY("Changes", *added)))


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Look:
    """Notes the longest CPU time between two turns of the loop, and the peak of memory."""

    def __init__(self) -> None:
        self.longest, self.most = 0.0, resident()

    async def run(self) -> None:
        before = thread_time()
        while True:
            await asyncio.sleep(TURN)
            now = thread_time()
            self.longest, before = max(self.longest, now - before), now
            self.most = max(self.most, resident())


async def serve(authority: Authority, names: list[str], pipe: int) -> None:
    """Serve each kind of answer at a port of its own; write the URLs into a pipe."""
    async with AsyncExitStack() as stack:
        kinds = talks()
        urls = [await stack.enter_async_context(talking(authority, kinds[name])) for name in names]
        os.write(pipe, "\n".join(urls).encode() + b"\n\n")
        await asyncio.Event().wait()


async def measure(authority: Authority, urls: dict[str, str]) -> None:
    """Ask for each answer and print what it cost."""
    print(f"{'answer':36} {'CPU':>8} {'longest turn':>13} {'memory':>9}  error")  # noqa: T201
    for name, url in urls.items():
        account = Account(MailboxId("ann"), f"{url}/eas", "ann", DeviceId("Dann"), BasicCredential("ann", "secret"))
        admissions = Admissions(8, Random(1), lambda: datetime.now(UTC))  # noqa: TID251 -- a bench has no clock
        async with open_transport(authority.client) as transport:
            client = EasClient(account, transport, admissions, 100.0)
            look, before, began = Look(), resident(), process_time()
            looking = asyncio.get_running_loop().create_task(look.run())
            said = "-"
            try:
                async with asyncio.timeout(PATIENCE):
                    await client.send(FolderSync(SyncKey("h1")), Partnership(ProtocolVersion.V14_1))
            except (EasError, TimeoutError) as error:
                said = str(error)[:60] or type(error).__name__
            await asyncio.sleep(2 * TURN)
            looking.cancel()
        cost = f"{process_time() - began:7.3f}s {look.longest:12.3f}s {(look.most - before) / MEGABYTE:6.0f} MB"
        print(f"{name:36} {cost}  {said}", flush=True)  # noqa: T201


def main() -> None:
    """Run the server and the client."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--only", default="", help="a part of the names of answers")
    only = parser.parse_args().only
    authority, names = Authority(), [name for name in talks() if only in name]
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        asyncio.run(serve(authority, names, writing))
        return
    try:
        with os.fdopen(reading, encoding="ascii") as pipe:
            urls = [pipe.readline().strip() for _ in names]
        asyncio.run(measure(authority, dict(zip(names, urls, strict=True))))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
