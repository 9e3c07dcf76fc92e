"""Measure how mailboxes are watched at a mail server with fewer workers than mailboxes, over simulated hours.

Each scenario names mailboxes and workers. The first ten minutes, in which the relay learns, are measured apart.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from statistics import mean, median
from typing import Final

import looptime

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.unit.eas_watcher.workers import FewWorkers, crowd

LEARNING: Final = 600.0  # seconds
LATER: Final = 3600.0
Change = Callable[[FewWorkers], None]


async def measure(name: str, mailboxes: int, workers: int, *changes: Change, processes: int = 1) -> None:
    """Print the figures of a server with so many workers, and again after each change of it."""
    clock = asyncio.get_running_loop().time
    server = FewWorkers(workers)
    async with crowd(server, mailboxes, processes) as place:
        phases: list[tuple[str, float, Change | None]] = [("learning", LEARNING, None), ("later", LATER, None)]
        phases += [(f"change_{number}", LATER, change) for number, change in enumerate(changes, 1)]
        for phase, seconds, change in phases:
            if change is not None:
                change(server)
            place.unwatched.clear()
            place.journals.late.clear()
            began = clock()
            await place.run(seconds)
            share, gaps = place.share(began, clock()), place.gaps(began, clock())
            late = sorted(place.journals.late) or [0.0]
            for figure, value, unit in (
                ("pings_held", sum(share), ""),
                ("held_share_mean", 100 * mean(share), "%"),
                ("held_share_least", 100 * min(share), "%"),
                ("longest_gap_median", median(gaps), "s"),
                ("longest_gap_worst", max(gaps), "s"),
                ("mail_delay_median", median(late), "s"),
                ("mail_delay_p95", late[len(late) * 95 // 100], "s"),
                ("mails_not_told_yet", sum(map(len, place.journals.sent.values())), ""),
                ("not_watched_mean", 100 * mean(place.unwatched), "%"),
                ("not_watched_most", 100 * max(place.unwatched), "%"),
            ):
                print(f"bench {name}_{phase}_{figure} {value:.1f} {unit}".rstrip(), flush=True)  # noqa: T201


def restart(workers: int) -> Change:
    """Return the restart of a server with another number of workers."""

    def change(server: FewWorkers) -> None:
        server.restart(workers)

    return change


def main() -> None:
    """Run all scenarios."""
    logging.disable(logging.WARNING)
    scenarios: tuple[Callable[[], Coroutine[None, None, None]], ...] = (
        lambda: measure("36_mailboxes_5_workers", 36, 5),
        lambda: measure("3_mailboxes_1_worker", 3, 1),
        lambda: measure("40_mailboxes_30_workers", 40, 30),
        lambda: measure("30_mailboxes_40_workers", 30, 40),
        lambda: measure("36_mailboxes_5_50_5_workers", 36, 5, restart(50), restart(5)),
        lambda: measure("36_mailboxes_5_workers_2_processes", 36, 5, processes=2),
    )
    for scenario in scenarios:
        with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
            runner.run(scenario())


if __name__ == "__main__":
    main()
