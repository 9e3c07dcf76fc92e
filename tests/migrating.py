"""Databases as an older version of the relay left them."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from relay.store import migrate
from relay.store.engine import Database


async def migrate_to(engine: Database, revision: str) -> None:
    """Run the migrations up to one of them."""

    def upgrade(connection: sa.Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(migrate.__file__).with_name("migrations")))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    await engine.run(upgrade)
