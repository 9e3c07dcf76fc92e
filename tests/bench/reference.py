"""Measure the host, not the relay: with these a figure can be compared with one of another host or another day.

`make bench` prints them before each bench, both medians in wall time. `reference.python_us` is a fixed piece of Python
in one thread: a thousand turns that make a small object and look up its name. `reference.sync_us` lasts until 4 kB at
the end of a file are on the disk.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.site import figure

TURNS: Final = 1000
ROUNDS: Final = 300
SYNCS: Final = 100
PIECE: Final = bytes(4096)


class Item:
    """A small object."""

    __slots__ = ("name", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = f"n{number % 50}"


def work() -> None:
    """Make a thousand objects, and add up their numbers by name."""
    found: dict[str, int] = {}
    for number in range(TURNS):
        item = Item(number)
        found[item.name] = found.get(item.name, 0) + item.number


def microseconds(act: Callable[[], object], times: int) -> float:
    """Return the median time of a call."""
    took = []
    for _ in range(times):
        began = perf_counter()
        act()
        took.append(perf_counter() - began)
    return median(took) * 1e6


if __name__ == "__main__":
    figure("reference.python_us", microseconds(work, ROUNDS), "us")
    with tempfile.TemporaryFile(buffering=0) as file:

        def append() -> None:
            file.write(PIECE)
            os.fdatasync(file)

        figure("reference.sync_us", microseconds(append, SYNCS), "us")
