"""Zabbix of Debian's packages: server and frontend on a PostgreSQL of the tests, asked by the API of the frontend."""

import gzip
import itertools
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.interop.packages import install
from tests.interop.sogo.daemon import Daemon
from tests.ports import free_ports
from tests.postgres import PostgresServer

PACKAGES: Final = ("zabbix-server-pgsql", "zabbix-frontend-php", "php-cli", "php-pgsql")
FRONTEND: Final = Path("/usr/share/zabbix")
SCHEMA: Final = Path("/usr/share/zabbix-server-pgsql")
SETTINGS: Final = "/etc/zabbix/zabbix.conf.php"
"""Where Debian's frontend looks for its settings."""
SERVER: Final = """
ListenIP=127.0.0.1
ListenPort={port}
LogType=console
DBHost={database_folder}
DBName={database}
DBUser=postgres
SocketDir={folder}
PidFile={folder}/zabbix_server.pid
FpingLocation=/bin/true
CacheUpdateFrequency=1
StartPingers=0
StartDiscoverers=0
StartPollers=2
StartPollersUnreachable=1
StartTrappers=1
StartAlerters=1
StartEscalators=1
StartHTTPPollers=0
Timeout=5
AllowUnsupportedDBVersions=1
"""
PAGES: Final = """<?php
$DB = ['TYPE' => 'POSTGRESQL', 'SERVER' => '{database_folder}', 'PORT' => '0', 'DATABASE' => '{database}',
  'USER' => 'postgres', 'PASSWORD' => '', 'SCHEMA' => '', 'ENCRYPTION' => false, 'KEY_FILE' => '', 'CERT_FILE' => '',
  'CA_FILE' => '', 'VERIFY_HOST' => false, 'CIPHER_LIST' => '', 'VAULT_URL' => '', 'VAULT_DB_PATH' => '',
  'VAULT_TOKEN' => '', 'DOUBLE_IEEE754' => true];
$ZBX_SERVER_NAME = '';
$IMAGE_FORMAT_DEFAULT = IMAGE_FORMAT_PNG;
"""


class Refused(Exception):
    """What the API said instead of a result."""


class Zabbix:
    """The API of a running Zabbix, logged in as its administrator."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        """Ask by `session`; `url` is that of the API."""
        self._session = session
        self._url = url
        self._numbers = itertools.count(1)
        self._token: str | None = None

    async def log_in(self) -> None:
        """Log in with what the packages' data have."""
        self._token = await self.ask("user.login", username="Admin", password="zabbix")

    async def ask(self, method: str, **parameters: Any) -> Any:
        """Return the result of a method; raises Refused."""
        body = {"jsonrpc": "2.0", "method": method, "params": parameters, "id": next(self._numbers)}
        if self._token is not None:
            body["auth"] = self._token
        async with self._session.post(self._url, json=body) as response:
            answer: Mapping[str, Any] = await response.json(content_type=None)
        if "error" in answer:
            raise Refused(f"{method}: {answer['error']['message']} {answer['error']['data']}")
        return answer["result"]


@asynccontextmanager
async def zabbix(postgres: PostgresServer) -> AsyncIterator[Zabbix]:
    """Run server and frontend; yield the API. Raises Unavailable."""
    install(*PACKAGES)
    directory = postgres.socket.parent
    database, account = await postgres.create(), directory.owner()
    for file in ("schema.sql.gz", "images.sql.gz", "data.sql.gz"):
        await postgres.execute(gzip.decompress((SCHEMA / file).read_bytes()).decode(), database)
    with tempfile.TemporaryDirectory(prefix="zabbix") as name:
        folder, (server_port, page_port) = Path(name), free_ports(2)
        known = {"port": str(server_port), "folder": name, "database": database, "database_folder": str(directory)}
        pages = _lay_out(folder, known)
        server = Daemon(
            "zabbix_server",
            lambda _: None,
            ("zabbix_server", "-f", "-c", str(folder / "zabbix_server.conf")),
            folder / "server.log",
            folder,
            server_port,
            account=account,
        )
        frontend = Daemon(
            "php",
            lambda _: None,
            ("php", "-S", f"127.0.0.1:{page_port}", "-t", str(pages)),
            folder / "pages.log",
            folder,
            page_port,
            account=account,
        )
        try:
            server.start()
            frontend.start()
            async with aiohttp.ClientSession() as session:
                api = Zabbix(session, f"http://127.0.0.1:{page_port}/api_jsonrpc.php")
                await api.log_in()
                yield api
        finally:
            frontend.stop()
            server.stop()
            await postgres.drop(database)


def _lay_out(folder: Path, known: Mapping[str, str]) -> Path:
    """Write the settings of server and frontend; return the folder of the pages."""
    folder.chmod(0o777)
    (folder / "zabbix_server.conf").write_text(_filled(SERVER, known))
    pages = folder / "pages"
    shutil.copytree(FRONTEND, pages, symlinks=True)
    (pages / "zabbix.conf.php").write_text(_filled(PAGES, known))
    paths = pages / "include/classes/core/CConfigFile.php"
    paths.write_text(paths.read_text().replace(SETTINGS, str(pages / "zabbix.conf.php")))
    return pages


def _filled(text: str, known: Mapping[str, str]) -> str:
    """Put values in place of {names}; other braces stay."""
    return re.sub(r"\{([a-z_]+)\}", lambda found: known[found[1]], text)
