"""Settings of the garbage collector and of malloc for a process that has built its long-lived objects."""

import ctypes
import gc
from typing import Final

THRESHOLDS: Final = (50_000, 20, 20)
"""For gc.set_threshold: a fleet is millions of long-lived objects, and the defaults collect far too often."""

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
M_ARENA_MAX: Final = -8
"""Parameters of mallopt(3)."""
ARENAS: Final = 2
"""Heaps that all threads share.

glibc makes one for each thread, up to eight per core, and what is free in one serves no thread of another. Python's
small objects never come from there, so threads hardly ever wait for one another.
"""
TRIM_THRESHOLD: Final = 4 * 2**20  # bytes of free memory at the top of the heap that malloc keeps
MMAP_THRESHOLD: Final = 2**20
"""Bytes from which malloc maps memory for a single allocation.

uvloop allocates 256 KiB for each read of TLS and shrinks it to a few hundred bytes: with glibc's threshold of 128 KiB
that takes three system calls per read, a quarter of the cost of a push to FCM.
"""


def share_heaps() -> None:
    """With glibc, let all threads share a few heaps of malloc; to be called before there is a thread."""
    allocator = ctypes.CDLL(None)
    if hasattr(allocator, "mallopt"):
        allocator.mallopt(M_ARENA_MAX, ARENAS)


def freeze_heap() -> None:
    """Freeze the heap (gc.freeze); with glibc, also return free memory to the system and tune malloc."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    allocator = ctypes.CDLL(None)
    if hasattr(allocator, "mallopt"):
        allocator.malloc_trim(0)
        allocator.mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD)
        allocator.mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD)
