"""How a process keeps its memory once it has built everything that lasts."""

import ctypes
import gc
from typing import Final

THRESHOLDS: Final = (50_000, 20, 20)
"""Objects per collection: a fleet is millions of lasting objects, and the default walks them far too often."""

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
"""Parameters of mallopt(3)."""
KEPT: Final = 4 * 2**20  # bytes of free memory at the top of the heap that are not given back
SINGLE: Final = 2**20
"""Bytes from which on an allocation is a mapping of its own.

uvloop reads TLS into 256 KiB each time and gives all but a few hundred bytes back: with glibc's 128 KiB that takes
three system calls a read, a quarter of what a push to FCM costs.
"""


def freeze_heap() -> None:
    """Freeze the heap (gc.freeze), give back what the start used only once, and tune malloc where it is glibc's."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    allocator = ctypes.CDLL(None)
    if hasattr(allocator, "mallopt"):
        allocator.malloc_trim(0)
        allocator.mallopt(M_MMAP_THRESHOLD, SINGLE)
        allocator.mallopt(M_TRIM_THRESHOLD, KEPT)
