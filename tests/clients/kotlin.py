"""The Kotlin compiler of the npm registry, installed when missing, and what it makes of `clients/kotlin`."""

import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.interop.packages import Unavailable, install

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = ROOT / "clients/kotlin"
BUILD: Final = ROOT / "build/kotlin"
VERSION: Final = "2.4.20"
SHA512: Final = (
    "205e4854cecba4f840fe7b47410a5a56dd72c6969a428bed11560bcaa58cb9a2"
    "ebd177a52cf3e6effb0ce872e1b5c4638e3a12b0aec8ee53f693360990ccbbdf"
)
"""The SHA-512 of the package: another file of the same version is not taken."""
PATIENCE: Final = 420.0  # seconds for one compilation or download on a busy machine; alone they take 20
ANDROID: Final = ("android", "fcm", "unifiedpush", "example")
MAIN: Final = "src/main/kotlin"
TEST: Final = "src/test/kotlin"


def run(command: Sequence[object], cwd: Path = ROOT) -> str:
    """Run a command and return its output; raises AssertionError with the output if it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def compiler() -> Path:
    """Return the folder of the compiler's jars; raises Unavailable with the reason if it cannot be had."""
    if shutil.which("java") is None:
        install("openjdk-17-jdk-headless")
    if shutil.which("npm") is None:
        install("npm")
    jars = BUILD / f"compiler-{VERSION}" / "package" / "lib"
    if jars.exists():
        return jars
    BUILD.mkdir(parents=True, exist_ok=True)
    try:
        run(("npm", "pack", f"kotlin-compiler@{VERSION}"), BUILD)
    except (AssertionError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"npm could not fetch kotlin-compiler {VERSION}: {error}") from error
    archive = BUILD / f"kotlin-compiler-{VERSION}.tgz"
    found = hashlib.sha512(archive.read_bytes()).hexdigest()
    if found != SHA512:
        raise AssertionError(f"the compiler's package is not the one that was checked, its SHA-512 is {found}")
    fresh = BUILD / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    run(("tar", "--extract", "--file", archive), fresh)
    fresh.rename(BUILD / f"compiler-{VERSION}")
    archive.unlink()
    return jars


class Kotlin:
    """The compiled clients: the core and its tests, and the modules of Android against stubs."""

    def __init__(self) -> None:
        """Compile all; raises Unavailable, or AssertionError with what the compiler said."""
        self._jars = compiler()
        self._runtime = (self._jars / "kotlin-stdlib.jar", self._jars / "kotlin-test.jar")
        self.core = self._compile("core", [SOURCES / "core" / MAIN])
        tests = [SOURCES / "jvm" / MAIN, SOURCES / "core" / TEST, SOURCES / "jvm" / TEST]
        self.tests = self._compile("tests", tests, self.core, self._runtime[1])
        self.stubs = self._compile("stubs", [SOURCES / "stubs" / MAIN])
        self.android = self._compile("android", [SOURCES / module / MAIN for module in ANDROID], self.core, self.stubs)

    def command(self, main: str, *arguments: object) -> list[str]:
        """Return the command that runs a program of the tests."""
        path = ":".join(map(str, (self.tests, self.core, *self._runtime)))
        return [str(part) for part in ("java", "-cp", path, main, *arguments)]

    def _compile(self, name: str, sources: Sequence[Path], *path: Path) -> Path:
        into, stamp = BUILD / "classes" / name, BUILD / "classes" / f"{name}.sha256"
        state = self._state(sources, path)
        if stamp.exists() and stamp.read_text() == state:
            return into
        shutil.rmtree(into, ignore_errors=True)
        names = ("compiler", "stdlib", "script-runtime", "reflect", "daemon")
        own = [self._jars / f"kotlin-{part}.jar" for part in names]
        own += [self._jars / "kotlinx-coroutines-core-jvm.jar", self._jars / "annotations-13.0.jar"]
        options = ("-no-stdlib", "-no-reflect", "-Werror", "-jvm-target", "11", "-Xjdk-release=11")
        run(
            (
                *("java", "-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
                *("-cp", ":".join(map(str, own)), "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler", *options),
                *("-cp", ":".join(map(str, (self._jars / "kotlin-stdlib.jar", *path)))),
                *("-d", into, *sources),
            )
        )
        stamp.write_text(state)
        return into

    def _state(self, sources: Sequence[Path], path: Sequence[Path]) -> str:
        """Return a hash of everything that a compilation depends on: what did not change is not compiled again."""
        files = sorted(file for source in sources for file in source.rglob("*.kt"))
        stamps = [part.with_name(f"{part.name}.sha256") for part in path if part.is_dir()]
        parts = [Path(__file__).read_bytes(), *(b"%s\0%s" % (str(file).encode(), file.read_bytes()) for file in files)]
        return hashlib.sha256(b"\0".join([*parts, *(stamp.read_bytes() for stamp in stamps)])).hexdigest()
