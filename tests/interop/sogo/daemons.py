"""The daemons of the server, and the start of each."""

import signal
from collections.abc import Callable
from enum import StrEnum

from tests.interop.sogo.configuration import Layout, Ports, Settings, sogod_arguments
from tests.interop.sogo.daemon import Daemon
from tests.interop.sogo.database import program


class Service(StrEnum):
    """The daemons, in the order of their start."""

    POSTGRES = "postgres"
    MEMCACHED = "memcached"
    DOVECOT = "dovecot"
    SOGOD = "sogod"
    NGINX = "nginx"


def build_daemon(
    service: Service, layout: Layout, ports: Ports, settings: Settings, started: Callable[[int], None]
) -> Daemon:
    """Return the daemon of a service; it calls `started` with the pid of every start."""
    log, run, conf = layout.log / f"{service}.out", layout.run, layout.conf
    command: tuple[str, ...]
    match service:
        case Service.POSTGRES:
            command = (program("postgres"), "-D", str(layout.postgres))
            # SIGINT is the fast way to end: without waiting for clients [PostgreSQL: Shutting Down the Server].
            return Daemon(service, started, command, log, run, ports.postgres, account="postgres", term=signal.SIGINT)
        case Service.MEMCACHED:
            command = ("memcached", "-l", "127.0.0.1", "-p", str(ports.memcached), "-U", "0", "-m", "32")
            return Daemon(service, started, command, log, run, ports.memcached, account="sogo")
        case Service.DOVECOT:
            command = ("dovecot", "-F", "-c", str(conf / "dovecot.conf"))
            return Daemon(service, started, command, log, run, ports.imap)
        case Service.SOGOD:
            command = ("sogod", *sogod_arguments(layout, ports, settings))
            # A worker that has served one ActiveSync request ignores SIGTERM for good, though it then ends the Ping
            # that it holds: waiting longer gains nothing [observed: SOGo 5.8, 2026-11].
            home = {"HOME": str(run / "sogod")}
            return Daemon(service, started, command, log, run, ports.sogod, account="sogo", grace=3.0, environment=home)
        case Service.NGINX:
            command = ("nginx", "-c", str(conf / "nginx.conf"), "-e", "stderr")
            return Daemon(service, started, command, log, run, ports.https)
