"""Test the whole matrix role x table x column x right by logging in, and what else a stolen database user may do.

Once as PostgreSQL 13 and 14 make a database, where everybody may create objects in schema public; once as today.
"""

from collections.abc import AsyncIterator
from typing import Final

import asyncpg
import pytest
import sqlalchemy as sa

from relay.domain.model import Platform, Role
from relay.store.engine import Database, open_database
from relay.store.ops import SqlOpsStore
from relay.store.outbox import SqlOutboxStore
from relay.store.privileges import API, PUSH, ROLES, WATCH, excess, grants_sql
from relay.store.registrations import SqlRegistrationStore
from relay.store.tables import metadata
from relay.store.wakeups import LocalWakeups, PostgresWakeups
from relay.store.watches import SqlWatchStore
from tests.contract.samples import LATER, NOW, SHARD, activate, leases, own_all, register
from tests.postgres import PostgresServer
from tests.transactions import transaction

ALL: Final = "*"
FORBIDDEN: Final = "42501"
"""The SQLSTATE of what a user may not do, whatever the words."""
NEVER_CHANGES: Final = "id server user user_key device_id shard"
QUARANTINE: Final = "quarantined_at quarantine_reason quarantine_remedy rechecks recheck_at refused_at"
NEW_MARK: Final = "registration_id mark platform count generation certain first_at last_at due_at attempts cause"
MARK_GROWS: Final = "count generation certain last_at due_at cause"
NEW_REGISTRATION: Final = (
    "id mailbox_id secret_hash app platform environment device_token token_hash token_since classes subfolders mode"
    " locale state created_at credential_proof must_prove"
)
# Table -> role -> right -> columns; whole tables for DELETE. What is not here is denied.
MATRIX: Final[dict[str, dict[str, dict[str, str]]]] = {
    "mailbox": {
        API: {
            "SELECT": f"{NEVER_CHANGES} state reason detail since next_try_at last_ping_at heartbeat last_change_at"
            " candidate_refusals candidate_refused_at paused_at retry forgotten",
            "INSERT": f"{NEVER_CHANGES} state since dirty",
            "UPDATE": "dirty paused_at retry forgotten",
        },
        WATCH: {"SELECT": ALL, "UPDATE": f"but {NEVER_CHANGES} paused_at forgotten", "DELETE": ALL},
        PUSH: {"SELECT": "id server state reason paused_at", "UPDATE": "dirty"},
    },
    "collection": {
        API: {"SELECT": "mailbox_id changed_at"},
        WATCH: {"SELECT": ALL, "INSERT": ALL, "UPDATE": ALL, "DELETE": ALL},
    },
    "hierarchy": {WATCH: {"SELECT": ALL, "INSERT": ALL, "DELETE": ALL}},
    "registration": {
        API: {
            "SELECT": ALL,
            "INSERT": NEW_REGISTRATION,
            "UPDATE": "device_token token_hash token_since environment classes subfolders mode locale state"
            " candidate_refused tested_at idle_since seen_at credential_proof must_prove challenge_hash"
            f" {QUARANTINE}",
            "DELETE": ALL,
        },
        WATCH: {
            "SELECT": "id mailbox_id platform classes subfolders state proved_at must_prove token_hash app environment"
            " last_push_at quarantine_reason quarantine_remedy recheck_at",
            "UPDATE": "state candidate_refused proved_at",
            "DELETE": ALL,
        },
        PUSH: {
            "SELECT": "id app platform environment device_token token_since mode locale state mailbox_id last_push_at"
            f" last_outcome pushed {QUARANTINE}",
            "UPDATE": f"state last_push_at last_outcome pushed challenge_hash challenged_at {QUARANTINE}",
            "DELETE": ALL,
        },
    },
    "candidate": {
        API: {"SELECT": "registration_id account", "INSERT": ALL, "DELETE": ALL},
        WATCH: {"SELECT": ALL, "UPDATE": "sealed account", "DELETE": ALL},
    },
    "wipe": {API: {"SELECT": ALL}, WATCH: {"SELECT": ALL, "INSERT": ALL, "DELETE": ALL}},
    "event": {
        API: {"SELECT": ALL, "INSERT": "but id", "DELETE": ALL},
        WATCH: {"INSERT": "but id"},
        PUSH: {"INSERT": "but id"},
    },
    "tombstone": {API: {"SELECT": ALL, "INSERT": ALL, "DELETE": ALL, "UPDATE": "until"}},
    "tries": {API: {"SELECT": ALL}, WATCH: {"SELECT": ALL, "INSERT": ALL, "UPDATE": ALL, "DELETE": ALL}},
    "outbox": {
        API: {"SELECT": ALL, "INSERT": NEW_MARK, "UPDATE": f"{MARK_GROWS} aside", "DELETE": ALL},
        WATCH: {"SELECT": ALL, "INSERT": NEW_MARK, "UPDATE": MARK_GROWS, "DELETE": ALL},
        PUSH: {
            "SELECT": ALL,
            "UPDATE": "claimed_by claimed_until due_at attempts paced aside count first_at",
            "DELETE": ALL,
        },
    },
    "canary": {
        API: {
            "SELECT": "id registration_id tried_at refused_at",
            "INSERT": "id",
            "UPDATE": "registration_id device tried_at refused_at refusal",
        },
        WATCH: {
            "SELECT": "id refusal holder sent_at mail_refused_at",
            "INSERT": "id",
            "UPDATE": "holder sent_at mail_refused_at",
        },
        PUSH: {"SELECT": "id registration_id device"},
    },
    "canary_shown": {API: {"INSERT": ALL}, WATCH: {"SELECT": ALL, "DELETE": ALL}, PUSH: {"INSERT": ALL}},
    "challenged": {PUSH: {"SELECT": ALL, "INSERT": ALL, "UPDATE": ALL, "DELETE": ALL}},
    "push_test": {
        API: {
            "SELECT": ALL,
            "INSERT": "id registration_id asked_at",
            "UPDATE": "state ended_at",
            "DELETE": ALL,
        },
        PUSH: {"SELECT": "registration_id state", "UPDATE": "state reason channel ended_at"},
    },
    "shard": {
        API: {"SELECT": ALL},
        WATCH: {"SELECT": ALL, "UPDATE": "owner epoch lease_until"},
        PUSH: {"SELECT": ALL},
    },
    "node": {
        API: {"SELECT": ALL},
        WATCH: {"SELECT": ALL, "INSERT": ALL, "UPDATE": ALL, "DELETE": ALL},
        PUSH: {"SELECT": ALL},
    },
    "path": {WATCH: {"SELECT": ALL, "INSERT": ALL, "UPDATE": ALL}},
    "key_holder": {
        API: {"SELECT": ALL, "INSERT": ALL, "UPDATE": ALL, "DELETE": ALL},
        WATCH: {"SELECT": ALL, "INSERT": ALL, "UPDATE": ALL, "DELETE": ALL},
    },
    "sealed_anew": {WATCH: {"SELECT": ALL, "INSERT": ALL}},
    "maintenance": {
        API: {"SELECT": ALL, "INSERT": ALL, "DELETE": ALL},
        WATCH: {"SELECT": ALL},
        PUSH: {"SELECT": ALL},
    },
    "act": {API: {"SELECT": ALL, "INSERT": ALL}, WATCH: {"SELECT": ALL, "INSERT": ALL}},
    "alembic_version": {API: {"SELECT": ALL}, WATCH: {"SELECT": ALL}, PUSH: {"SELECT": ALL}},
}
STATEMENTS: Final = {
    "SELECT": 'SELECT "{column}" FROM public.{table} LIMIT 0',
    "INSERT": 'INSERT INTO public.{table} ("{column}") SELECT NULL WHERE false',
    "UPDATE": 'UPDATE public.{table} SET "{column}" = DEFAULT WHERE false',
}
OPEN_TO_ALL: Final = """
GRANT ALL ON SCHEMA public TO PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE {database} TO PUBLIC;
GRANT ALL ON ALL TABLES IN SCHEMA public TO {roles};
"""


