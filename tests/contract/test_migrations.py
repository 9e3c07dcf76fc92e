"""Test that migrations lead to the very schema that the statements are written for."""

from enum import Enum
from pathlib import Path
from typing import Any, Final

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from eas_watcher.commands.provision import Acknowledgement
from eas_watcher.machine.memory import WatchState
from eas_watcher.names import CollectionClass, ProtocolVersion
from relay.domain.errors import DatabaseRefuses, RowsForbidden, SchemaNewer
from relay.domain.model import Environment, Mark, Mode, Platform, PushTestState, RegistrationState
from relay.domain.reasons import Cause
from relay.store import migrate
from relay.store.engine import Database, open_database
from relay.store.tables import metadata, shard
from tests.migrating import migrate_to
from tests.postgres import PostgresServer
from tests.transactions import rolled_back, transaction


@pytest.fixture
def postgres_url(fresh_postgres_url: str) -> str:
    return fresh_postgres_url


def _differences(connection: sa.Connection) -> list[Any]:
    # SQLite tells the default '' in another spelling than it was given.
    defaults = connection.dialect.name == "postgresql"
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": defaults})
    return list(compare_metadata(context, metadata))


async def test_the_migrated_schema_is_the_one_of_the_tables(engine: Database) -> None:
    async with transaction(engine) as connection:
        assert await connection.run_sync(_differences) == []


async def test_a_missing_column_would_be_noticed(engine: Database) -> None:
    async with transaction(engine) as connection:
        await connection.execute(sa.text("ALTER TABLE path DROP COLUMN learnt_at"))
        assert await connection.run_sync(_differences) != []


async def test_a_new_database_has_shards_without_owners(engine: Database) -> None:
    async with transaction(engine) as connection:
        rows = (await connection.execute(sa.select(shard).order_by(shard.c.number))).all()

    assert [tuple(row) for row in rows] == [(number, None, 0, None) for number in range(256)]


def test_files_of_migrations_are_named_after_their_revisions() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).with_name("migrations")))
    chain = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]

    assert migrate.revisions() == chain[::-1]


async def test_upgrading_again_changes_nothing(engine: Database) -> None:
    assert not await migrate.pending(engine)
    await migrate.upgrade(engine)
    assert not await migrate.pending(engine)


async def test_a_new_file_lacks_migrations(tmp_path: Path) -> None:
    async with open_database(f"sqlite:///{tmp_path / 'new%20.db'}") as engine:
        assert await migrate.pending(engine)
        await migrate.upgrade(engine)
        assert not await migrate.pending(engine)


async def test_a_new_postgresql_database_lacks_migrations(postgres: PostgresServer) -> None:
    name = await postgres.create()
    async with open_database(postgres.url(name)) as engine:
        assert await migrate.pending(engine)
    await postgres.drop(name)


async def test_a_database_of_a_newer_relay_is_left_alone(engine: Database) -> None:
    async with transaction(engine) as connection:
        await connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))

    for look in (migrate.pending, migrate.upgrade):
        with pytest.raises(SchemaNewer, match="newer relay"):
            await look(engine)
    async with transaction(engine) as connection:
        assert await connection.scalar(sa.text("SELECT version_num FROM alembic_version")) == "9999"


async def test_a_database_that_does_not_exist_is_named_with_what_to_check(postgres: PostgresServer) -> None:
    async with open_database(postgres.url("nowhere")) as engine:
        with pytest.raises(DatabaseRefuses, match=r'refuses: database "nowhere" does not exist. Check database\.url'):
            await migrate.pending(engine)


async def test_a_file_that_is_no_database_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    path.write_text("this is a letter to ben, not a database " * 20)
    async with open_database(f"sqlite:///{path}") as engine:
        with pytest.raises(DatabaseRefuses, match=r"not a database\. .*restore the newest backup"):
            await migrate.upgrade(engine)


ENUMS: Final[dict[tuple[str, str], type[Enum]]] = {
    ("mailbox", "state"): WatchState,
    ("mailbox", "version"): ProtocolVersion,
    ("mailbox", "acknowledged"): Acknowledgement,
    ("collection", "class"): CollectionClass,
    ("registration", "platform"): Platform,
    ("registration", "environment"): Environment,
    ("registration", "mode"): Mode,
    ("registration", "state"): RegistrationState,
    ("outbox", "platform"): Platform,
    ("outbox", "mark"): Mark,
    ("outbox", "cause"): Cause,
    ("push_test", "state"): PushTestState,
}
FILLED = (
    """INSERT INTO mailbox (id, server, "user", device_id, shard, state, since)
        VALUES ('m', 's', 'u', 'd', 1, 'watching', '2026-11-24 08:30:15+00')""",
    """INSERT INTO collection (mailbox_id, collection_id, "class", sync_key, tries, seen)
        VALUES ('m', '5', 'email', '1', 0, '[]')""",
    """INSERT INTO registration (id, mailbox_id, secret_hash, app, platform, environment, device_token, token_since,
        classes, mode, locale, state, created_at) VALUES ('r', 'm', 'h', 'mail', 'apns', 'production', 't',
        '2026-11-24 08:30:15+00', '["email"]', 'alert', 'en', 'active', '2026-11-24 08:30:15+00')""",
    """INSERT INTO outbox (registration_id, mark, platform, count, generation, certain, first_at, last_at, due_at,
        attempts) VALUES ('r', 'email', 'apns', 1, 1, true, '2026-11-24 08:30:15+00', '2026-11-24 08:30:15+00',
        '2026-11-24 08:30:15+00', 0)""",
    """INSERT INTO push_test (id, registration_id, asked_at) VALUES ('t', 'r', '2026-11-24 08:30:15+00')""",
)


