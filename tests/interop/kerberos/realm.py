"""The common parts of both kinds of KDC: a realm on loopback, its krb5.conf and keytabs, and an accepting server."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.interop.sogo.daemon import Daemon
from tests.interop.sogo.undertaker import undertaker
from tests.ports import free_port

REALM: Final = "EXAMPLE.COM"
RELAY: Final = f"push-relay@{REALM}"
MAIL: Final = f"HTTP/mail.example.com@{REALM}"
PROXY: Final = f"HTTP/localhost@{REALM}"
PATIENCE: Final = 120.0  # seconds for one administrative command; the slowest, a new domain, takes 20

_KRB5_CONF: Final = """\
[libdefaults]
default_realm = {realm}
forwardable = {forwardable}
dns_lookup_kdc = false
dns_lookup_realm = false
dns_canonicalize_hostname = false
rdns = false
[realms]
{realm} = {{
  kdc = 127.0.0.1:{port}
}}
"""


@dataclass
class Realm:
    """A running KDC."""

    folder: Path
    port: int
    daemon: Daemon

    @property
    def krb5_conf(self) -> Path:
        """The file from which clients learn its address."""
        return self.folder / "krb5.conf"

    def keytab(self, name: str) -> Path:
        return self.folder / f"{name}.keytab"


def write_krb5_conf(path: Path, port: int, *, forwardable: bool = True) -> None:
    path.write_text(_KRB5_CONF.format(realm=REALM, port=port, forwardable=str(forwardable).lower()))


def run(command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    """Run an administrative command; raises AssertionError with its output when it fails."""
    done = subprocess.run(
        command,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]}: {done.stdout[-2000:]}"
    return done.stdout


@contextmanager
def running(make: Callable[[Path, int], Sequence[str]], environment: dict[str, str]) -> Iterator[Realm]:
    """Run a KDC in a folder of its own; `make` fills the folder and returns the command. The KDC is always ended."""
    state = Path(tempfile.mkdtemp(prefix="relay-kdc-"))
    try:
        with undertaker(state, keep=True) as watching:
            port = free_port()
            command = make(state, port)
            daemon = Daemon("KDC", watching.watch, command, state / "kdc.log", state, port, environment=environment)
            write_krb5_conf(state / "krb5.conf", port)
            daemon.start()
            try:
                yield Realm(state, port, daemon)
            finally:
                daemon.stop()
    finally:
        shutil.rmtree(state)