@pytest.fixture(params=["as 13 and 14", "as today"])
async def database(request: pytest.FixtureRequest, postgres: PostgresServer, fresh_postgres_url: str) -> str:
    """Return the name of a database with the grants."""
    name = sa.make_url(fresh_postgres_url).database or ""
    await postgres.create_users(*ROLES)
    if request.param == "as 13 and 14":
        await postgres.execute(OPEN_TO_ALL.format(database=name, roles=", ".join(ROLES)), name)
    await postgres.execute(grants_sql(), name)
    return name


class Thief:
    """Somebody who has stolen a role's database user."""

    def __init__(self, postgres: PostgresServer, database: str, role: str) -> None:
        self._url = postgres.url(database, role)

    async def may(self, *statements: str) -> str:
        """Try statements in a transaction that is rolled back; return why not, or nothing."""
        connection = await asyncpg.connect(self._url)
        own = connection.transaction()
        try:
            await own.start()
            for statement in statements:
                await connection.execute(statement)
        except asyncpg.PostgresError as error:
            return f"{error.sqlstate} {error}"
        else:
            return ""
        finally:
            await own.rollback()
            await connection.close()


def columns_of(table: str) -> list[str]:
    return [column.name for column in metadata.tables[table].c] if table in metadata.tables else ["version_num"]


