"""Measure pushes through FCM: ours against firebase-admin's send_each and pyfcm's notify, on one server, over TLS.

The ways take turns, each in a process of its own; figures are medians over the rounds.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.site import figure

FOLDER: Final = Path(__file__).parent
SHARES: Final = {"relay": 10, "relay_logged": 10, "firebase": 1, "pyfcm": 1}
"""The number of pushes that each way sends in a round, from the number given: all take about the same time."""


async def measure(rounds: int, pushes: int) -> None:
    """Print the figures."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SHARES}
    with tempfile.TemporaryDirectory() as folder:
        server = await asyncio.create_subprocess_exec(
            sys.executable, str(FOLDER / "fcm_server.py"), folder, stdout=asyncio.subprocess.PIPE
        )
        try:
            if server.stdout is None:
                raise AssertionError("asked for a moment ago")
            port = (await server.stdout.readline()).decode().strip()
            for _ in range(rounds):
                for side, share in SHARES.items():
                    found[side].append(await _run(side, folder, port, pushes * share))
        finally:
            server.terminate()
            await server.wait()
    per_s = {side: median(each["per_s"] for each in figures) for side, figures in found.items()}
    cpu = {side: median(each["cpu_us"] for each in figures) for side, figures in found.items()}
    for side in SHARES:
        figure(f"fcm.{side}.pushes_per_s", per_s[side], "1/s")
        figure(f"fcm.{side}.cpu_us_per_push", cpu[side], "us")
    figure("fcm.ratio_to_firebase_admin", per_s["relay"] / per_s["firebase"], "1")
    figure("fcm.ratio_to_pyfcm", per_s["relay"] / per_s["pyfcm"], "1")
    figure("fcm.cpu_ratio_to_firebase_admin", cpu["firebase"] / cpu["relay"], "1")
    figure("fcm.cpu_ratio_to_pyfcm", cpu["pyfcm"] / cpu["relay"], "1")


async def _run(side: str, folder: str, port: str, count: int) -> dict[str, float]:
    """Run one way in a process that sends so many pushes; return its figures."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(FOLDER / "fcm_sides.py"),
        side,
        folder,
        port,
        str(count),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "REQUESTS_CA_BUNDLE": f"{folder}/ca.pem"},
    )
    answer, _ = await process.communicate()
    figures: dict[str, float] = json.loads(answer)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--pushes", type=int, default=2000, help="by the slow ways in a round; ours sends ten times as many"
    )
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.rounds, arguments.pushes))
