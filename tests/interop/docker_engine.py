"""A Docker Engine in a network namespace: a host whose one neighbour is its company network and the Internet."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.interop.packages import Unavailable, install
from tests.packages.root import SUITES
from tests.waiting import until

HOST: Final = "10.99.0.1"
"""The Docker host, as its neighbours know it."""
MAIL: Final = "10.99.0.2"
"""The mail server in the company network."""
INTERNET: Final = "203.0.113.10"
"""What is not in the company network [RFC 5737]."""
HOST_PORT: Final = 2222
"""A port of the host itself, which no container has to do with; packages of Python are there, too."""
PATIENCE: Final = 300.0  # seconds for one command
QUOTED: Final = 3000  # characters of a failed command's output that an error repeats
DOCKER: Final = "/usr/bin/docker"  # Debian's, which has BuildKit; another one in the path may have not
BASE: Final = "base.example.com/debian:test"


@dataclass(frozen=True)
class Engine:
    """A running Docker Engine, its host and the neighbour."""

    folder: Path
    host: str
    """The network namespace of the host."""
    neighbour: str
    compose: tuple[str, ...]
    """The command of Compose."""

    def docker(self, *arguments: str, environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
        """Run a command of docker, and return what it printed; raises AssertionError with that if it fails."""
        return run(DOCKER, *arguments, environ={**self._environ, **(environ or {})}, cwd=cwd)

    def composed(self, site: Path, *arguments: str) -> str:
        """Run a command of Compose in a folder; raises AssertionError with what it printed if it fails."""
        return run(*self.compose, *arguments, environ=self._environ, cwd=site)

    def on_host(self, *command: str) -> str:
        """Run a command in the host's network."""
        return run(*within(self.host), *command)

    @property
    def _environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "COMPOSE_"))}
        here = {"DOCKER_HOST": f"unix://{self.folder}/docker.sock", "DOCKER_CONFIG": str(self.folder / "client")}
        return {**kept, **here, "DOCKER_BUILDKIT": "1"}


def within(namespace: str) -> tuple[str, ...]:
    """Return the command that runs another one in the network of a namespace; all other things are this machine's."""
    return ("nsenter", f"--net=/run/netns/{namespace}")


def run(*command: str, environ: Mapping[str, str] | None = None, cwd: Path | None = None, given: str = "") -> str:
    """Run a command, and return what it printed; raises AssertionError with the end of that if it fails."""
    done = subprocess.run(
        command,
        env=None if environ is None else dict(environ),
        cwd=cwd,
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"status {done.returncode} of {' '.join(command)}\n{done.stdout[-QUOTED:]}")
    return done.stdout


@contextmanager
def background(folder: Path, name: str, *command: str, cwd: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program beside the block, its output in the file NAME.log of the folder; end it with the block."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=cwd)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def docker_engine() -> Iterator[Engine]:
    """Run an engine until the block ends; raises Unavailable with the reason where that is impossible.

    All of it is in a temporary folder and in two network namespaces, so this machine's own network and firewall, and an
    engine that runs there, stay as they are.
    """
    install("docker.io", "docker-compose", "iptables", "iproute2", "mmdebstrap", "util-linux")
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="relay-docker-", dir="/tmp"))  # sockets have paths of 107 bytes at most
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            host, neighbour = stack.enter_context(_two_hosts())
        except AssertionError as error:
            raise Unavailable(f"this machine makes no network namespaces: {error}") from error
        engine = Engine(folder, host, neighbour, _compose())
        (folder / "client").mkdir()
        daemon = stack.enter_context(
            background(
                folder,
                "dockerd",
                *within(host),
                *("dockerd", "--host", f"unix://{folder}/docker.sock", "--pidfile", str(folder / "pid")),
                *("--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")),
                *("--bip", "10.98.0.1/24", "--storage-driver", "overlay2"),
            )
        )
        if not _answers(engine, daemon):
            end = (folder / "dockerd.log").read_text(errors="replace")[-QUOTED:]
            raise Unavailable(f"no Docker Engine starts here:\n{end}")
        stack.callback(_remove_containers, engine)
        _import_base(engine)
        yield engine


@contextmanager
def _two_hosts() -> Iterator[tuple[str, str]]:
    """Make the namespaces of the host and of its neighbour, and the link between them."""
    host, neighbour = f"relay{os.getpid()}h", f"relay{os.getpid()}n"
    with ExitStack() as stack:
        for name in (host, neighbour):
            run("ip", "netns", "add", name)
            stack.callback(run, "ip", "netns", "delete", name)
            run(*within(name), "ip", "link", "set", "lo", "up")
        run(
            "ip", "link", "add", "company", "netns", host, "type", "veth", "peer", "name", "company", "netns", neighbour
        )
        for name, address in ((host, HOST), (neighbour, MAIL)):
            run(*within(name), "ip", "address", "add", f"{address}/24", "dev", "company")
            run(*within(name), "ip", "link", "set", "company", "up")
        run(*within(neighbour), "ip", "address", "add", f"{INTERNET}/32", "dev", "lo")
        run(*within(host), "ip", "route", "add", "default", "via", MAIL)
        yield host, neighbour


def _compose() -> tuple[str, ...]:
    plugin = subprocess.run((DOCKER, "compose", "version"), capture_output=True, check=False)
    return (DOCKER, "compose") if plugin.returncode == 0 else ("docker-compose",)


def compose_file(engine: Engine, text: str) -> str:
    """Return docker-compose.yml as this Compose reads it: the first one, which Debian 12 has, knows no name in it."""
    first = "docker-compose version 1." in run(*engine.compose, "version")
    return text.replace("name: push-relay\n", "", 1) if first else text


def _answers(engine: Engine, daemon: "subprocess.Popen[bytes]") -> bool:
    def answered() -> bool:
        try:
            engine.docker("version")
        except AssertionError:
            return daemon.poll() is not None
        return True

    asyncio.run(until(answered))
    return daemon.poll() is None


def _remove_containers(engine: Engine) -> None:
    if containers := engine.docker("ps", "--all", "--quiet").split():
        engine.docker("rm", "--force", *containers)


def _import_base(engine: Engine) -> None:
    """Make the image that the others are built on of Debian's packages: registries of images are not needed."""
    suite = SUITES.get(sys.version_info[:2])
    if suite is None:
        raise Unavailable("the base image is Debian's: run on Python 3.11 or 3.13")
    root = engine.folder / "base.tar"
    packages = "--include=python3-venv,postgresql,haproxy"
    try:
        run("mmdebstrap", "--quiet", "--variant=minbase", packages, suite, str(root))
    except AssertionError as error:
        raise Unavailable(f"mmdebstrap made no {suite}: {error}") from error
    engine.docker("import", str(root), BASE)
    root.unlink()
