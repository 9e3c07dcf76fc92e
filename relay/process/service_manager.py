"""What the relay tells the service manager that started it: systemd, or another one with the same protocol.

Messages are datagrams of lines NAME=VALUE to the socket that NOTIFY_SOCKET names [systemd: sd_notify(3)]. Without that
variable nobody is told anything.
"""

import contextlib
import logging
import socket
import time
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Final, Self

log = logging.getLogger(__name__)

SOCKET: Final = "NOTIFY_SOCKET"
WATCHDOG: Final = "WATCHDOG_USEC"
WATCHDOG_PROCESS: Final = "WATCHDOG_PID"
MICROSECONDS: Final = 1_000_000  # in a second
SHARE: Final = 3
"""Signs of life in the time after which the manager ends the process: one that is late, or lost, is not the end."""
LONGEST: Final = 2_000  # characters of a status
FIRST: Final = 3  # the first descriptor that is passed [systemd: sd_listen_fds(3)]
PASSED: Final = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


class ServiceManager:
    """The manager of this process, or nobody; it is told and never waited for."""

    def __init__(self, address: str = "", watchdog: float | None = None) -> None:
        """Tell the socket at an address, "@" for the abstract name space; empty: nobody.

        `watchdog` is the time in seconds within which the manager expects a sign of life; None: it expects none.
        """
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.period = None if watchdog is None else watchdog / SHARE
        """Seconds between two signs of life; None: none are expected."""
        self._silent = False

    @classmethod
    def of(cls, environ: Mapping[str, str], process: int) -> Self:
        """Return the manager that the environment of a process names, by its process id."""
        address = environ.get(SOCKET, "")
        try:
            microseconds = int(environ.get(WATCHDOG, "0"))
            meant = int(environ.get(WATCHDOG_PROCESS) or process) == process
        except ValueError:
            microseconds, meant = 0, False
        watchdog = microseconds / MICROSECONDS if meant and microseconds > 0 else None
        return cls(address if address[:1] in {"/", "@"} else "", watchdog if address else None)

    def ready(self, status: str) -> None:
        """Say that the process serves, or that its reload has ended."""
        self._tell("READY=1", f"STATUS={_line(status)}")

    def reloading(self) -> None:
        """Say that the process begins to read its configuration again; `ready` must follow."""
        moment = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={moment}", "STATUS=reads its configuration again")

    def stopping(self, status: str) -> None:
        """Say that the process ends."""
        self._tell("STOPPING=1", f"STATUS={_line(status)}")

    def status(self, status: str) -> None:
        """Say in plain words how the process is."""
        self._tell(f"STATUS={_line(status)}")

    def alive(self) -> None:
        """Give a sign of life."""
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)) as sock:
                sock.settimeout(0)
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            if not self._silent:
                log.warning("service manager not told", extra={"reason": error.strerror or str(error)})
            self._silent = True
        else:
            self._silent = False


def _line(text: str) -> str:
    return " ".join(text.split())[:LONGEST]


def passed_sockets(environ: MutableMapping[str, str], process: int) -> Mapping[int, Sequence[socket.socket]]:
    """Return the listening TCP sockets that the manager opened for this process, by port; others are closed.

    While a process ends and the next one starts, clients wait in such a socket and are not refused. The variables are
    removed, so that no child takes the sockets for its own.
    """
    number, meant = environ.get("LISTEN_FDS", "0"), environ.get("LISTEN_PID")
    for name in PASSED:
        environ.pop(name, None)
    if meant != str(process) or not number.isdecimal():
        return {}
    found: dict[int, list[socket.socket]] = {}
    for descriptor in range(FIRST, FIRST + int(number)):
        try:
            each = socket.socket(fileno=descriptor)
        except OSError as error:
            log.warning("passed socket not used", extra={"descriptor": descriptor, "reason": error.strerror})
            continue
        each.set_inheritable(False)
        listens = bool(each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        if each.family not in {socket.AF_INET, socket.AF_INET6} or not listens:
            reason = "it is no TCP socket that listens"
            log.warning("passed socket not used", extra={"descriptor": descriptor, "reason": reason})
            each.close()
            continue
        found.setdefault(int(each.getsockname()[1]), []).append(each)
    return found
