"""What the tests of packages share: locked libraries, both packages, and an empty Debian."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.interop.packages import Unavailable, unavailable
from tests.packages.root import Root, empty_root

ROOT: Final = Path(__file__).parents[2]
PIP: Final = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
TIMEOUT: Final = 420  # seconds for a test alone


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.timeout(TIMEOUT, func_only=True))


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    with ExitStack() as stack:
        try:
            made = stack.enter_context(empty_root(tmp_path_factory.mktemp("debian") / "root"))
        except Unavailable as reason:
            unavailable(reason)
        yield made


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Download the locked libraries, and build the relay's wheel beside them."""
    folder = tmp_path_factory.mktemp("wheels")
    lock = ("--require-hashes", "--only-binary", ":all:", "-r", str(ROOT / "requirements/run.txt"))
    subprocess.run((*PIP, "download", "--no-deps", "--dest", str(folder), *lock), check=True)
    subprocess.run((*PIP, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)), check=True)
    return folder


@pytest.fixture(scope="session")
def package(wheels: Path, root: Root, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the Debian package from the libraries that were downloaded; it needs `root`, whose tools build it."""
    target = tmp_path_factory.mktemp("package")
    build = (sys.executable, str(ROOT / "packaging/debian/build.py"), str(target))
    subprocess.run(build, check=True, env={**os.environ, "PIP_FIND_LINKS": str(wheels)}, stdout=subprocess.DEVNULL)
    (made,) = target.glob("*.deb")
    return made