async def _writes(engine: Database, table: str, column: str, value: object) -> bool:
    """Return whether a database with a row in each table takes a value, in a transaction that is rolled back."""
    shown = value if isinstance(value, int) else f"'{value}'"
    async with rolled_back(engine) as connection:
        for statement in FILLED:
            await connection.execute(sa.text(statement))
        try:
            await connection.execute(sa.text(f'UPDATE {table} SET "{column}" = {shown}'))  # noqa: S608
        except sa.exc.IntegrityError as error:
            assert f"ck_{table}_{column}" in str(error)  # noqa: PT017 - the statement may also succeed
            return False
        except sa.exc.DBAPIError:  # PostgreSQL: the number is too large for its column
            return False
        return True


@pytest.mark.parametrize(("table", "column"), ENUMS, ids=lambda name: name)
async def test_a_column_of_names_takes_those_of_this_version_only(engine: Database, table: str, column: str) -> None:
    kind = ENUMS[table, column]
    for member in set(kind) - {WatchState.PAUSED}:  # which is shown, and never stored
        assert await _writes(engine, table, column, member.value)
    assert not await _writes(engine, table, column, 99 if issubclass(kind, int) else "bogus")


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ('["email", "notes"]', True),
        ("[]", True),
        ('["bogus"]', False),
        ('["email", "bogus"]', False),
        ('"email"', False),
        ('{"email": 1}', False),
        ("[1]", False),
        ("[[]]", False),
        ("null", False),
    ],
)
async def test_a_list_of_classes_takes_known_classes_only(engine: Database, value: str, good: bool) -> None:
    assert await _writes(engine, "registration", "classes", value) is good
    assert await _writes(engine, "registration", "subfolders", value) is good


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("mailbox", "shard", 256),
        ("mailbox", "refusals", -1),
        ("collection", "tries", 2_000_000_000),
        ("outbox", "count", 10**18),
        ("outbox", "generation", -1),
        ("outbox", "attempts", 2_147_483_647),
        ("shard", "epoch", -1),
    ],
)
async def test_a_counter_takes_no_number_that_could_overflow(
    engine: Database, table: str, column: str, value: int
) -> None:
    assert not await _writes(engine, table, column, value)


async def test_a_broken_list_of_classes_is_refused_on_sqlite(sqlite_url: str) -> None:
    async with open_database(sqlite_url) as engine:
        assert not await _writes(engine, "registration", "classes", "[")
        assert not await _writes(engine, "outbox", "count", "many")


async def test_an_upgrade_names_the_rows_that_the_new_schema_does_not_allow(postgres: PostgresServer) -> None:
    name = await postgres.create()  # SQLite leaves such rows, which are set aside
    async with open_database(postgres.url(name)) as engine:
        await migrate_to(engine, "0010")
        async with transaction(engine) as connection:
            for statement in FILLED[:4]:  # a later migration makes the table of the last one
                await connection.execute(sa.text(statement))
            await connection.execute(sa.text("UPDATE registration SET state = 'paused', classes = '7'"))

        wrong = r"registration r \(state\), registration r \(classes\). Correct or delete"
        with pytest.raises(RowsForbidden, match=wrong):
            await migrate.upgrade(engine)
        async with transaction(engine) as connection:
            assert await connection.scalar(sa.text("SELECT version_num FROM alembic_version")) == "0010"
            await connection.execute(sa.text("""UPDATE registration SET state = 'active', classes = '["email"]'"""))
        await migrate.upgrade(engine)
        assert not await migrate.pending(engine)
    await postgres.drop(name)


async def test_sqlite_checks_rows_in_their_tables_and_leaves_those_that_were_there(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'relay.db'}"
    async with open_database(url) as engine, open_database(url) as other:
        await migrate_to(engine, "0017")
        async with transaction(engine) as connection:
            await connection.execute(sa.text("DROP TRIGGER ck_outbox_attempts_update"))
            for statement in (*FILLED, "UPDATE outbox SET attempts = -1"):
                await connection.execute(sa.text(statement))
        async with transaction(other) as connection:
            assert await connection.scalar(sa.text("SELECT attempts FROM outbox")) == -1
            again = "CREATE TRIGGER ck_outbox_attempts_update UPDATE ON node BEGIN SELECT 1; END"
            await connection.execute(sa.text(again))

        await migrate.upgrade(engine)

        for each in (engine, other):
            async with transaction(each) as connection:
                triggers = await connection.scalars(sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger'"))
                assert all(
                    name.startswith(("ck_registration_classes", "ck_registration_sub", "act_no_")) for name in triggers
                )
                assert await connection.scalar(sa.text("PRAGMA foreign_key_check")) is None
                await connection.execute(sa.text("UPDATE outbox SET count = count + 1"))
                assert await connection.scalar(sa.text("SELECT attempts FROM outbox")) == -1
                with pytest.raises(sa.exc.IntegrityError, match="ck_outbox_attempts"):
                    await connection.execute(sa.text("UPDATE outbox SET attempts = -2"))
                with pytest.raises(sa.exc.IntegrityError, match="ck_mailbox_state"):
                    await connection.execute(sa.text("UPDATE mailbox SET state = 'bogus'"))
