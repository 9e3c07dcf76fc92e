"""A process of its own that ends the daemons of the tests if the tests are killed.

It reads the pid of each daemon, one a line, from standard input, which ends with the process that writes to it, however
that ends. Run as `python -m tests.interop.sogo.undertaker [DIRECTORY]`, which it then removes.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from tests.interop.sogo.family import Family, family_of

ROOT: Final = Path(__file__).parents[3]
PATIENCE: Final = 60.0  # seconds until it must be done


class Undertaker:
    """The connection to that process."""

    def __init__(self, lines: IO[str]) -> None:
        self._lines = lines

    def watch(self, pid: int) -> None:
        """Register a daemon, to be ended if this process is killed."""
        self._lines.write(f"{pid}\n")
        self._lines.flush()


@contextmanager
def undertaker(state: Path, keep: bool) -> Iterator[Undertaker]:
    """Run the process; at the end it ends the daemons that are left and removes the directory, if one is given."""
    command = [sys.executable, "-m", "tests.interop.sogo.undertaker", *([] if keep else [str(state)])]
    # A session of its own: it must survive a Ctrl-C.
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdin is not None
    try:
        yield Undertaker(process.stdin)
    finally:
        process.stdin.close()
        process.wait(PATIENCE)


def bury(lines: Iterable[str], remains: Iterable[Path]) -> None:
    """Read pids until the input ends; then end the daemons that are left, youngest first, and remove the directory."""
    with ExitStack() as held:
        families: list[Family] = []
        for line in lines:
            with suppress(ProcessLookupError):
                families.append(held.enter_context(family_of(int(line))))
        for family in reversed(families):
            if not family.gone():
                family.kill()
    for directory in remains:
        shutil.rmtree(directory)


if __name__ == "__main__":
    bury(sys.stdin, map(Path, sys.argv[1:]))
