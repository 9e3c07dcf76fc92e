"""Measure a mail's way from a Ping's answer leaving the mail server to the push's request arriving at APNs.

Both moments are taken by the sandbox's process, on one clock. One mail to each mailbox, 50 a second, on SQLite. Each
mailbox has had a mail before.

What a mail costs is the CPU time of the relay's process (user and system, all threads, from /proc/PID/stat) from the
first mail until a second after the last push, over the number of mails. The CPU time that the same process takes while
no mail comes is subtracted, and printed. The figures: `cpu_ms_per_mail_5` with five mails a second, which share
nothing, and `cpu_ms_per_mail_50`, where some share their transactions.

`--profile FOLDER` says where that time goes: it runs py-spy (from PyPI, on the PATH) on the relay's process during the
mails, prints the share of each subject (`profile.py`), and keeps the stacks in the folder.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.profile import shares
from tests.bench.site import Sandbox, cpu_ms, figure, mail_to_push, open_house, open_sandbox, register

SETTLE = 2.0  # seconds between the last registration and the first mail
DRAIN = 30.0  # seconds the last pushes may take
IDLE = 10.0  # seconds in which the cost of the process without mails is measured
AFTER = 1.0  # seconds after the last push; by then its outcome is recorded
FIRST = 100.0  # first mails per second; with it a watch also records that the server shows the new device its items
LONE = 5.0  # mails per second that share nothing
LONE_MAILS = 100


async def measure(mailboxes: int, rate: float, jitter: float, stacks: Path | None) -> None:
    """Print the percentiles, in milliseconds, and what a mail costs; with `jitter` seconds of timing privacy."""
    pace = {"RELAY__PUSH__JITTER_SECONDS": str(jitter)}
    name = f"latency.jitter_{jitter:g}" if jitter else "latency"
    with tempfile.TemporaryDirectory() as folder:
        async with open_sandbox(Path(folder) / "sandbox", mailboxes) as sandbox, open_house(sandbox, pace) as house:
            relay, api = house
            pid = relay.process.pid
            await register(api, mailboxes)
            await sandbox.held(mailboxes)
            await asyncio.sleep(SETTLE)
            await mail_to_push(sandbox, mailboxes, FIRST, within=DRAIN + jitter)
            await asyncio.sleep(SETTLE)
            before = cpu_ms(pid)
            await asyncio.sleep(IDLE)
            idle = (cpu_ms(pid) - before) / IDLE
            figure(f"{name}.idle_cpu_ms_per_s", idle, "ms/s")
            lone = min(mailboxes, LONE_MAILS)
            async with _profiled(pid, lone / LONE, stacks, f"{name}.{LONE:g}"):
                cost, _, _ = await _mails(sandbox, pid, lone, LONE, idle, DRAIN + jitter)
            figure(f"{name}.cpu_ms_per_mail_{LONE:g}", cost, "ms")
            async with _profiled(pid, mailboxes / rate, stacks, f"{name}.{rate:g}"):
                cost, late, reached = await _mails(sandbox, pid, mailboxes, rate, idle, DRAIN + jitter)
    figure(f"{name}.cpu_ms_per_mail_{rate:g}", cost, "ms")
    figure(f"{name}.mails_per_s", reached, "1/s")
    figure(f"{name}.change_to_apns.p50_ms", late[len(late) // 2], "ms")
    figure(f"{name}.change_to_apns.p99_ms", late[len(late) * 99 // 100], "ms")
    figure(f"{name}.change_to_apns.max_ms", late[-1], "ms")


@asynccontextmanager
async def _profiled(pid: int, seconds: float, folder: Path | None, name: str) -> AsyncIterator[None]:
    """Print where the time of a process goes in the first seconds of the block, if a folder for the stacks is given."""
    if folder is None:
        yield
        return
    profile = asyncio.ensure_future(shares(pid, seconds, folder / f"{name}.txt"))
    yield
    found = await profile
    for subject, samples in found.most_common():
        figure(f"{name}.share.{subject}", 100 * samples / found.total(), "%")


async def _mails(
    sandbox: Sandbox, pid: int, mails: int, rate: float, idle: float, within: float
) -> tuple[float, list[float], float]:
    """Deliver mails; return the CPU time of each in ms, the sorted latencies in ms, and the true rate."""
    clock = asyncio.get_running_loop().time
    before, began = cpu_ms(pid), clock()
    late, reached = await mail_to_push(sandbox, mails, rate, within=within)
    await asyncio.sleep(AFTER)
    return (cpu_ms(pid) - before - idle * (clock() - began)) / mails, late, reached


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mailboxes", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=50.0, help="mails per second")
    parser.add_argument("--jitter", type=float, default=0.0, help="push.jitter_seconds of the relay")
    parser.add_argument("--profile", type=Path, metavar="FOLDER", help="say where the time goes, with py-spy")
    chosen = parser.parse_args()
    asyncio.run(measure(chosen.mailboxes, chosen.rate, chosen.jitter, chosen.profile))
