"""The server's files, ports and configuration."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

import trustme

from tests.ports import free_ports

TEMPLATES: Final = Path(__file__).parent / "templates"
MAX_WORKERS: Final = 64  # some 10 MB each
WATCHDOG_SPARE: Final = 5  # minutes; a Ping is held slightly longer than it asks for


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that tests may change.

    `workers` is how many requests are served at a time, and every held Ping is one. `max_heartbeat` is in seconds.
    `debug` logs every decoded request and answer.
    """

    workers: int = 24
    max_heartbeat: int = 3540
    debug: bool = False
    queue: int = 512
    """How many connections wait for a worker; SOGo's own default is 5."""
    connect_patience: int = 30
    """Seconds after which nginx answers 504 to a request that finds no place in the queue; its own default is 60."""

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= MAX_WORKERS:
            raise ValueError(f"workers must be from 1 to {MAX_WORKERS}")


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of the daemons on 127.0.0.1."""

    https: int
    sogod: int
    imap: int
    memcached: int
    postgres: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The parts of the state directory. The daemons run under accounts of their own, so every account may enter it."""

    state: Path

    @property
    def conf(self) -> Path:
        """The folder of the configuration files."""
        return self.state / "conf"

    @property
    def run(self) -> Path:
        """The folder of sockets, pid files and spools."""
        return self.state / "run"

    @property
    def log(self) -> Path:
        """The folder of the daemons' logs, by name."""
        return self.state / "log"

    @property
    def mail(self) -> Path:
        """The folder of the users' Maildirs, by name."""
        return self.state / "mail"

    @property
    def postgres(self) -> Path:
        """The folder of the database cluster."""
        return self.state / "postgres"

    @property
    def ca_file(self) -> Path:
        """The certificate authority that clients must trust, as PEM."""
        return self.conf / "ca.pem"


def choose_ports() -> Ports:
    """Return ports that are free now; another process may bind them first."""
    return Ports(*free_ports(5))


def make_state() -> Layout:
    """Make an empty state directory with the folders that the daemons expect.

    It is short and always below /tmp: the sockets in it may have 107 characters, and every account must get there.
    """
    layout = Layout(Path(tempfile.mkdtemp(prefix="relay-sogo-", dir="/tmp")))
    _make(layout.state)
    for path in (layout.conf, layout.run, layout.log, layout.run / "dovecot", layout.run / "nginx"):
        _make(path)
    _make(layout.mail, "mail")
    _make(layout.run / "sogod", "sogo")
    _make(layout.postgres, "postgres", 0o700)
    return layout


def write_configuration(layout: Layout, ports: Ports, settings: Settings) -> None:
    """Write the configuration files of Dovecot and nginx, and certificates."""
    values = values_of(layout, ports, settings)
    for name in ("dovecot.conf", "nginx.conf"):
        (layout.conf / name).write_text(render(name, values))
    (layout.log / "dovecot.log").touch()
    (layout.log / "dovecot.log").chmod(0o666)  # dovecot-lda writes it too, as mail
    authority = trustme.CA()
    authority.cert_pem.write_to_path(layout.ca_file)
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        layout.conf / "server.pem"
    )


def sogod_arguments(layout: Layout, ports: Ports, settings: Settings) -> list[str]:
    """Return sogod's arguments."""
    lines = render("sogod.arguments", values_of(layout, ports, settings)).splitlines()
    return [word for line in lines if not line.startswith("#") for word in line.split(" ", 1)]


def values_of(layout: Layout, ports: Ports, settings: Settings) -> Mapping[str, str]:
    """Return the values for the templates."""
    minutes = settings.max_heartbeat // 60 + WATCHDOG_SPARE
    return {
        "conf": str(layout.conf),
        "run": str(layout.run),
        "log": str(layout.log),
        "mail": str(layout.mail),
        "https_port": str(ports.https),
        "sogod_port": str(ports.sogod),
        "imap_port": str(ports.imap),
        "memcached_port": str(ports.memcached),
        "postgres_port": str(ports.postgres),
        "database": f"postgresql://sogo:sogo@127.0.0.1:{ports.postgres}/sogo",
        "workers": str(settings.workers),
        "max_heartbeat": str(settings.max_heartbeat),
        "watchdog_minutes": str(minutes),
        "queue": str(settings.queue),
        "connect_patience": str(settings.connect_patience),
        "proxy_patience": str(minutes * 60),
        "debug": "YES" if settings.debug else "NO",
    }


def render(name: str, values: Mapping[str, str]) -> str:
    """Fill in a template; raises KeyError for a missing value."""
    return Template((TEMPLATES / name).read_text()).substitute(values)


def _make(path: Path, owner: str = "root", mode: int = 0o755) -> None:
    path.mkdir(exist_ok=True)
    path.chmod(mode)
    shutil.chown(path, owner, owner)
