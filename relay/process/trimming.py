"""The return of free memory to the system: after a storm malloc keeps what it no longer needs, unless it is trimmed.

glibc gives back by itself what is free at the top of its heap. A storm leaves free memory between objects that stay, so
a process that was large for a minute would stay large for good. `malloc_trim` gives back all free pages. It holds the
lock of malloc while it walks the heap, so it runs in a thread, when there is much to give back, and at most once in a
minute.
"""

import asyncio
import ctypes
import logging
from collections.abc import Callable
from typing import Any, Final

_FIELDS: Final = (
    "arena",
    "ordblks",
    "smblks",
    "hblks",
    "hblkhd",
    "usmblks",
    "fsmblks",
    "uordblks",
    "fordblks",
    "keepcost",
)
log = logging.getLogger(__name__)

LOOK: Final = 60.0  # seconds between two looks at malloc, so a storm has ended when its memory is given back
WORTH: Final = 16 * 2**20  # bytes that became free since the last trim, so that another one is worth its time


class FreeMemory:
    """How much memory of malloc is free, and how much of that a trim has given back already."""

    def __init__(self) -> None:
        """Begin with nothing given back."""
        self._given_back = 0

    def worth_a_trim(self, free: int) -> bool:
        """Return True if so many free bytes are many more than were given back; free ones that are used again count."""
        self._given_back = min(self._given_back, free)
        return free - self._given_back >= WORTH

    def trimmed(self, free: int) -> None:
        """Note that all pages of so many free bytes were given back; malloc counts them as free all the same."""
        self._given_back = free


class Malloc:
    """The allocator of a process with glibc."""

    def __init__(self, library: Any) -> None:
        self._information = library.mallinfo2
        self._information.restype = _Information
        self._trim = library.malloc_trim

    @classmethod
    def found(cls) -> "Malloc | None":
        """Return the allocator of this process; None with another C library than glibc 2.33 or newer."""
        library = ctypes.CDLL(None)
        return cls(library) if hasattr(library, "mallinfo2") and hasattr(library, "malloc_trim") else None

    def free(self) -> int:
        """Return how many bytes of malloc's heaps are free [mallinfo(3): fordblks]."""
        return int(self._information().fordblks)

    def trim(self) -> None:
        """Give all free pages back to the system [malloc_trim(3)]."""
        self._trim(0)


class _Information(ctypes.Structure):
    """The struct mallinfo2 of glibc."""

    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS]


async def give_back(found: Callable[[], Malloc | None] = Malloc.found, *, seconds: float = LOOK) -> None:
    """Look at malloc every so many seconds until cancelled, and trim it when that is worth its time."""
    malloc, memory = found(), FreeMemory()
    while malloc is not None:
        await asyncio.sleep(seconds)
        # Both walk the heap, which takes milliseconds; ctypes releases the interpreter's lock meanwhile.
        free = await asyncio.to_thread(malloc.free)
        if memory.worth_a_trim(free):
            await asyncio.to_thread(malloc.trim)
            memory.trimmed(await asyncio.to_thread(malloc.free))
            log.debug("free memory given back", extra={"bytes": free})
