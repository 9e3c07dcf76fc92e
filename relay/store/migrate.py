"""The upgrade of the schema: which migrations a database lacks, and how they run.

Each start asks whether some are missing, and hardly any start runs one, so Alembic is loaded only to run them.
"""

from enum import StrEnum
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from relay.domain.errors import DatabaseMoved, RowsForbidden, SchemaNewer
from relay.store.engine import Database, refusals
from relay.store.tables import metadata

_ONE_AT_A_TIME: Final = 0x52_45_4C_41_59  # "RELAY": the advisory lock under which processes upgrade PostgreSQL
_SCRIPTS: Final = Path(__file__).with_name("migrations")
_APPLIED: Final = sa.table("alembic_version", sa.column("version_num"))
"""Where Alembic notes the newest revision that a database has."""


class Leaving(StrEnum):
    """Whether the content of a database is taken elsewhere: what stands before its revision.

    No version of the relay knows such a revision, so none starts on the database.
    """

    NO = ""
    UNDER_WAY = "moving "
    DONE = "moved "


async def upgrade(database: Database) -> None:
    """Bring the database to the newest schema, in one transaction; does nothing when it is there.

    Raises StoreUnavailable, DatabaseMoved, DatabaseRefuses, RowsForbidden, SchemaNewer.
    """
    with refusals():  # this is the first transaction of a process, so here shows what is wrong with the settings
        await database.run(_upgrade)


async def pending(database: Database) -> bool:
    """Return whether the database lacks migrations.

    Raises StoreUnavailable, DatabaseMoved, DatabaseRefuses, SchemaNewer.
    """
    with refusals():
        return await database.run(_pending)


def _upgrade(connection: sa.Connection) -> None:
    one_at_a_time(connection)
    if _pending(connection):
        upgrade_to(connection, "head")


def one_at_a_time(connection: sa.Connection) -> None:
    """Let no other process change the schema before this transaction ends; SQLite has one writer at a time."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ONE_AT_A_TIME)))


def upgrade_to(connection: sa.Connection, revision: str) -> None:
    """Run the migrations up to one of them, or to the "head"; raises RowsForbidden."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise RowsForbidden(str(error)) from error


def _pending(connection: sa.Connection) -> bool:
    revision, leaving = revision_of(connection)
    if leaving:
        raise DatabaseMoved
    return revision != revisions()[-1]


def revision_of(connection: sa.Connection) -> tuple[str | None, Leaving]:
    """Return the newest revision that a database has, None without tables, and whether it is or was moved elsewhere.

    Raises SchemaNewer for a revision of a newer version.
    """
    if not sa.inspect(connection).has_table(_APPLIED.name):
        return None, Leaving.NO
    noted: str | None = connection.scalar(sa.select(_APPLIED.c.version_num))
    if noted is None:
        return None, Leaving.NO
    leaving = next(each for each in reversed(Leaving) if noted.startswith(each))
    revision = noted.removeprefix(leaving)
    if revision not in revisions():
        raise SchemaNewer
    return revision, leaving


def set_leaving(connection: sa.Connection, leaving: Leaving) -> None:
    """Note of a database whether its content is taken elsewhere."""
    revision, _ = revision_of(connection)
    connection.execute(sa.update(_APPLIED).values(version_num=f"{leaving}{revision}"))


def lock_revision(connection: sa.Connection) -> None:
    """Keep processes from starting before this transaction ends: each start reads the revision."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text(f"LOCK TABLE {_APPLIED.name} IN ACCESS EXCLUSIVE MODE"))


def drop_tables(connection: sa.Connection) -> None:
    """Remove all tables of the relay, with all that they hold."""
    present = set(sa.inspect(connection).get_table_names())
    for name in (*(table.name for table in reversed(metadata.sorted_tables)), _APPLIED.name):
        if name in present:
            connection.execute(sa.schema.DropTable(sa.Table(name, sa.MetaData())))


def revisions() -> list[str]:
    """Return the revisions of this version, oldest first; each file is named after its own, as in `0001_first.py`."""
    return sorted(path.name.partition("_")[0] for path in (_SCRIPTS / "versions").glob("[0-9]*_*.py"))
