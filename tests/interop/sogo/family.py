"""The end of a process together with its descendants, by pid only."""

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

DEATH: Final = 10.0  # seconds until a killed process must be gone


class Family:
    """A process and its descendants.

    Each has a descriptor, which means that process even when its pid is used again
    [Linux: pidfd_open(2)]. So those whose parent ended before them are still known.
    """

    def __init__(self, leader: int, held: ExitStack) -> None:
        self._leader = leader
        self._held = held
        self._descriptors = [self._open(leader)]
        self._look()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the leader."""
        _send(self._descriptors[0], number)

    def gone(self, patience: float = 0.0) -> bool:
        """Wait up to `patience` seconds; return True if all have ended."""
        end = time.monotonic() + patience
        return all(_ended(descriptor, max(0.0, end - time.monotonic())) for descriptor in self._descriptors)

    def kill(self) -> bool:
        """Kill all; return True if they have ended."""
        self.signal(signal.SIGSTOP)  # so that the leader replaces none of its children
        self._look()
        for descriptor in reversed(self._descriptors):
            _send(descriptor, signal.SIGKILL)
        return self.gone(DEATH)

    def _look(self) -> None:
        for pid in descendants(self._leader):
            with suppress(ProcessLookupError):
                self._descriptors.append(self._open(pid))

    def _open(self, pid: int) -> int:
        descriptor = os.pidfd_open(pid)
        self._held.callback(os.close, descriptor)
        return descriptor


@contextmanager
def family_of(leader: int) -> Iterator[Family]:
    """Return a process, which must not have been waited for, with its descendants; raises ProcessLookupError."""
    with ExitStack() as held:
        yield Family(leader, held)


def descendants(pid: int) -> list[int]:
    """Return the children of a process, theirs, and so on [Linux: proc(5), /proc/pid/task/tid/children]."""
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in map(int, children.read_text().split()):
                found += [child, *descendants(child)]
    return found


def _send(descriptor: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, number)


def _ended(descriptor: int, patience: float) -> bool:
    """Wait for the end of a process, which makes its descriptor readable."""
    watched = select.poll()
    watched.register(descriptor, select.POLLIN)
    return bool(watched.poll(patience * 1000))
