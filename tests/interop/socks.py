"""SOCKS5 proxies of other projects: Dante and microsocks from Debian's packages."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.interop.packages import install
from tests.interop.proxies import DANTE_TARGET, MICROSOCKS_TARGET, PASSWORD, USER, RealProxy, folder_of_all
from tests.interop.sogo.daemon import Daemon
from tests.ports import free_port


@contextmanager
def microsocks() -> Iterator[RealProxy]:
    """Run a microsocks that serves clients with the password."""
    install("microsocks")
    with folder_of_all() as folder:
        port, log = free_port(), folder / "microsocks.out"
        command = ("microsocks", "-i", "127.0.0.1", "-p", str(port), "-u", USER, "-P", PASSWORD)
        daemon = Daemon("microsocks", lambda _: None, command, log, folder, port)
        daemon.start()
        try:
            yield RealProxy(daemon, port, log, MICROSOCKS_TARGET)
        finally:
            daemon.stop(kill=True)


@contextmanager
def dante(blocked_port: int) -> Iterator[RealProxy]:
    """Run a Dante that serves every client of this host, but for one port."""
    install("dante-server")
    with folder_of_all() as folder:
        port, log = free_port(), folder / "danted.log"
        file = folder / "danted.conf"
        file.write_text(f"""
logoutput: {log}
internal: 127.0.0.1 port = {port}
external: lo
socksmethod: none
user.privileged: root
user.unprivileged: nobody
client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
socks block {{ from: 0.0.0.0/0 to: 0.0.0.0/0 port = {blocked_port} log: connect }}
socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 log: connect }}
""")
        command = ("danted", "-f", str(file), "-p", str(folder / "danted.pid"))
        daemon = Daemon("danted", lambda _: None, command, folder / "danted.out", folder, port)
        daemon.start()
        try:
            yield RealProxy(daemon, port, log, DANTE_TARGET)
        finally:
            daemon.stop()
