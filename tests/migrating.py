"""Databases as this version of the relay makes them, and as an older one left them."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from relay.store import migrate
from relay.store.engine import Database, open_database

_NEW: Final[list[bytes]] = []
"""The file of a new database, once a test of this process needed one: migrations take some 130 ms of CPU."""


async def write_new_sqlite(file: Path) -> str:
    """Write a new database as the migrations leave it; return its URL."""
    if not _NEW:
        with TemporaryDirectory() as folder:
            template = Path(folder) / "template.db"
            async with open_database(f"sqlite:///{template}") as engine:
                await migrate.upgrade(engine)
            _NEW.append(template.read_bytes())
    return _write(file, _NEW[0])


def _write(file: Path, content: bytes) -> str:
    file.touch(mode=0o600)
    file.write_bytes(content)
    return f"sqlite:///{file}"


async def migrate_to(engine: Database, revision: str) -> None:
    """Run the migrations up to one of them."""

    def upgrade(connection: sa.Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(migrate.__file__).with_name("migrations")))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    await engine.run(upgrade)
