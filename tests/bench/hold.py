"""Measure the memory of a held Ping: a whole relay process, database and API included.

`tls`: each Ping has a TLS connection of its own, against stock aiohttp. `h2`: a hundred Pings share one over HTTP/2.
`proxy`: as `tls`, through tunnels of an HTTP proxy.
The sandbox runs in a process of its own. Memory is resident memory, less that of the same process with no mailbox.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.site import ALONE, Sandbox, figure, memory_kb, open_house, open_sandbox, register
from tests.fakes.proxy import connect_proxy

SETTLE = 10.0  # seconds for the last commits, and for idle connections of the start to be closed
MAILBOXES = {"tls": 5_000, "h2": 10_000, "proxy": 2_000}


async def ours(sandbox: Sandbox, mailboxes: int, environ: Mapping[str, str] = MappingProxyType({})) -> float:
    """Return kB per watch of a relay process."""
    async with open_house(sandbox, environ) as (relay, api):
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


async def measure_tls(folder: Path, mailboxes: int) -> None:
    """Print the figures of Pings with connections of their own."""
    async with open_sandbox(folder / "ours", mailboxes) as sandbox:
        relay_kb = await ours(sandbox, mailboxes, ALONE)
    async with open_sandbox(folder / "stock", mailboxes) as sandbox:
        stock_kb = await stock(sandbox, mailboxes)
    figure("hold.tls.mailboxes", mailboxes, "1")
    figure("hold.tls.kb_per_watch", relay_kb, "kB")
    figure("hold.tls.stock_aiohttp_kb_per_watch", stock_kb, "kB")
    figure("hold.tls.ratio_to_stock_aiohttp", relay_kb / stock_kb, "1")


async def measure_h2(folder: Path, mailboxes: int) -> None:
    """Print the figures of Pings that share connections."""
    async with open_sandbox(folder / "shared", mailboxes) as sandbox:
        relay_kb = await ours(sandbox, mailboxes)
        spoken = (await sandbox.get("/eas/state"))["protocols"]["h2"]
    figure("hold.h2.mailboxes", mailboxes, "1")
    figure("hold.h2.connections", spoken["accepted"], "1")
    figure("hold.h2.kb_per_watch", relay_kb, "kB")


async def measure_proxy(folder: Path, mailboxes: int) -> None:
    """Print the figures of Pings with connections of their own through an HTTP proxy, which this process is."""
    async with open_sandbox(folder / "proxied", mailboxes) as sandbox, connect_proxy() as proxy:
        through = {**ALONE, "RELAY__SERVERS__SANDBOX__PROXY": f"http://127.0.0.1:{proxy.port}"}
        relay_kb = await ours(sandbox, mailboxes, through)
        tunnels = len(proxy.targets)
    figure("hold.proxy.mailboxes", mailboxes, "1")
    figure("hold.proxy.tunnels_opened", tunnels, "1")
    figure("hold.proxy.kb_per_watch", relay_kb, "kB")


async def measure(parts: list[str], mailboxes: int | None) -> None:
    """Print the figures of all parts."""
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            measuring = {"tls": measure_tls, "h2": measure_h2, "proxy": measure_proxy}[part]
            await measuring(Path(folder), mailboxes or MAILBOXES[part])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mailboxes", type=int, help="5,000 for tls, 10,000 for h2, 2,000 for proxy unless given")
    parser.add_argument("--parts", nargs="+", choices=[*MAILBOXES], default=[*MAILBOXES])
    chosen = parser.parse_args()
    asyncio.run(measure(chosen.parts, chosen.mailboxes))
