"""Test that migrations lead to the very schema that the statements are written for."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncEngine

from relay.domain.errors import DatabaseRefuses, SchemaNewer
from relay.store import migrate
from relay.store.engine import open_engine
from relay.store.tables import metadata, shard
from tests.postgres import PostgresServer


@pytest.fixture
def postgres_url(fresh_postgres_url: str) -> str:
    return fresh_postgres_url


def _differences(connection: sa.Connection) -> list[Any]:
    # SQLite tells the default '' in another spelling than it was given.
    defaults = connection.dialect.name == "postgresql"
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": defaults})
    return list(compare_metadata(context, metadata))


async def test_the_migrated_schema_is_the_one_of_the_tables(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        assert await connection.run_sync(_differences) == []


async def test_a_missing_column_would_be_noticed(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(sa.text("ALTER TABLE node DROP COLUMN role"))
        assert await connection.run_sync(_differences) != []


async def test_a_new_database_has_shards_without_owners(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        rows = (await connection.execute(sa.select(shard).order_by(shard.c.number))).all()

    assert [tuple(row) for row in rows] == [(number, None, 0, None) for number in range(256)]


def test_files_of_migrations_are_named_after_their_revisions() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).with_name("migrations")))
    chain = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]

    assert migrate.revisions() == chain[::-1]


async def test_upgrading_again_changes_nothing(engine: AsyncEngine) -> None:
    assert not await migrate.pending(engine)
    await migrate.upgrade(engine)
    assert not await migrate.pending(engine)


async def test_a_new_file_lacks_migrations(tmp_path: Path) -> None:
    async with open_engine(f"sqlite:///{tmp_path / 'new%20.db'}") as engine:
        assert await migrate.pending(engine)
        await migrate.upgrade(engine)
        assert not await migrate.pending(engine)


async def test_a_new_postgresql_database_lacks_migrations(postgres: PostgresServer) -> None:
    name = await postgres.create()
    async with open_engine(postgres.url(name)) as engine:
        assert await migrate.pending(engine)
    await postgres.drop(name)


async def test_a_database_of_a_newer_relay_is_left_alone(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))

    for look in (migrate.pending, migrate.upgrade):
        with pytest.raises(SchemaNewer, match="newer relay"):
            await look(engine)
    async with engine.connect() as connection:
        assert await connection.scalar(sa.text("SELECT version_num FROM alembic_version")) == "9999"


async def test_a_database_that_does_not_exist_is_named_with_what_to_check(postgres: PostgresServer) -> None:
    async with open_engine(postgres.url("nowhere")) as engine:
        with pytest.raises(DatabaseRefuses, match=r'refuses: database "nowhere" does not exist. Check database\.url'):
            await migrate.pending(engine)


async def test_a_file_that_is_no_database_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    path.write_text("this is a letter to ben, not a database " * 20)
    async with open_engine(f"sqlite:///{path}") as engine:
        with pytest.raises(DatabaseRefuses, match="not a database"):
            await migrate.upgrade(engine)
