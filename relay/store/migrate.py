"""Own the upgrade of the schema: which migrations a database lacks, and how they run."""

from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncEngine

from relay.store.engine import transaction

_ONE_AT_A_TIME: Final = 0x52_45_4C_41_59  # "RELAY": the advisory lock under which processes upgrade PostgreSQL
_SCRIPTS: Final = Path(__file__).with_name("migrations")


async def upgrade(engine: AsyncEngine) -> None:
    """Bring the database to the newest schema, in one transaction; does nothing when it is there.

    Raises StoreUnavailable, and alembic's CommandError for a database that a newer relay upgraded.
    """
    async with transaction(engine) as connection:
        if engine.dialect.name == "postgresql":
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ONE_AT_A_TIME)))
        await connection.run_sync(_upgrade)


async def pending(engine: AsyncEngine) -> bool:
    """Tell whether the database lacks migrations; raise StoreUnavailable."""
    async with transaction(engine) as connection:
        return await connection.run_sync(_pending)


def _config(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: sa.Connection) -> None:
    command.upgrade(_config(connection), "head")


def _pending(connection: sa.Connection) -> bool:
    scripts = ScriptDirectory.from_config(_config(connection))
    return set(MigrationContext.configure(connection).get_current_heads()) != set(scripts.get_heads())
