"""Measure the memory of a held TLS Ping: a whole relay process, database and API included, against stock aiohttp.

The sandbox runs in a process of its own. Memory is resident memory, less that of the same process with no mailbox.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.site import Sandbox, figure, memory_kb, open_house, open_sandbox, register

SETTLE = 10.0  # seconds for the last commits, and for idle connections of the start to be closed


async def ours(sandbox: Sandbox, mailboxes: int) -> float:
    """Return kB per watch of a relay process."""
    async with open_house(sandbox) as (relay, api):
        before = memory_kb(relay.process.pid)
        await register(api, mailboxes)
        await sandbox.held(mailboxes)
        await asyncio.sleep(SETTLE)
        return (memory_kb(relay.process.pid) - before) / mailboxes


async def stock(sandbox: Sandbox, mailboxes: int) -> float:
    """Return kB per watch of stock aiohttp, in a process of its own."""
    url = f"https://127.0.0.1:{sandbox.ports['eas']}/Microsoft-Server-ActiveSync"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("stock.py")),
        url,
        str(sandbox.folder / "ca.pem"),
        str(mailboxes),
        stdout=asyncio.subprocess.PIPE,
    )
    answer, _ = await process.communicate()
    return float(answer)


async def measure(mailboxes: int) -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_sandbox(Path(folder) / "ours", mailboxes) as sandbox:
            relay_kb = await ours(sandbox, mailboxes)
        async with open_sandbox(Path(folder) / "stock", mailboxes) as sandbox:
            stock_kb = await stock(sandbox, mailboxes)
    figure("hold.tls.mailboxes", mailboxes, "1")
    figure("hold.tls.kb_per_watch", relay_kb, "kB")
    figure("hold.tls.stock_aiohttp_kb_per_watch", stock_kb, "kB")
    figure("hold.tls.ratio_to_stock_aiohttp", relay_kb / stock_kb, "1")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mailboxes", type=int, default=5000)
    asyncio.run(measure(parser.parse_args().mailboxes))
