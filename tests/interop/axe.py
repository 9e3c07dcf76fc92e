"""axe-core of the npm registry, which looks for faults that keep people from using a page; fetched when missing."""

import asyncio
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from tests.interop.chromium import Page
from tests.interop.packages import Unavailable, install

BUILD: Final = Path(__file__).parents[2] / "build/axe"
VERSION: Final = "4.14.1"
SHA256: Final = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
"""The SHA-256 of the package: another file of the same version is not taken."""
PATIENCE: Final = 120.0  # seconds for the download
LOOK: Final = """
axe.run(document, { resultTypes: ['violations'] }).then((found) =>
  found.violations
    .filter((each) => ['serious', 'critical'].includes(each.impact))
    .map((each) => `${each.id}: ${each.nodes.map((node) => node.target).join(', ')}`))
"""


def script() -> str:
    """Return the script; raises Unavailable with the reason if it cannot be had."""
    kept = BUILD / f"axe-{VERSION}.js"
    if kept.exists():
        return kept.read_text(encoding="utf-8")
    if shutil.which("npm") is None:
        install("npm")
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as name:  # another process may do the same
        whole = Path(name) / kept.name
        whole.write_bytes(_fetched(Path(name)))
        whole.rename(kept)
    return kept.read_text(encoding="utf-8")


def _fetched(folder: Path) -> bytes:
    """Return the script from the package, which npm puts into a folder."""
    try:
        fetch = ("npm", "pack", f"axe-core@{VERSION}")
        subprocess.run(fetch, cwd=folder, check=True, capture_output=True, timeout=PATIENCE)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"npm could not fetch axe-core {VERSION}: {error}") from error
    archive = folder / f"axe-core-{VERSION}.tgz"
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        raise AssertionError(f"the package of axe-core is not the one that was checked, its SHA-256 is {found}")
    with tarfile.open(archive) as tar:
        member = tar.extractfile("package/axe.min.js")
        if member is None:
            raise AssertionError("the package of axe-core has no axe.min.js")
        return member.read()


async def serious(page: Page) -> list[str]:
    """Return what is seriously wrong with the page as it is now, each with its place; raises Unavailable."""
    if not await page.evaluate("'axe' in self"):
        await page.evaluate(f"{await asyncio.to_thread(script)}; 0")
    found: list[str] = await page.evaluate(LOOK)
    return found