def allowed(table: str, role: str, right: str) -> set[str]:
    """Return the columns on which a role has a right."""
    columns, names = columns_of(table), MATRIX[table].get(role, {}).get(right, "").split()
    if names == [ALL]:
        return set(columns)
    found = set(columns) - set(names[1:]) if names[:1] == ["but"] else set(names)
    assert found <= set(columns)
    return found


async def test_every_role_has_the_rights_of_the_matrix_and_no_other(postgres: PostgresServer, database: str) -> None:
    assert set(MATRIX) == {*metadata.tables, "alembic_version"}, "a table without a line in the matrix"
    tried, wrong = 0, []
    for role in ROLES:
        connection = await asyncpg.connect(postgres.url(database, role))
        for table in MATRIX:
            attempts = [
                (right, statement.format(table=table, column=column), column in allowed(table, role, right))
                for right, statement in STATEMENTS.items()
                for column in columns_of(table)
            ]
            delete = f"DELETE FROM public.{table} WHERE false"  # noqa: S608
            attempts.append(("DELETE", delete, bool(allowed(table, role, "DELETE"))))
            attempts += [
                ("TRUNCATE", f"TRUNCATE public.{table}", False),
                ("ALTER", f"ALTER TABLE public.{table} ADD COLUMN extra integer", False),
                ("DROP", f"DROP TABLE public.{table} CASCADE", False),
                (
                    "TRIGGER",
                    f"CREATE TRIGGER own AFTER DELETE ON public.{table} EXECUTE FUNCTION relay_forbid()",
                    False,
                ),
                ("DISABLE", f"ALTER TABLE public.{table} DISABLE TRIGGER ALL", False),
                ("GRANT", f"GRANT SELECT ON public.{table} TO PUBLIC", False),
            ]
            for right, statement, good in attempts:
                tried += 1
                try:
                    await connection.execute(statement)
                    done = right != "GRANT"  # which only warns
                except asyncpg.InsufficientPrivilegeError:
                    done = False
                if done is not good:
                    wrong.append((role, right, statement))
        await connection.close()

    assert wrong == []
    assert tried > 1000


@pytest.mark.parametrize("role", ROLES)
async def test_no_role_creates_anything(postgres: PostgresServer, database: str, role: str) -> None:
    thief = Thief(postgres, database, role)

    for statement in (
        "CREATE TABLE public.mine (x integer)",
        "CREATE TEMPORARY TABLE mine (x integer)",
        "CREATE FUNCTION public.unnest(text[]) RETURNS SETOF text LANGUAGE sql AS $$ SELECT 'x' $$",
        "CREATE SCHEMA mine",
        f"SET ROLE {next(each for each in ROLES if each != role)}",
        "SET session_replication_role = replica",
        "COPY mailbox TO PROGRAM 'cat'",
        "SELECT pg_read_file('/etc/passwd')",
        "CREATE OR REPLACE FUNCTION public.relay_forbid() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN END $$",
    ):
        assert (await thief.may(statement)).startswith(FORBIDDEN), statement


async def test_the_owner_of_the_tables_can_still_migrate(postgres: PostgresServer, database: str) -> None:
    await postgres.create_users("relay_owner")
    own = "; ".join(f"ALTER TABLE public.{table} OWNER TO relay_owner" for table in MATRIX)
    await postgres.execute(own, database)

    await postgres.execute(grants_sql(), database)

    owner = Thief(postgres, database, "relay_owner")
    assert await owner.may("CREATE TABLE public.more (id text REFERENCES public.mailbox)", "DELETE FROM mailbox") == ""


async def test_the_grants_say_that_schema_public_is_open_if_their_user_cannot_close_it(
    postgres: PostgresServer, database: str
) -> None:
    await postgres.create_users("relay_owner")
    own = "; ".join(f"ALTER TABLE public.{table} OWNER TO relay_owner" for table in MATRIX)
    await postgres.execute(f"{own}; ALTER DATABASE {database} OWNER TO relay_owner", database)
    await postgres.execute("ALTER SCHEMA public OWNER TO postgres; GRANT ALL ON SCHEMA public TO PUBLIC", database)
    await postgres.execute("DROP FUNCTION public.relay_forbid CASCADE", database)
    connection = await asyncpg.connect(postgres.url(database, "relay_owner"))

    with pytest.raises(asyncpg.RaiseError, match="can still create objects: run these statements as the owner"):
        await connection.execute(grants_sql())

    await connection.close()


