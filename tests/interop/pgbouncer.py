"""PgBouncer of Debian's packages before the PostgreSQL of the tests."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.interop.packages import install
from tests.interop.sogo.daemon import Daemon
from tests.ports import free_port
from tests.postgres import PostgresServer

USERS = ("postgres", "relay_api", "relay_watch", "relay_push")


@contextmanager
def pgbouncer(server: PostgresServer, pool_mode: str, *settings: str) -> Iterator[int]:
    """Run a pooler before all databases of a server; yield its port."""
    install("pgbouncer")
    directory = server.socket.parent
    with tempfile.TemporaryDirectory(prefix="pgbouncer") as name:
        folder, port = Path(name), free_port()
        folder.chmod(0o755)
        users, file, log = folder / "users.txt", folder / "pgbouncer.ini", folder / "pgbouncer.log"
        users.write_text("".join(f'"{user}" ""\n' for user in USERS))
        lines = [
            *(
                "[databases]",
                f"* = host={directory}",
                "[pgbouncer]",
                "listen_addr = 127.0.0.1",
                f"listen_port = {port}",
            ),
            *("unix_socket_dir =", "auth_type = trust", f"auth_file = {users}", f"pool_mode = {pool_mode}", *settings),
        ]
        file.write_text("\n".join(lines) + "\n")
        # Only the account that owns the server's folder may enter it.
        command, account = ("pgbouncer", str(file)), directory.owner()
        daemon = Daemon("pgbouncer", lambda _: None, command, log, folder, port, account=account)
        daemon.start()
        try:
            yield port
        finally:
            daemon.stop()


def url(port: int, database: str, user: str = "postgres") -> str:
    return f"postgresql://{user}@127.0.0.1:{port}/{database}"
