"""Measure what a start costs: the CPU of `relay --help`, the memory of a lonely api role, the start of a whole relay.

Each command runs several times and the least figure counts, for other load on the machine only adds. The api role runs
on PostgreSQL, the whole relay on SQLite; neither serves anything yet. `serve_s` is CPU time (user and system) until the
relay is ready, so that two figures compare on a machine that does other things too; `serve_wall_s` is the clock's.
"""

import argparse
import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from relay.sandbox.process import open_relay
from tests.bench.site import Sandbox, cpu_of, figure, memory_kb, open_sandbox
from tests.postgres import running_postgres

RELAY = (sys.executable, "-m", "relay")
SETTLE = 2.0  # seconds until a started process is at rest


def child_cpu() -> float:
    """Return the CPU seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def help_cpu() -> float:
    """Return the CPU seconds of `relay --help`."""
    before = child_cpu()
    subprocess.run([*RELAY, "--help"], stdout=subprocess.DEVNULL, check=True)
    return child_cpu() - before


async def serve(sandbox: Sandbox) -> tuple[float, float, float]:
    """Return CPU and wall seconds until a relay with all roles is ready, and its memory in MB."""
    began = time.monotonic()
    async with open_relay(sandbox.toml, sandbox.ports["ops"]) as relay:
        wall = time.monotonic() - began
        cpu = cpu_of(relay.process.pid)
        await asyncio.sleep(SETTLE)
        return cpu, wall, memory_kb(relay.process.pid) / 1024


async def role_memory(sandbox: Sandbox, role: str, database: str) -> float:
    """Return the memory in MB of one role alone, at rest."""
    environ = {"RELAY__DATABASE__URL": database}
    async with open_relay(sandbox.toml, sandbox.ports["ops"], role=role, environ=environ) as relay:
        await asyncio.sleep(SETTLE)
        return memory_kb(relay.process.pid) / 1024


async def measure(times: int) -> None:
    """Print the figures."""
    help_cpu()  # compiles
    figure("start.help_cpu_s", min(help_cpu() for _ in range(times)), "s")
    with tempfile.TemporaryDirectory() as folder, running_postgres() as postgres:
        async with open_sandbox(Path(folder) / "site", 0) as sandbox:
            await serve(sandbox)  # makes keys and the database
            starts = [await serve(sandbox) for _ in range(times)]
            figure("start.serve_s", min(cpu for cpu, _, _ in starts), "s")
            figure("start.serve_wall_s", min(wall for _, wall, _ in starts), "s")
            figure("start.serve_rss_mb", min(mb for _, _, mb in starts), "MB")
            url = postgres.url(await postgres.create())
            migrate = (*RELAY, "migrate", "--config", str(sandbox.toml), "--role", "push")
            environ = {**os.environ, "RELAY__DATABASE__URL": url}
            process = await asyncio.create_subprocess_exec(*migrate, stdout=subprocess.DEVNULL, env=environ)
            if await process.wait() != 0:
                raise SystemExit("the database could not be migrated")
            for role in ("api", "watch", "push"):
                sizes = [await role_memory(sandbox, role, url) for _ in range(times)]
                figure(f"start.{role}_rss_mb", min(sizes), "MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3)
    asyncio.run(measure(parser.parse_args().times))