async def test_nobody_else_may_connect(postgres: PostgresServer, database: str) -> None:
    await postgres.create_users("other")

    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="CONNECT"):
        await asyncpg.connect(postgres.url(database, "other"))


@pytest.fixture
async def filled(postgres: PostgresServer, database: str) -> AsyncIterator[Database]:
    """Fill the database by the roles themselves: ann is active, ben is not proved."""
    wakeups = LocalWakeups()
    async with (
        open_database(postgres.url(database, API)) as api,
        open_database(postgres.url(database, WATCH)) as watch,
        open_database(postgres.url(database)) as owner,
    ):
        registrations, watches = SqlRegistrationStore(api, wakeups), SqlWatchStore(watch, wakeups)
        await activate(registrations, watches)
        await register(registrations, "ben")
        await own_all(watches)
        yield owner


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE registration SET state = 'active' WHERE id = 'reg-ben-phone'",
        "UPDATE registration SET state = 'active', token_since = now() WHERE id = 'reg-ben-phone'",
        "UPDATE registration SET state = 'token-gone' WHERE id = 'reg-ben-phone'",
        "UPDATE registration SET state = 'wiped' WHERE id = 'reg-ann-phone'",
        "UPDATE registration SET mailbox_id = 'mb-ben' WHERE id = 'reg-ann-phone'",
        "UPDATE registration SET secret_hash = 'mine' WHERE id = 'reg-ann-phone'",
        """INSERT INTO registration (id, mailbox_id, secret_hash, app, platform, environment, device_token, token_since,
            classes, mode, locale, state, created_at) VALUES ('mine', 'mb-ann', 'x', 'mail', 'apns', 'production', 't',
            now(), '["email"]', 'alert', 'en', 'active', now())""",
        "UPDATE mailbox SET dirty = false",
        """INSERT INTO mailbox (id, server, "user", device_id, shard, state, since, dirty)
            VALUES ('mine', 'office', 'eve', 'd', 1, 'watching', now(), true)""",
        """INSERT INTO outbox (registration_id, mark, platform, count, generation, certain, first_at, last_at, due_at,
            attempts) VALUES ('reg-ann-phone', 'attention', 'apns', 1, 1, true, now(), now(), now(), 0)""",
    ],
)
async def test_the_api_role_activates_nothing(
    postgres: PostgresServer, database: str, filled: Database, statement: str
) -> None:
    assert "permission denied" in await Thief(postgres, database, API).may(statement)


@pytest.mark.parametrize(
    "statements",
    [
        ("DELETE FROM registration", "UPDATE mailbox SET dirty = true"),
        ("DELETE FROM registration WHERE id = 'reg-ben-phone'",),
        ("UPDATE registration SET state = 'wiped'", "DELETE FROM registration"),
        ("UPDATE registration SET state = 'wiped' WHERE id = 'reg-ann-phone'",),
        ("UPDATE registration SET state = 'active' WHERE id = 'reg-ben-phone'",),
        ("UPDATE registration SET state = 'token-gone' WHERE id = 'reg-ben-phone'",),
        ("UPDATE registration SET state = 'credential-refused'",),
        ("UPDATE mailbox SET dirty = false",),
        ("DELETE FROM mailbox",),
        ("UPDATE outbox SET registration_id = 'reg-ben-phone'",),
    ],
)
async def test_the_push_role_destroys_no_credential_and_activates_nothing(
    postgres: PostgresServer, database: str, filled: Database, statements: tuple[str, ...]
) -> None:
    assert "permission denied" in await Thief(postgres, database, PUSH).may(*statements)
    async with transaction(filled) as connection:
        assert await connection.scalar(sa.text("SELECT count(sealed_credential) FROM mailbox")) == 1


TRAPS: Final = {
    "unnest": "CREATE FUNCTION public.unnest(text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$ {} $$",
    "count": "CREATE AGGREGATE public.count(integer) (SFUNC = public.trap, STYPE = bigint)",
}
SPRING: Final = "BEGIN RAISE EXCEPTION 'sprung as %', current_user; END"


