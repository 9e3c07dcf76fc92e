"""One daemon: started in the foreground as a child of the tests, ended with all its descendants, by pid."""

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.interop.sogo.family import family_of

PATIENCE: Final = 30.0  # seconds until a daemon must be ready; the slowest, sogod, takes 1
STEP: Final = 0.05  # seconds between two looks
QUOTED: Final = 20  # lines of a log that an error repeats


class DaemonFailed(Exception):
    """A daemon did not start or does not end; the text quotes the end of its log."""


@dataclass
class Daemon:
    """One program in the foreground, under an account of its own.

    `term` is the signal that asks it to end, `grace` how many seconds it then has.
    """

    name: str
    started: Callable[[int], None]
    """Called with the pid of every start."""
    command: Sequence[str]
    log: Path
    directory: Path
    port: int
    """The port on 127.0.0.1 on which it listens once it is ready."""
    account: str = "root"
    term: signal.Signals = signal.SIGTERM
    grace: float = 5.0
    environment: dict[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """True if the daemon was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the program unless it runs, and return when it listens; raises DaemonFailed when it does not."""
        if self.running:
            return
        as_account = ["setpriv", f"--reuid={self.account}", f"--regid={self.account}", "--init-groups", "--"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*as_account, *self.command],
                cwd=self.directory,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC", **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is for the tests, which then stop the daemon
            )
        self.started(self._process.pid)
        end = time.monotonic() + PATIENCE
        while not self._listens():
            if not self.running:
                raise DaemonFailed(f"{self.name} ended by itself:\n{self.tail()}")
            if time.monotonic() > end:
                raise DaemonFailed(f"{self.name} does not listen:\n{self.tail()}")
            time.sleep(STEP)

    def stop(self, *, kill: bool = False) -> None:
        """End the program and all its descendants, with `kill` by SIGKILL; does nothing when it does not run."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        with family_of(process.pid) as family:
            if not kill:
                family.signal(self.term)
            if (kill or not family.gone(self.grace)) and not family.kill():
                raise DaemonFailed(f"{self.name} does not end")
        process.wait()

    def tail(self) -> str:
        """Read the end of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-QUOTED:])

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
        except OSError:
            return False
        return True
