"""Own the upgrade of the schema: which migrations a database lacks, and how they run."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from relay.domain.errors import DatabaseRefuses, SchemaNewer
from relay.store.engine import transaction

_ONE_AT_A_TIME: Final = 0x52_45_4C_41_59  # "RELAY": the advisory lock under which processes upgrade PostgreSQL
_SCRIPTS: Final = Path(__file__).with_name("migrations")


async def upgrade(engine: AsyncEngine) -> None:
    """Bring the database to the newest schema, in one transaction; does nothing when it is there.

    Raises StoreUnavailable, DatabaseRefuses, SchemaNewer.
    """
    async with _connected(engine) as connection:
        if engine.dialect.name == "postgresql":
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ONE_AT_A_TIME)))
        await connection.run_sync(_upgrade)


async def pending(engine: AsyncEngine) -> bool:
    """Tell whether the database lacks migrations; raises StoreUnavailable, DatabaseRefuses, SchemaNewer."""
    async with _connected(engine) as connection:
        return await connection.run_sync(_pending)


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Run a transaction; this is the first that a process does, so here shows what is wrong with the settings."""
    try:
        async with transaction(engine) as connection:
            yield connection
    except DBAPIError as error:
        cause = error.orig and (error.orig.__cause__ or error.orig)
        raise DatabaseRefuses(str(cause)) from error


def _config(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: sa.Connection) -> None:
    if _pending(connection):
        command.upgrade(_config(connection), "head")


def _pending(connection: sa.Connection) -> bool:
    scripts = ScriptDirectory.from_config(_config(connection))
    present = set(MigrationContext.configure(connection).get_current_heads())
    if present - {script.revision for script in scripts.walk_revisions()}:
        raise SchemaNewer
    return present != set(scripts.get_heads())