async def test_functions_of_others_are_named_and_run_by_no_role(
    postgres: PostgresServer, database: str, filled: Database
) -> None:
    await postgres.execute(f"GRANT CREATE ON SCHEMA public TO {API}", database)
    connection = await asyncpg.connect(postgres.url(database, API))
    await connection.execute(TRAPS["unnest"].format(SPRING))
    await connection.execute(
        f"CREATE FUNCTION public.trap(bigint, integer) RETURNS bigint LANGUAGE plpgsql AS $$ {SPRING} $$"
    )
    await connection.execute(TRAPS["count"])
    for kind in ("text", "timestamptz", "boolean"):
        await connection.execute(
            f"CREATE FUNCTION public.lower({kind}) RETURNS text LANGUAGE plpgsql AS $$ {SPRING} $$"
        )
    await connection.close()

    with pytest.raises(asyncpg.RaiseError, match=r"function (public\.)?\w+\(.*\) of relay_api: drop it first"):
        await postgres.execute(grants_sql(), database)
    wakeups = LocalWakeups()
    for role, user in ((Role.API, API), (Role.WATCH, WATCH), (Role.PUSH, PUSH)):
        async with open_database(postgres.url(database, user)) as engine:
            found = await excess(engine, role)
            assert any("of relay_api" in phrase for phrase in found)
            assert ("may create objects in schema public" in found) is (role is Role.API)
            ops = SqlOpsStore(engine)
            await ops.mailboxes_by_state()
            await ops.registrations_by_state()
            await ops.outbox()
            await ops.tokens()
            if role is Role.WATCH:
                await SqlWatchStore(engine, wakeups).records(await leases(SqlWatchStore(engine, wakeups), [SHARD]), NOW)
            if role is Role.PUSH:
                await SqlOutboxStore(engine, wakeups).claim(Platform.APNS, 10, "push-1", LATER, NOW)
    listener = await asyncpg.connect(postgres.url(database, WATCH))
    await PostgresWakeups(postgres.url(database, WATCH), None)._notify(listener)  # type: ignore[arg-type]
    await listener.close()


async def test_a_role_with_its_grants_alone_has_no_right_too_many(postgres: PostgresServer, database: str) -> None:
    for role, user in ((Role.API, API), (Role.WATCH, WATCH), (Role.PUSH, PUSH)):
        async with open_database(postgres.url(database, user)) as engine:
            assert await excess(engine, role) == []
            assert await excess(engine, Role.ALL) == []


@pytest.mark.parametrize(
    ("statement", "phrase"),
    [
        ("GRANT SELECT ON mailbox TO relay_push", "may read mailbox.sealed_credential"),
        ("GRANT SELECT (sealed) ON candidate TO relay_push", "may read candidate.sealed"),
        ("GRANT DELETE ON mailbox TO relay_push", "has DELETE on mailbox"),
        ("GRANT INSERT ON tries TO PUBLIC", "has INSERT on tries"),
        ("GRANT relay_watch TO relay_push", "is a member of other roles"),
        ("ALTER TABLE mailbox OWNER TO relay_push", "owns the tables"),
        ("ALTER ROLE relay_push SUPERUSER", "is a superuser"),
        ("GRANT CREATE ON SCHEMA public TO PUBLIC", "may create objects in schema public"),
        ("GRANT TEMPORARY ON DATABASE {} TO PUBLIC", "may create temporary tables"),
        ("GRANT CREATE ON DATABASE {} TO relay_push", "may create schemas"),
    ],
)
async def test_a_right_too_many_is_named(postgres: PostgresServer, database: str, statement: str, phrase: str) -> None:
    await postgres.execute(statement.format(database), database)
    try:
        async with open_database(postgres.url(database, PUSH)) as engine:
            assert phrase in await excess(engine, Role.PUSH)
    finally:
        await postgres.execute("ALTER ROLE relay_push NOSUPERUSER; REVOKE relay_watch FROM relay_push")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("ALTER ROLE relay_push SUPERUSER", "ALTER ROLE relay_push NOSUPERUSER", "attributes of an administrator"),
        ("GRANT relay_watch TO relay_api", "REVOKE relay_watch FROM relay_api", "is a member of another role"),
    ],
)
async def test_the_grants_say_what_they_cannot_take_away(
    postgres: PostgresServer, database: str, before: str, after: str, told: str
) -> None:
    await postgres.execute(before)
    try:
        with pytest.raises(asyncpg.RaiseError, match=told):
            await postgres.execute(grants_sql(), database)
    finally:
        await postgres.execute(after)
