"""Measure verified registrations a second: POST answered 201, the credential checked against the simulated mail server.

`return_rate` is out of the way, so that the figure is the relay's and not the pace that an operator chose. The watches
of the registered mailboxes start meanwhile, as they do on a first day.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from time import monotonic

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.site import UNPACED, cpu_of, figure, open_house, open_sandbox, register

WARM = 50  # registrations before the clock starts: the first connections, the OPTIONS that every server is asked once


async def measure(mailboxes: int, clients: int) -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        async with (
            open_sandbox(Path(folder) / "sandbox", WARM + mailboxes) as sandbox,
            open_house(sandbox, UNPACED) as (relay, api),
        ):
            await register(api, range(1, WARM + 1), clients)
            before, simulators, began = cpu_of(relay.process.pid), cpu_of(sandbox.pid), monotonic()
            await register(api, range(WARM + 1, WARM + mailboxes + 1), clients)
            seconds = monotonic() - began
            figure("register.per_s", mailboxes / seconds, "1/s")
            figure("register.cpu_ms", (cpu_of(relay.process.pid) - before) / mailboxes * 1000, "ms")
            figure("register.sandbox_cpu_ms", (cpu_of(sandbox.pid) - simulators) / mailboxes * 1000, "ms")
            began = monotonic()
            await sandbox.held(WARM + mailboxes)
            figure("register.all_watched_after_s", monotonic() - began, "s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mailboxes", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=32, help="registrations at a time")
    chosen = parser.parse_args()
    asyncio.run(measure(chosen.mailboxes, chosen.clients))
