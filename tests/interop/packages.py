"""The Debian packages that interop tests need, installed when missing."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

import pytest

POLICY: Final = Path("/usr/sbin/policy-rc.d")
LOCK: Final = Path(tempfile.gettempdir()) / "push-relay-tests-install.lock"
"""Held by the one process of tests that installs: the policy of another one must not go while it needs it."""
PATIENCE: Final = 420.0  # seconds for one run of apt-get; 121 MB of packages take 25 on a fast mirror
LOCK_PATIENCE: Final = 300  # seconds to wait for another apt-get
ATTEMPTS: Final = 2
QUOTED: Final = 5  # lines of apt-get's output that an error repeats

APT: Final = (
    *("apt-get", "-y", "-q", "-o", f"DPkg::Lock::Timeout={LOCK_PATIENCE}", "--no-install-recommends"),
    *("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"),
)


class Unavailable(Exception):
    """This machine cannot run a server, for the reason in the text; the server itself has no fault."""


def unavailable(reason: Unavailable) -> NoReturn:
    """Skip a test that needs a server which this machine cannot run, or fail it with RELAY_INTEROP=required."""
    if os.environ.get("RELAY_INTEROP") == "required":
        pytest.fail(f"the interop tests are required: {reason}", pytrace=False)
    pytest.skip(str(reason))


def install(*packages: str) -> None:
    """Install those packages that are missing; raises Unavailable with the reason when that is impossible."""
    if os.geteuid() != 0:
        raise Unavailable("packages are installed, and daemons run under accounts of their own: run as root")
    if shutil.which("apt-get") is None or shutil.which("dpkg-query") is None:
        raise Unavailable("servers are installed from Debian's packages: run on Debian 12 or newer")
    if not missing(*packages):
        return
    with alone(), _no_daemon_starts():
        wanted = missing(*packages)  # of which another process may have installed some meanwhile
        if not wanted:
            return
        failure = ""
        for _ in range(ATTEMPTS):
            succeeded, failure = _run((*APT, "install", *wanted))
            if succeeded:
                return
            # An interrupted installation, or absent or stale package lists.
            _run(("dpkg", "--configure", "-a"))
            _run((*APT, "update"))
    raise Unavailable(f"apt-get could not install {' '.join(wanted)}:\n{failure}")


def missing(*packages: str) -> list[str]:
    """Return the packages that are not installed."""
    query = ("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *packages)
    # Fails for an unknown package, which is no failure here.
    found = subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()
    return [package for package in packages if f"{package} installed" not in found]


@contextmanager
def alone() -> Iterator[None]:
    """Wait until no other process of tests installs; none begins until the block ends. It must not be nested."""
    with LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _no_daemon_starts() -> Iterator[None]:
    """Keep packaged daemons from starting by themselves; a policy that is already there stays [Debian: invoke-rc.d]."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    try:
        POLICY.chmod(0o755)
        yield
    finally:
        POLICY.unlink()


def _run(command: Sequence[str]) -> tuple[bool, str]:
    """Run a command; return whether it succeeded, and the end of its output."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"{command[0]} took longer than {PATIENCE:.0f} s"
    return done.returncode == 0, "\n".join(done.stdout.splitlines()[-QUOTED:])
