"""The optional library that tickets need, built from the locked sources when it is missing."""

import subprocess
import sys
from importlib import invalidate_caches
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tests.interop.packages import Unavailable, alone, install

ROOT: Final = Path(__file__).parents[3]
PACKAGES: Final = ("gcc", "libc6-dev", "libkrb5-dev")
PATIENCE: Final = 600.0  # seconds; compiling takes one minute


def install_library() -> None:
    """Install the library as docs/authentication.md says; raises Unavailable."""
    if find_spec("gssapi") is not None:
        return
    install(*PACKAGES)
    with alone():
        invalidate_caches()  # another process may have installed it meanwhile
        if find_spec("gssapi") is None:
            _build()
            invalidate_caches()


def _build() -> None:
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    done = subprocess.run(
        (*pip, "--no-deps", "--require-hashes", "-r", str(ROOT / "requirements/kerberos.txt")),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode != 0:
        raise Unavailable(f"pip could not install the extra `kerberos`:\n{done.stderr[-1000:]}")
