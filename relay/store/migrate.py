"""The upgrade of the schema: which migrations a database lacks, and how they run.

Each start asks whether some are missing, and hardly any start runs one, so Alembic is loaded only to run them.
"""

from pathlib import Path
from typing import Final

import sqlalchemy as sa

from relay.domain.errors import RowsForbidden, SchemaNewer
from relay.store.engine import Database, refusals

_ONE_AT_A_TIME: Final = 0x52_45_4C_41_59  # "RELAY": the advisory lock under which processes upgrade PostgreSQL
_SCRIPTS: Final = Path(__file__).with_name("migrations")
_APPLIED: Final = sa.table("alembic_version", sa.column("version_num"))
"""Where Alembic notes the newest revision that a database has."""


async def upgrade(database: Database) -> None:
    """Bring the database to the newest schema, in one transaction; does nothing when it is there.

    Raises StoreUnavailable, DatabaseRefuses, RowsForbidden, SchemaNewer.
    """
    with refusals():  # this is the first transaction of a process, so here shows what is wrong with the settings
        await database.run(_upgrade)


async def pending(database: Database) -> bool:
    """Return whether the database lacks migrations; raises StoreUnavailable, DatabaseRefuses, SchemaNewer."""
    with refusals():
        return await database.run(_pending)


def _upgrade(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ONE_AT_A_TIME)))
    if not _pending(connection):
        return
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise RowsForbidden(str(error)) from error


def _pending(connection: sa.Connection) -> bool:
    known = revisions()
    present: set[str] = set()
    if sa.inspect(connection).has_table(_APPLIED.name):
        present = set(connection.execute(sa.select(_APPLIED.c.version_num)).scalars())
    if present - set(known):
        raise SchemaNewer
    return present != {known[-1]}


def revisions() -> list[str]:
    """Return the revisions of this version, oldest first; each file is named after its own, as in `0001_first.py`."""
    return sorted(path.name.partition("_")[0] for path in (_SCRIPTS / "versions").glob("[0-9]*_*.py"))
