"""Measure storms on one relay process on SQLite: all mailboxes get a mail at once, and all Pings are cut at once.

`storm.mails_per_s` counts from the order to deliver one mail to each mailbox until the last push arrived at the APNs
simulator, on the clock that both processes share: as the relay is by default, with a hundred Pings on a connection over
HTTP/2. `storm.http1.mails_per_s` is the same of another site, where each Ping has a connection over HTTP/1.1 alone.
On that site `storm.reconnect_s` counts from the cut of all connections until all Pings are held again, with
`return_rate` out of the way: as many TLS handshakes as mailboxes. `storm.http2.reconnect_s` is the same of the first
site, where a few handshakes carry all Pings. Memory is the resident memory of the second site's relay.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
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


async def measure(mailboxes: int, rest: float) -> None:
    """Print the figures of both sites, one after the other."""
    figure("storm.mailboxes", mailboxes, "1")
    async with _open_site(mailboxes, UNPACED) as (sandbox, relay):
        await _mails(sandbox, relay, mailboxes)
        await sandbox.held(mailboxes)
        await _reconnect(sandbox, relay, mailboxes, "storm.http2")
    async with _open_site(mailboxes, UNPACED | ALONE) as (sandbox, relay):
        pid = relay.process.pid
        figure("storm.rss_before_mb", memory_kb(pid) / 1024, "MB")
        await _mails(sandbox, relay, mailboxes, "storm.http1")
        await sandbox.held(mailboxes)
        await _reconnect(sandbox, relay, mailboxes)
        await asyncio.sleep(rest)
        figure("storm.rss_peak_mb", memory_kb(pid, "VmHWM") / 1024, "MB")
        figure("storm.rss_after_mb", memory_kb(pid) / 1024, "MB")


@asynccontextmanager
async def _open_site(mailboxes: int, environ: Mapping[str, str]) -> AsyncIterator[tuple[Sandbox, RelayProcess]]:
    """Run a sandbox and a relay that holds all Pings; raise SystemExit if the mail server complains at the end."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_sandbox(Path(folder) / "sandbox", mailboxes) as sandbox:
            plant(sandbox.folder, mailboxes, PASSWORD)
            async with open_house(sandbox, environ) as (relay, _):
                await sandbox.held(mailboxes)
                await asyncio.sleep(SETTLE)
                yield sandbox, relay
                state = await sandbox.get("/eas/state")
                if state["overlaps"] or state["complaints"]:
                    raise SystemExit(f"the mail server complains: {state['overlaps']}, {state['complaints'][:3]}")


async def _mails(sandbox: Sandbox, relay: RelayProcess, mailboxes: int, name: str = "storm") -> None:
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
    figure(f"{name}.mails_per_s", mailboxes / seconds, "1/s")
    figure(f"{name}.pushes_per_mail", len(received) / mailboxes, "1")
    figure(f"{name}.cpu_ms_per_mail", (cpu_of(relay.process.pid) - before) / mailboxes * 1000, "ms")
    figure(f"{name}.sandbox_cpu_ms_per_mail", (cpu_of(sandbox.pid) - simulators) / mailboxes * 1000, "ms")


async def _reconnect(sandbox: Sandbox, relay: RelayProcess, mailboxes: int, name: str = "storm") -> None:
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
    figure(f"{name}.reconnect_s", (perf_counter_ns() - began) / 1e9, "s")
    figure(f"{name}.reconnect_cpu_ms", (cpu_of(relay.process.pid) - before) / mailboxes * 1000, "ms")
    figure(f"{name}.reconnect_sandbox_cpu_ms", (cpu_of(sandbox.pid) - simulators) / mailboxes * 1000, "ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mailboxes", type=int, default=10_000)
    parser.add_argument("--rest", type=float, default=REST, help="seconds until memory is measured again")
    chosen = parser.parse_args()
    asyncio.run(measure(chosen.mailboxes, chosen.rest))
