"""What ends a process that stands still: the kernel when its lease ends, the service manager without signs of life.

The kernel's timer is for processes that share mailboxes, where seconds count. The service manager's watchdog is for all
processes, so that one that hangs is started again. Both live on what the event loop does itself: the renewal of the
lease sets the timer, and a job of the loop gives the signs of life.

A process that is stopped (SIGSTOP, a debugger, a frozen container) or hangs cannot stop its watches in time, and the
kernel keeps its connections open: the mail server would still hold its Pings while another process sends its own. So
the kernel is told when the lease ends. Its timer fires in stopped processes, too; SIGKILL closes all connections.
"""

import asyncio
import ctypes
import logging
import os
import signal
from collections.abc import Callable
from typing import Final

from relay.process.service_manager import ServiceManager

log = logging.getLogger(__name__)

_CLOCK_MONOTONIC: Final = 1
_SIGEV_SIGNAL: Final = 0
_INIT: Final = 1
"""The first process of a container; the kernel spares it signals of its own."""

LOOK: Final = 5.0  # seconds between two signs of life, or fewer if the manager wants them more often
WRITER: Final = 60.0
"""Seconds of one transaction after which the database's writer hangs: the longest, on a full disk, take a few."""


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class _Sigevent(ctypes.Structure):
    # 64 bytes [Linux: sigevent(3type)].
    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_byte * 48),
    )


class DeadManTimer:
    """A timer that kills this process unless it is set again, or off, in time."""

    def __init__(self) -> None:
        """Make the timer; it is off. Without one, which is logged, a process that stands still keeps its Pings."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = ctypes.c_void_p()
        event = _Sigevent(signal=signal.SIGKILL, notify=_SIGEV_SIGNAL)
        failed = self._libc.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._timer))
        self.works = not failed and os.getpid() != _INIT
        if not self.works:
            detail = os.strerror(ctypes.get_errno()) if failed else "this is process 1: run the container with an init"
            log.warning("no timer ends this process if it stands still", extra={"detail": detail})

    def set(self, seconds: float) -> None:
        """Let the kernel kill this process after some seconds; it replaces what was set before."""
        if self.works:
            whole, rest = divmod(max(0.001, seconds), 1.0)
            value = _Itimerspec(_Timespec(0, 0), _Timespec(int(whole), int(rest * 1e9)))
            self._libc.timer_settime(self._timer, 0, ctypes.byref(value), None)

    def off(self) -> None:
        """Let this process live."""
        if self.works:
            self._libc.timer_settime(self._timer, 0, ctypes.byref(_Itimerspec()), None)


async def give_signs_of_life(
    manager: ServiceManager, describe: Callable[[], str], writes_for: Callable[[], float]
) -> None:
    """Give the manager signs of life and a status, until cancelled: while the loop runs, and the writer writes.

    `describe` returns the status. `writes_for` returns the seconds for which one transaction has run: a writer that
    hangs keeps progress and pushes from the database, though the loop runs.
    """
    told, hung = "", False
    while True:
        if (status := describe()) != told:
            told = status
            manager.status(status)
        hangs = writes_for() > WRITER
        if hangs and not hung:
            log.critical("the database's writer hangs: no more signs of life", extra={"seconds": WRITER})
        hung = hangs
        if not hung and manager.period is not None:
            manager.alive()
        await asyncio.sleep(LOOK if manager.period is None else min(LOOK, manager.period))
