"""Measure the time from a Ping's answer leaving the mail server to the push's request arriving at APNs.

Both moments are taken by the sandbox's process, on one clock. One mail to each mailbox, 50 a second.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.site import figure, mail_to_push, open_house, open_sandbox, register

SETTLE = 2.0  # seconds between the last registration and the first mail
DRAIN = 30.0  # seconds the last pushes may take


async def measure(mailboxes: int, rate: float, jitter: float) -> None:
    """Print the percentiles, in milliseconds; with `jitter` seconds of timing privacy."""
    pace = {"RELAY__PUSH__JITTER_SECONDS": str(jitter)}
    name = f"latency.jitter_{jitter:g}" if jitter else "latency"
    with tempfile.TemporaryDirectory() as folder:
        async with open_sandbox(Path(folder) / "sandbox", mailboxes) as sandbox, open_house(sandbox, pace) as (_, api):
            await register(api, mailboxes)
            await sandbox.held(mailboxes)
            await asyncio.sleep(SETTLE)
            late, reached = await mail_to_push(sandbox, mailboxes, rate, within=DRAIN + jitter)
    figure(f"{name}.mails_per_s", reached, "1/s")
    figure(f"{name}.change_to_apns.p50_ms", late[len(late) // 2], "ms")
    figure(f"{name}.change_to_apns.p99_ms", late[len(late) * 99 // 100], "ms")
    figure(f"{name}.change_to_apns.max_ms", late[-1], "ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mailboxes", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=50.0, help="mails per second")
    parser.add_argument("--jitter", type=float, default=0.0, help="push.jitter_seconds of the relay")
    chosen = parser.parse_args()
    asyncio.run(measure(chosen.mailboxes, chosen.rate, chosen.jitter))
