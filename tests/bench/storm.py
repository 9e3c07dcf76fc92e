"""Measure storms on one relay process on SQLite: all mailboxes get a mail at once, and all Pings are cut at once.

`storm.mails_per_s` counts from the order to deliver one mail to each mailbox until the last push arrived at the APNs
simulator, on the clock that both processes share. `storm.reconnect_s` counts from the cut of all connections until all
Pings are held again, with `return_rate` out of the way. Memory is the relay's resident memory.
"""

import argparse
import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter_ns
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from relay.sandbox.process import RelayProcess
from relay.sandbox.sandbox import PASSWORD
from tests.bench.site import (
    ALONE,
    UNPACED,
    Sandbox,
    cpu_of,
    figure,
    memory_kb,
    open_house,
    open_sandbox,
)
from tests.planting import plant, token, user

SETTLE = 3.0  # seconds until a site is at rest
STORM = 120.0  # seconds that a storm may take
REST = 90.0  # seconds within which memory must have returned


async def measure(mailboxes: int, rest: float, *, http2: bool) -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            sandbox = await stack.enter_async_context(open_sandbox(Path(folder) / "sandbox", mailboxes))
            plant(sandbox.folder, mailboxes, PASSWORD)
            relay, _ = await stack.enter_async_context(open_house(sandbox, UNPACED if http2 else UNPACED | ALONE))
            await sandbox.held(mailboxes)
            await asyncio.sleep(SETTLE)
            pid = relay.process.pid
            figure("storm.mailboxes", mailboxes, "1")
            figure("storm.rss_before_mb", memory_kb(pid) / 1024, "MB")
            await _mails(sandbox, relay, mailboxes)
            await sandbox.held(mailboxes)
            await _reconnect(sandbox, relay, mailboxes)
            await asyncio.sleep(rest)
            figure("storm.rss_peak_mb", memory_kb(pid, "VmHWM") / 1024, "MB")
            figure("storm.rss_after_mb", memory_kb(pid) / 1024, "MB")
            state = await sandbox.get("/eas/state")
            if state["overlaps"] or state["complaints"]:
                raise SystemExit(f"the mail server complains: {state['overlaps']}, {state['complaints'][:3]}")


async def _mails(sandbox: Sandbox, relay: RelayProcess, mailboxes: int) -> None:
    before, simulators = cpu_of(relay.process.pid), cpu_of(sandbox.pid)
    began = perf_counter_ns()
    await sandbox.post("/eas/mails", {"users": [user(number) for number in range(1, mailboxes + 1)]})
    received: list[dict[str, Any]] = []
    async with asyncio.timeout(STORM):
        while len(received) < mailboxes:
            received = (await sandbox.get(f"/push/apns/received?at_least={mailboxes}&within=30"))["received"]
    seconds = (max(push["moment"] for push in received) - began) / 1e9
    missing = {token(number) for number in range(1, mailboxes + 1)} - {push["device_token"] for push in received}
    if missing:
        raise SystemExit(f"{len(missing)} mails led to no push")
    figure("storm.mails_per_s", mailboxes / seconds, "1/s")
    figure("storm.pushes_per_mail", len(received) / mailboxes, "1")
    figure("storm.cpu_ms_per_mail", (cpu_of(relay.process.pid) - before) / mailboxes * 1000, "ms")
    figure("storm.sandbox_cpu_ms_per_mail", (cpu_of(sandbox.pid) - simulators) / mailboxes * 1000, "ms")


async def _reconnect(sandbox: Sandbox, relay: RelayProcess, mailboxes: int) -> None:
    pings = (await sandbox.get("/eas/state"))["requests"]["Ping"]
    before, simulators = cpu_of(relay.process.pid), cpu_of(sandbox.pid)
    began = perf_counter_ns()
    await sandbox.post("/eas/restart", {})
    async with asyncio.timeout(STORM):
        while True:
            state = await sandbox.get("/eas/state")
            if state["requests"]["Ping"] >= pings + mailboxes and state["held"] >= mailboxes:
                break
            await asyncio.sleep(0.1)
    figure("storm.reconnect_s", (perf_counter_ns() - began) / 1e9, "s")
    figure("storm.reconnect_cpu_ms", (cpu_of(relay.process.pid) - before) / mailboxes * 1000, "ms")
    figure("storm.reconnect_sandbox_cpu_ms", (cpu_of(sandbox.pid) - simulators) / mailboxes * 1000, "ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mailboxes", type=int, default=10_000)
    parser.add_argument("--rest", type=float, default=REST, help="seconds until memory is measured again")
    parser.add_argument("--http2", action="store_true", help="let Pings share connections; else each has its own")
    chosen = parser.parse_args()
    asyncio.run(measure(chosen.mailboxes, chosen.rest, http2=chosen.http2))
