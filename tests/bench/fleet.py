"""Show how many mailboxes a host carries: several watch processes on PostgreSQL, over HTTP/2, planted and held.

It prints the memory of each process, the time until all Pings are held, and what of it 100,000 mailboxes would take. A
Ping over HTTP/2 takes no descriptor of its own: a process has one for each connection, that is for each 100 mailboxes.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from relay.cli.keygen import write_sealing_keys
from relay.sandbox.process import open_relay
from relay.sandbox.sandbox import PASSWORD
from relay.security.sealing import SealingPublicKey
from relay.store import migrate
from relay.store.engine import open_database
from tests.bench.site import QUIET, Sandbox, cpu_of, figure, memory_kb, open_sandbox
from tests.planting import AT_ONCE, insert
from tests.ports import free_port, free_ports
from tests.postgres import running_postgres

WANTED: Final = 100_000
LONGEST: Final = 3600.0  # seconds
SETTLE: Final = 30.0  # seconds for the last commits, and for memory to be given back
STEP: Final = 2.0  # seconds between two looks


async def measure(mailboxes: int, processes: int, rate: float) -> None:
    """Print the figures."""
    clock = asyncio.get_running_loop().time
    with tempfile.TemporaryDirectory() as name, running_postgres() as postgres:
        database = postgres.url(await postgres.create())
        async with open_sandbox(Path(name), mailboxes) as sandbox, AsyncExitStack() as stack:
            state = Path(name) / "state"
            write_sealing_keys(state / "sealing-private.pem", state / "sealing-public.pem")
            key = SealingPublicKey.load(state / "sealing-public.pem")
            async with open_database(database) as engine:
                await migrate.upgrade(engine)
                rest = await _at_rest(sandbox, {**QUIET, "RELAY__DATABASE__URL": database})
                for first in range(1, mailboxes + 1, AT_ONCE):
                    await engine.run(insert, key, range(first, min(first + AT_ONCE, mailboxes + 1)), PASSWORD)
            pace = {"RELAY__SERVERS__SANDBOX__RETURN_RATE": str(rate)}
            began, watchers = clock(), []
            for port in free_ports(processes):
                environ = {**QUIET, **pace, "RELAY__DATABASE__URL": database, "RELAY__OPS__PORT": str(port)}
                relay = open_relay(sandbox.toml, port, role="watch", environ=environ)
                watchers.append((await stack.enter_async_context(relay)).process.pid)
            held = 0
            while held < mailboxes and clock() < began + LONGEST:
                await asyncio.sleep(STEP)
                held = (await sandbox.get("/eas/state"))["held"]
            seconds = clock() - began
            await asyncio.sleep(SETTLE)
            memory = [memory_kb(pid) for pid in watchers]
            spoken = (await sandbox.get("/eas/state"))["protocols"]["h2"]
            figure("fleet.held", held, "1")
            figure("fleet.connections", spoken["connections"], "1")
            figure("fleet.start_s", seconds, "s")
            for number, kb in enumerate(memory, start=1):
                figure(f"fleet.watcher_{number}_rss_mb", kb / 1024, "MB")
            each = (sum(memory) - processes * rest) / held
            figure("fleet.watcher_at_rest_rss_mb", rest / 1024, "MB")
            figure("fleet.kb_per_watch", each, "kB")
            figure("fleet.watch_cpu_ms_per_start", sum(map(cpu_of, watchers)) / held * 1000, "ms")
            figure("fleet.sandbox_rss_mb", memory_kb(sandbox.pid) / 1024, "MB")
            figure(f"fleet.rss_of_{WANTED}_gb", (processes * rest + each * WANTED) / 1024**2, "GB")
            figure(f"fleet.descriptors_of_{WANTED}", spoken["connections"] / held * WANTED, "1")


async def _at_rest(sandbox: Sandbox, environ: Mapping[str, str]) -> int:
    """Return the memory of a watch process without mailboxes, in kB."""
    port = free_port()
    environ = {**environ, "RELAY__OPS__PORT": str(port)}
    async with open_relay(sandbox.toml, port, role="watch", environ=environ) as relay:
        await asyncio.sleep(STEP)
        return memory_kb(relay.process.pid)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mailboxes", type=int, default=20_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rate", type=float, default=1_000.0, help="mailboxes that each process starts a second")
    chosen = parser.parse_args()
    asyncio.run(measure(chosen.mailboxes, chosen.processes, chosen.rate))
