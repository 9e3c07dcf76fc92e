"""Measure what a hostile provider takes of the others: the lag of the loop, and pushes to an honest neighbour.

An APNs that floods with frames of HTTP/2, and answers of HTTP/1.1 that never end, run in a process of their own while
the relay pushes to them again and again and to an honest FCM at the same time.
"""

import argparse
import asyncio
import contextlib
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from relay.network.posting import Poster
from relay.network.route import DIRECT
from relay.process.clock import now
from relay.push.apns.config import ApnsAccount, ApnsConfig, ApnsToken
from relay.push.apns.sender import ApnsSender
from relay.sandbox.certificates import ThrowAwayCa, make_apns_key
from tests.bench.apns import APP, TEAM, NoEgress
from tests.bench.site import figure
from tests.fakes.floods import ANSWERS, FRAMES
from tests.unit.relay.push.pushes import due_push

ROOT = Path(__file__).resolve().parents[2]
PAUSE = 0.05  # seconds between two pushes to the hostile provider


@contextlib.asynccontextmanager
async def server(folder: Path, kind: str) -> AsyncIterator[int]:
    """Run a server until the block ends; yield its port."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fakes.floods", str(folder / "server.pem"), kind),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=ROOT,
    )
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()


async def neighbour(poster: Poster, port: int, ends: float) -> list[float]:
    """Post to an honest neighbour every 10 ms; return how long each took."""
    took = []
    loop = asyncio.get_running_loop()
    while loop.time() < ends:
        began = loop.time()
        await poster.post(f"https://localhost:{port}/", {}, b"{}")
        took.append(loop.time() - began)
        await asyncio.sleep(0.01)
    return took


async def lag(ends: float) -> float:
    """Return the longest time in seconds for which the loop did nothing else."""
    worst, loop = 0.0, asyncio.get_running_loop()
    while (before := loop.time()) < ends:
        await asyncio.sleep(0.001)
        worst = max(worst, loop.time() - before - 0.001)
    return worst


async def hostile_apns(folder: Path, port: int, key_id: str, ends: float) -> int:
    """Push to the flooding APNs again and again."""
    token = ApnsToken(folder / "apns.p8", key_id, TEAM)
    config = ApnsConfig(
        (ApnsAccount(frozenset({APP}), token),), "localhost", port, "localhost", port, ca_file=folder / "ca.pem"
    )
    tried = 0
    async with ApnsSender(config, NoEgress(), now, Random(1)) as sender:
        while asyncio.get_running_loop().time() < ends:
            tried += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2.0):
                    await sender.send(due_push(tried))
            await asyncio.sleep(PAUSE)
    return tried


async def hostile_http(poster: Poster, port: int, ends: float) -> int:
    """Post to the flooding provider again and again."""
    tried = 0
    while asyncio.get_running_loop().time() < ends:
        tried += 1
        with contextlib.suppress(Exception):
            async with asyncio.timeout(2.0):
                await poster.post(f"https://localhost:{port}/", {}, b"{}")
        await asyncio.sleep(PAUSE)
    return tried


async def measure(kinds: list[str], seconds: float) -> None:
    """Print the figures of each flood."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pem, key_id = make_apns_key()
        (folder / "apns.p8").write_text(pem)
        ca = ThrowAwayCa()
        ca.write_ca(folder / "ca.pem")
        (folder / "server.pem").write_bytes(ca.server_pem())
        async with server(folder, "http1:honest") as honest:
            for kind in kinds:
                async with server(folder, kind) as port:
                    good, bad = (Poster(folder / "ca.pem", 10, DIRECT) for _ in range(2))
                    ends = asyncio.get_running_loop().time() + seconds
                    hostile = (
                        hostile_http(bad, port, ends)
                        if kind.startswith("http1:")
                        else hostile_apns(folder, port, key_id, ends)
                    )
                    cpu = time.process_time()
                    took, worst, _ = await asyncio.gather(neighbour(good, honest, ends), lag(ends), hostile)
                    cpu = time.process_time() - cpu
                    await good.close()
                    await bad.close()
                took.sort()
                figure(f"floods/{kind}/neighbour", len(took) / seconds, "pushes/s")
                figure(f"floods/{kind}/neighbour-p99", took[len(took) * 99 // 100] * 1e3, "ms")
                figure(f"floods/{kind}/loop-lag", worst * 1e3, "ms")
                figure(f"floods/{kind}/cpu", 100.0 * cpu / seconds, "%")
        figure("floods/peak-memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MB")


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each flood")
    parser.add_argument("--only", nargs="*", default=["http1:honest", *FRAMES, *(f"http1:{kind}" for kind in ANSWERS)])
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure([kind for kind in arguments.only if kind != "honest"], arguments.seconds))


if __name__ == "__main__":
    main()
