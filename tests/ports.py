"""Free ports for processes that tests start."""

import fcntl
import os
import socket
import tempfile
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from random import SystemRandom
from typing import Final

PORTS: Final = range(20_000, 32_768)
"""Below the ports that the kernel gives to outgoing connections, and to listeners that ask for any port."""


class Reservations:
    """The ports that processes of tests were told, each for the life of its process: it may not listen there yet.

    A process locks the byte of a port in a file, and the kernel unlocks it when the process ends.
    """

    def __init__(self, file: Path) -> None:
        # Kept open: the first descriptor of a file that a process closes ends all its locks.
        self._file = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._taken: set[int] = set()

    def take(self, port: int) -> bool:
        """Reserve a port; return False if this process or another one did before."""
        if port in self._taken:
            return False
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:
            return False
        self._taken.add(port)
        return True


_RESERVED: Final = Reservations(Path(tempfile.gettempdir()) / f"push-relay-tests-ports-{os.getuid()}.lock")


def free_port() -> int:
    """Return a port of the loopback on which no process listens now; its user should listen soon."""
    (port,) = free_ports(1)
    return port


def free_ports(count: int) -> list[int]:
    """Return different ports on which no process listens now; their users should listen soon."""
    with ExitStack() as held:
        return [_bound(held) for _ in range(count)]


def _bound(held: ExitStack) -> int:
    """Return a port that was free; it stays bound until `held` closes."""
    first = SystemRandom().choice(PORTS)
    for port in chain(range(first, PORTS.stop), range(PORTS.start, first)):
        probe = held.enter_context(socket.socket())
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        if _RESERVED.take(port):
            return port
    raise AssertionError(f"no port from {PORTS.start} to {PORTS.stop - 1} is free")
