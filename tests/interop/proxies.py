"""HTTP proxies of other projects, tinyproxy and Squid from Debian's packages, each configured to serve some clients."""

import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relay.sandbox.certificates import ThrowAwayCa
from tests.interop.kerberos.realm import REALM, Realm
from tests.interop.packages import install
from tests.interop.sogo.daemon import Daemon
from tests.ports import free_port, free_ports
from tests.site import ANN, Site, open_site
from tests.site import PASSWORD as MAIL_PASSWORD

USER: Final = "push-relay"
PASSWORD: Final = "correct-horse-7"
TINYPROXY_TARGET: Final = re.compile(r"Request .*CONNECT (\S+:\d+) HTTP", re.MULTILINE)
SQUID_TARGET: Final = re.compile(r"(\S+)/(\d{3}) \d+ CONNECT (\S+:\d+) ", re.MULTILINE)
MICROSOCKS_TARGET: Final = re.compile(r"connected to (\S+:\d+)", re.MULTILINE)
DANTE_TARGET: Final = re.compile(r"pass\(\d+\): tcp/connect \[: (.*)$", re.MULTILINE)

_BASIC: Final = """\
auth_param basic program /usr/lib/squid/basic_ncsa_auth {passwords}
auth_param basic realm Staff, and the relay
auth_param basic children 1 startup=1"""
_NEGOTIATE: Final = """\
auth_param negotiate program /usr/lib/squid/negotiate_kerberos_auth -k {keytab} -s HTTP/localhost@{realm}
auth_param negotiate children 2 startup=1
auth_param negotiate keep_alive on"""


@dataclass
class RealProxy:
    """A proxy: the daemon, its ports, and its log of clients."""

    daemon: Daemon
    port: int
    access_log: Path
    target: re.Pattern[str]
    tls_port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def pause(self) -> None:
        """Stop the process: the kernel accepts connections for it, and they get no answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue the process."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        process = self.daemon._process
        assert process is not None
        process.send_signal(number)

    @property
    def targets(self) -> list[str]:
        """Return the hosts and ports to which tunnels were opened, from the proxy's own log."""
        text = self.access_log.read_text() if self.access_log.exists() else ""
        found = self.target.findall(text)
        return [place for _, status, place in found if status == "200"] if self.target is SQUID_TARGET else found


@contextmanager
def tinyproxy(
    ports: Sequence[int], *, user: bool = True, clients: Sequence[str] = ("127.0.0.1",)
) -> Iterator[RealProxy]:
    """Run a tinyproxy that opens tunnels to some ports (to all if none is given), for some client addresses."""
    install("tinyproxy-bin")
    with folder_of_all() as folder:
        port, log = free_port(), folder / "tinyproxy.log"
        lines = [f"Port {port}", "Timeout 600", "MaxClients 50", f'LogFile "{log}"', "LogLevel Connect"]
        lines += [f"Allow {client}" for client in clients]
        lines += [f"ConnectPort {target}" for target in ports]
        lines += [f"BasicAuth {USER} {PASSWORD}"] if user else []
        file = folder / "tinyproxy.conf"
        file.write_text("\n".join(lines) + "\n")
        command = ("tinyproxy", "-d", "-c", str(file))
        daemon = Daemon("tinyproxy", lambda _: None, command, folder / "tinyproxy.out", folder, port)
        daemon.start()
        try:
            yield RealProxy(daemon, port, log, TINYPROXY_TARGET)
        finally:
            daemon.stop(kill=True)  # whether it is stopped or not


@contextmanager
def squid(ca: ThrowAwayCa, realm: Realm | None = None) -> Iterator[RealProxy]:
    """Run a Squid that opens tunnels for clients with the password, with TLS on a second port.

    With a realm clients show tickets to HTTP/localhost instead.
    """
    install("squid", "openssl")
    with folder_of_all() as folder:
        port, tls_port = free_ports(2)
        certificate, passwords = folder / "squid.pem", folder / "passwords"
        certificate.write_bytes(ca.server_pem())
        hashed = subprocess.run(
            ("openssl", "passwd", "-apr1", "-stdin"), input=PASSWORD, capture_output=True, text=True, check=True
        ).stdout
        passwords.write_text(f"{USER}:{hashed}")
        scheme, environment = _BASIC.format(passwords=passwords), dict[str, str]()
        if realm is not None:
            shutil.copy(realm.keytab("proxy"), folder / "proxy.keytab")
            shutil.copy(realm.krb5_conf, folder / "krb5.conf")
            scheme = _NEGOTIATE.format(keytab=folder / "proxy.keytab", realm=REALM)
            environment["KRB5_CONFIG"] = str(folder / "krb5.conf")
        file = folder / "squid.conf"
        file.write_text(f"""
http_port 127.0.0.1:{port}
https_port 127.0.0.1:{tls_port} tls-cert={certificate}
{scheme}
acl staff proxy_auth REQUIRED
http_access allow staff
http_access deny all
access_log stdio:{folder}/access.log
cache_log {folder}/cache.log
cache deny all
pid_filename {folder}/squid.pid
coredump_dir {folder}
shutdown_lifetime 1 seconds
""")
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, "proxy", "proxy")
        command = ("squid", "-N", "-f", str(file))
        daemon = Daemon("squid", lambda _: None, command, folder / "squid.out", folder, port, "proxy")
        daemon.environment.update(environment)
        daemon.start()
        try:
            yield RealProxy(daemon, port, folder / "access.log", SQUID_TARGET, tls_port)
        finally:
            daemon.stop()


@asynccontextmanager
async def site_behind(proxy: RealProxy, folder: Path, table: str, **more: str) -> AsyncIterator[Site]:
    """Open a site whose relay uses a proxy for what a table of relay.toml is about, e.g. NETWORK."""
    password = folder / "proxy.password"
    password.write_text(f"{PASSWORD}\n")
    password.chmod(0o600)
    environ = {
        f"RELAY__{table}__PROXY": proxy.url,
        f"RELAY__{table}__PROXY_USER": USER,
        f"RELAY__{table}__PROXY_PASSWORD_FILE": str(password),
        **more,
    }
    async with open_site(folder / "sandbox", environ) as site:
        site.sandbox.eas.add_mailbox(ANN, MAIL_PASSWORD)
        yield site


@contextmanager
def folder_of_all() -> Iterator[Path]:
    """Make a folder that other accounts may enter."""
    with tempfile.TemporaryDirectory(prefix="proxy") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
