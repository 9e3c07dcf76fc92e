"""An empty Debian in a folder, whose programs run in namespaces of their own: nothing of them outlives the command."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.interop.packages import Unavailable, install

SUITES: Final = {(3, 11): "bookworm", (3, 13): "trixie"}
"""Debian's releases by their Python; a package is for the one of the Python that builds it."""
PATIENCE: Final = 420.0  # seconds for one command; an installation takes 20
QUOTED: Final = 3000  # characters of a failed command's output that an error repeats


class Root:
    """The folder of an empty Debian."""

    def __init__(self, folder: Path) -> None:
        """Take a folder that holds a root file system."""
        self.folder = folder

    def run(self, script: str, *, network: bool = False, fails: bool = False) -> str:
        """Run a script of bash as root; return what it printed. Its processes end with it.

        Without `network` there is only loopback. Raises AssertionError if it fails, or if it does not although it
        `fails`.
        """
        inside = 'mount -t proc proc "$0/proc" && exec chroot "$0" /bin/bash -euo pipefail -c "$1"'
        if not network:
            inside = f"ip link set lo up && {inside}"
        spaces = ("--mount", "--pid", "--fork", "--kill-child", *(() if network else ("--net",)))
        environ = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
        environ |= {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            ("unshare", *spaces, "sh", "-c", inside, str(self.folder), f"cd; {script}"),
            env={**environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if (done.returncode != 0) is not fails:
            raise AssertionError(f"status {done.returncode} of\n{script}\n{done.stdout[-QUOTED:]}")
        return done.stdout

    def take(self, file: Path) -> str:
        """Copy a file into /tmp; return its path inside."""
        shutil.copyfile(file, self.folder / "tmp" / file.name)
        return f"/tmp/{file.name}"

    def exists(self, path: str) -> bool:
        """Return whether a path exists inside."""
        return os.path.lexists(self.folder / path.lstrip("/"))


@contextmanager
def empty_root(folder: Path) -> Iterator[Root]:
    """Make an empty Debian with apt and with Python's package for virtual environments; remove it at the end."""
    suite = SUITES.get(sys.version_info[:2])
    if suite is None:
        raise Unavailable("packages are for Debian's Pythons: run on Python 3.11 or 3.13")
    install("mmdebstrap", "iproute2", "lintian")
    made = subprocess.run(
        ("mmdebstrap", "--quiet", "--variant=apt", "--include=python3-venv", suite, str(folder)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if made.returncode:
        raise Unavailable(f"mmdebstrap made no {suite}:\n{made.stdout[-QUOTED:]}")
    try:
        yield Root(folder)
    finally:
        shutil.rmtree(folder)
