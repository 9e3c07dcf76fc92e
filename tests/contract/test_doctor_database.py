"""Databases with one fault each, as the doctor sees them with the user of each role."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
import sqlalchemy as sa

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.machine.memory import WatchState
from eas_watcher.names import MailboxId
from eas_watcher.peer_clocks import PeerClocks
from eas_watcher.server.idle_timeout import IdleTimeout, Lesson
from relay.doctor.database import Known, look_at_database
from relay.domain.model import Role
from relay.process.clock import now
from relay.security.sealing import SealingPrivateKey, generate, read_private
from relay.settings import Settings
from relay.settings.values import DatabaseSettings
from relay.store.engine import Database, open_database
from relay.store.idle_timeouts import SqlIdleTimeoutStore
from relay.store.migrate import revisions
from relay.store.privileges import API, PUSH, ROLES, WATCH, grants_sql, missing
from relay.store.survey import ServerSurvey, survey
from relay.store.tables import mailbox, node
from tests.contract.conftest import MigratedDatabases
from tests.contract.samples import NOW
from tests.fakes.examined import Examined, found
from tests.installation import Installation
from tests.postgres import PostgresServer
from tests.transactions import transaction

USERS: Final = {Role.API: API, Role.WATCH: WATCH, Role.PUSH: PUSH}
Make = Callable[[str, Role], Settings]


@pytest.fixture
def settings(tmp_path: Path) -> Make:
    """Return what makes the settings of a role with a database."""
    installation = Installation(tmp_path)

    def make(url: str, role: Role = Role.ALL) -> Settings:
        file = Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite") else None
        return replace(installation.load(), role=role, database=DatabaseSettings(url, file=file))

    return make


async def look(settings: Settings, clocks: PeerClocks | None = None) -> Examined:
    return found((await look_at_database(settings, clocks or PeerClocks(now), now)).findings)


@pytest.fixture
async def granted(postgres: PostgresServer, migrated: MigratedDatabases) -> AsyncIterator[str]:
    """Yield the name of a database whose users have their rights."""
    await postgres.create_users(*ROLES)
    name = await migrated.copy()
    await postgres.execute(grants_sql(), name)
    yield name
    await postgres.drop(name)


async def test_a_database_with_the_schema_of_this_version(database_url: str, settings: Make) -> None:
    examined = await look(settings(database_url, Role.ALL))

    assert (examined.bad, examined.noted) == ([], [])
    assert "has the schema of this version" in examined.one("database", "database.url").text
    assert examined.one("seals", "sealing.private_key_file").text == "no credential is stored yet"


@pytest.mark.parametrize("role", USERS)
async def test_a_role_with_its_rights(postgres: PostgresServer, granted: str, settings: Make, role: Role) -> None:
    examined = await look(settings(postgres.url(granted, USERS[role]), role))

    assert (examined.bad, examined.noted) == ([], [])
    assert f"the rights of role {role}" in examined.one("grants", "database.url").text


@pytest.mark.parametrize(
    ("role", "taken", "words"),
    [
        (Role.API, "REVOKE INSERT ON registration FROM relay_api", "lacks INSERT on registration"),
        (Role.WATCH, "REVOKE DELETE ON outbox FROM relay_watch", "lacks DELETE on outbox"),
        (Role.PUSH, "REVOKE UPDATE (state) ON registration FROM relay_push", "lacks UPDATE on registration"),
        (Role.PUSH, "REVOKE USAGE ON SCHEMA public FROM relay_push", ""),
        (Role.API, "DROP TRIGGER api_clears_no_flag ON mailbox", "by the trigger api_clears_no_flag"),
    ],
)
async def test_a_role_without_one_of_its_rights(
    postgres: PostgresServer, granted: str, settings: Make, role: Role, taken: str, words: str
) -> None:
    await postgres.execute(taken, granted)

    examined = await look(settings(postgres.url(granted, USERS[role]), role))

    (bad,) = examined.bad
    assert words in examined.one(*bad).text
    assert "postgresql-grants.sql" in examined.one(*bad).remedy


async def test_a_role_with_a_right_too_many(postgres: PostgresServer, granted: str, settings: Make) -> None:
    await postgres.execute("GRANT SELECT ON mailbox TO relay_push", granted)

    examined = await look(settings(postgres.url(granted, PUSH), Role.PUSH))

    assert (examined.bad, examined.noted) == ([], [("grants", "database.url")])
    assert "may read mailbox.sealed_credential" in examined.one("grants", "database.url").text


async def test_the_owner_of_the_tables_lacks_no_right(postgres_url: str) -> None:
    async with open_database(postgres_url) as database:
        assert await missing(database, Role.ALL) == []


async def test_a_database_without_the_migrations(postgres: PostgresServer, settings: Make) -> None:
    name = await postgres.create()

    examined = await look(settings(postgres.url(name), Role.WATCH))

    assert examined.bad == [("database", "database.url")]
    assert "relay migrate" in examined.one("database", "database.url").remedy


@pytest.mark.parametrize("before", ["sqlite"], indirect=True)
async def test_an_embedded_database_without_the_migrations_gets_them_by_itself(
    before: Database, settings: Make
) -> None:
    examined = await look(settings(f"sqlite:///{before.engine.url.database}", Role.ALL))

    assert (examined.bad, examined.noted) == ([], [("database", "database.url")])


async def test_a_database_of_a_newer_relay(database_url: str, settings: Make) -> None:
    async with open_database(database_url) as database, transaction(database) as connection:
        await connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))

    examined = await look(settings(database_url, Role.ALL))

    async with open_database(database_url) as database, transaction(database) as connection:
        await connection.execute(sa.text("UPDATE alembic_version SET version_num = :head"), {"head": revisions()[-1]})
    assert examined.bad == [("database", "database.url")]
    assert "a newer relay" in examined.one("database", "database.url").text


async def test_a_database_that_is_not_there(tmp_path: Path, settings: Make) -> None:
    examined = await look(settings(f"postgresql://relay@/relay?host={tmp_path}", Role.WATCH))

    assert examined.bad == [("database", "database.url")]
    assert "does not answer" in examined.one("database", "database.url").text


async def test_an_embedded_database_that_is_not_there_is_not_made(tmp_path: Path, settings: Make) -> None:
    examined = await look(settings(f"sqlite:///{tmp_path / 'none.db'}", Role.ALL))

    assert examined.bad == []
    assert not (tmp_path / "none.db").exists()


async def test_a_database_that_does_not_know_the_user(postgres: PostgresServer, granted: str, settings: Make) -> None:
    examined = await look(settings(postgres.url(granted, "nobody_here"), Role.WATCH))

    assert examined.bad == [("database", "database.url")]
    assert "nobody_here" in examined.one("database", "database.url").text


async def test_the_clock_of_the_database_is_compared(postgres_url: str, settings: Make) -> None:
    clocks = PeerClocks(lambda: now() + timedelta(hours=1))

    await look(settings(postgres_url, Role.WATCH), clocks)

    assert round(clocks.differences()["the database"], -2) == 3600


class Owner:
    def __init__(self, name: str) -> None:
        self.id, self.server, self.user = MailboxId(f"mb-{name}"), "main", f"{name}@example.com"


async def add_mailbox(url: str, name: str, key: SealingPrivateKey | None = None, **values: object) -> None:
    own = Owner(name)
    sealed = None if key is None else key.public_key().seal(own, BasicCredential(own.user, "secret"))
    row = {
        "id": own.id,
        "server": own.server,
        "user": own.user,
        "device_id": "D" * 32,
        "shard": 7,
        "state": WatchState.WATCHING.value,
        "since": NOW,
        "sealed_credential": sealed,
        **values,
    }
    async with open_database(url) as database, transaction(database) as connection:
        await connection.execute(sa.insert(mailbox).values(row))


async def test_credentials_that_were_sealed_for_another_key(database_url: str, settings: Make) -> None:
    made = settings(database_url, Role.ALL)
    other = SealingPrivateKey(read_private(generate()[0]))
    await add_mailbox(database_url, "ann", other)

    all_lost = await look(made)
    await add_mailbox(database_url, "ben", made.sealing.private)
    some_lost = await look(made)

    assert all_lost.bad == some_lost.bad == [("seals", "sealing.private_key_file")]
    text = all_lost.one("seals", "sealing.private_key_file").text
    assert text.endswith(f"1 credential that was sealed for another key: {other.public_key().name}")
    assert "1 of 2 stored credentials" in some_lost.one("seals", "sealing.private_key_file").text


async def test_credentials_that_the_key_opens(database_url: str, settings: Make) -> None:
    made = settings(database_url, Role.ALL)
    await add_mailbox(database_url, "ann", made.sealing.private)

    assert (await look(made)).one("seals", "sealing.private_key_file").text == "opens the 1 stored credentials"


async def test_what_the_mailboxes_of_a_server_show(database_url: str, engine: Database) -> None:
    await add_mailbox(database_url, "ann", version=161, heartbeat=480.0)
    await add_mailbox(database_url, "ben", version=161, heartbeat=240.0)
    await add_mailbox(database_url, "cleo")

    assert await survey(engine) == {"main": ServerSurvey(3, {161: 2}, 360.0)}


async def test_what_was_learnt_of_a_path_is_known(database_url: str, engine: Database, settings: Make) -> None:
    lesson = Lesson(240, IdleTimeout(298.0, 300.0))
    await SqlIdleTimeoutStore(engine).keep_lesson("https://mail.example.com/eas", lesson, now())

    known = await look_at_database(settings(database_url, Role.ALL), PeerClocks(now), now)

    assert known.lessons == {"https://mail.example.com/eas": lesson}


async def test_watch_processes_share_the_mailboxes(database_url: str, engine: Database, settings: Make) -> None:
    for name in ("ann", "ben", "cleo"):
        await add_mailbox(database_url, name)
    moment = now()
    alive = {"version": "0.1.0", "joined_at": moment, "beat_at": moment, "alive_until": moment + timedelta(minutes=1)}
    dead = {**alive, "alive_until": moment - timedelta(minutes=1)}
    rows = [{"id": "one", **alive}, {"id": "two", **alive}, {"id": "dead", **dead}]
    async with transaction(engine) as connection:
        await connection.execute(sa.insert(node).values(rows))

    known = await look_at_database(settings(database_url, Role.ALL), PeerClocks(now), now)

    assert (known.processes, known.mailboxes) == (2, 2)
    assert Known(()).mailboxes == 0
