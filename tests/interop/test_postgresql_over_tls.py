"""A PostgreSQL of Debian's that accepts only TLS with a password, as one on another host should."""

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from relay.sandbox.certificates import ThrowAwayCa
from tests.interop.packages import Unavailable, install, unavailable
from tests.interop.sogo.daemon import Daemon
from tests.interop.sogo.database import program
from tests.ports import free_port
from tests.site import ANN, PASSWORD, open_site, troubles
from tests.waiting import SOON

OWNER = "relay"
DATABASE_PASSWORD = "correct horse: 7!"


@dataclass(frozen=True)
class Database:
    port: int
    ca: Path
    other_ca: Path

    def url(self, host: str = "localhost") -> str:
        return f"postgresql://{OWNER}@{host}:{self.port}/postgres"


def as_postgres(*command: str) -> None:
    account = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--reset-env", "--")
    subprocess.run((*account, *command), cwd="/", check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    try:
        install("postgresql")
    except Unavailable as reason:
        unavailable(reason)
    cas = tmp_path_factory.mktemp("cas")
    ca = ThrowAwayCa()
    ca.write_ca(cas / "ca.pem")
    ThrowAwayCa("Another").write_ca(cas / "other.pem")
    with tempfile.TemporaryDirectory(prefix="postgresql") as name:
        folder = Path(name)
        shutil.chown(folder, "postgres", "postgres")
        data = folder / "data"
        password = folder / "password"
        password.write_text(f"{DATABASE_PASSWORD}\n")
        password.chmod(0o644)
        as_postgres(
            *(program("initdb"), "-D", str(data), "-U", OWNER, "-E", "UTF8", "--locale=C", "-N"),
            *("-A", "scram-sha-256", f"--pwfile={password}"),
        )
        (data / "server.pem").write_bytes(ca.server_pem())
        (data / "server.pem").chmod(0o600)
        shutil.chown(data / "server.pem", "postgres", "postgres")
        (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.0/8 scram-sha-256\n")
        port = free_port()
        with (data / "postgresql.conf").open("a") as configuration:
            configuration.write(
                f"port = {port}\nlisten_addresses = '127.0.0.1, 127.0.0.2'\nunix_socket_directories = ''\n"
                "ssl = on\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.pem'\nfsync = off\n"
            )
        command = (program("postgres"), "-D", str(data))
        daemon = Daemon("postgres", lambda _: None, command, folder / "log", folder, port, account="postgres")
        daemon.start()
        try:
            yield Database(port, cas / "ca.pem", cas / "other.pem")
        finally:
            daemon.stop()


async def migrate(toml: Path, environ: dict[str, str]) -> tuple[int, str]:
    """Run `relay migrate`; return its exit status and its output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", "migrate", "--config", str(toml), "--role", "push"),
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def test_the_relay_runs_on_a_postgresql_that_it_verifies(database: Database, tmp_path: Path) -> None:
    password = tmp_path / "database.password"
    password.write_text(f"{DATABASE_PASSWORD}\n")
    password.chmod(0o600)
    environ = {
        "RELAY__DATABASE__URL": database.url(),
        "RELAY__DATABASE__PASSWORD_FILE": str(password),
        "RELAY__DATABASE__CA_FILE": str(database.ca),
    }
    async with open_site(tmp_path / "sandbox", environ) as site:
        site.sandbox.eas.add_mailbox(ANN, PASSWORD)
        toml = site.sandbox.toml

        for wrong in (
            {"RELAY__DATABASE__CA_FILE": str(database.other_ca)},
            {"RELAY__DATABASE__URL": database.url("127.0.0.2")},  # the certificate has another name
        ):
            status, said = await migrate(toml, environ | wrong)
            assert status == 1
            assert "certificate verify failed" in said
            assert DATABASE_PASSWORD not in said
        status, said = await migrate(toml, environ)
        assert (status, said) == (0, "the database has the schema of this version\n")

        async with site.relay() as relay:
            assert (await site.register())[0] == 201
            await site.held()
            site.deliver()
            assert [push.status for push in await site.sandbox.apns.wait(1, SOON)] == [200]
            assert await troubles(relay) == []
