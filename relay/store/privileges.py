"""What each role's database user may do on PostgreSQL: as little as its statements need."""

from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.util import await_only

from relay.domain.model import Role
from relay.store.engine import Database
from relay.store.rows import OF_MAILBOX, QUARANTINE
from relay.store.tables import (
    act,
    canary_shown,
    candidate,
    challenged,
    collection,
    event,
    hierarchy,
    key_holder,
    mailbox,
    maintenance,
    metadata,
    node,
    outbox,
    path,
    push_test,
    registration,
    sealed_anew,
    shard,
    tombstone,
    tries,
    wipe,
)

API: Final = "relay_api"
WATCH: Final = "relay_watch"
PUSH: Final = "relay_push"
ROLES: Final = (API, WATCH, PUSH)

_FIRST: Final = ("id", "server", "user", "user_key", "device_id", "shard", "state", "since", "dirty")
_FIXED: Final = ("id", "server", "user", "user_key", "device_id", "shard", "paused_at", "forgotten")
"""What the watch role never changes of a mailbox."""
_STEERING: Final = ("paused_at", "retry", "forgotten")
"""What administrators ask for. The watch role does it, so that no other one needs the rights to it."""
_UNUSED: Final = ("candidate_refusals", "candidate_refused_at")
"""Columns of mailboxes that the version before reads; a later migration drops them."""
_QUARANTINE: Final = tuple(column.name for column in QUARANTINE)
_FOR_PUSH: Final = (
    *("id", "app", "platform", "environment", "device_token", "token_since", "mode", "locale", "state"),
    *("mailbox_id", "last_push_at", "last_outcome", "pushed", *_QUARANTINE),
)
_TOKENS: Final = ("app", "environment", "quarantine_reason", "quarantine_remedy", "recheck_at")
"""What every role may read of device tokens: which app's are refused, and why."""


_NEW: Final = (
    *("id", "mailbox_id", "secret_hash", "app", "platform", "environment", "device_token", "token_hash"),
    *(
        "token_since",
        "classes",
        "subfolders",
        "mode",
        "locale",
        "state",
        "created_at",
        "credential_proof",
        "must_prove",
    ),
)
_CHANGED: Final = (
    *("device_token", "token_hash", "token_since", "environment", "classes", "subfolders", "mode", "locale", "state"),
    *("candidate_refused", "tested_at", "idle_since", "seen_at", "credential_proof", "must_prove", "challenge_hash"),
    *_QUARANTINE,
)
_MARKED: Final = (
    *("registration_id", "mark", "platform", "count", "generation", "certain", "first_at", "last_at", "due_at"),
    *("attempts", "cause"),
)
"""What `marks.py` inserts."""
_GROWN: Final = ("count", "generation", "certain", "last_at", "due_at", "cause")
"""What `marks.py` adds to a mark that waits."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One right of one user on one table; no columns: on the whole table."""

    user: str
    table: str
    right: str
    columns: tuple[str, ...] = ()


def _whole(user: str, table: sa.Table, *rights: str) -> tuple[Grant, ...]:
    return tuple(Grant(user, table.name, right) for right in rights)


def _without(table: sa.Table, *names: str) -> tuple[str, ...]:
    return tuple(column.name for column in table.c if column.name not in names)


GRANTS: Final = (
    # The api role registers and shows; of credentials it reads only whether one waits.
    Grant(API, "mailbox", "SELECT", (*(column.name for column in OF_MAILBOX), "user_key", *_UNUSED, *_STEERING)),
    Grant(API, "collection", "SELECT", ("mailbox_id", "changed_at")),
    Grant(API, "mailbox", "INSERT", _FIRST),
    Grant(API, "mailbox", "UPDATE", ("dirty", *_STEERING)),
    *_whole(API, registration, "SELECT", "DELETE"),
    Grant(API, "registration", "INSERT", _NEW),
    Grant(API, "registration", "UPDATE", _CHANGED),
    Grant(API, "candidate", "SELECT", ("registration_id", "account")),
    *_whole(API, candidate, "INSERT", "DELETE"),
    *_whole(API, tries, "SELECT"),
    *_whole(API, outbox, "SELECT"),
    Grant(API, "outbox", "INSERT", _MARKED),
    Grant(API, "outbox", "UPDATE", (*_GROWN, "aside")),
    Grant(API, "outbox", "DELETE"),  # of a challenge that was answered
    *_whole(API, push_test, "SELECT", "DELETE"),
    Grant(API, "push_test", "INSERT", ("id", "registration_id", "asked_at")),
    Grant(API, "push_test", "UPDATE", ("state", "ended_at")),
    *_whole(API, tombstone, "SELECT", "INSERT", "DELETE"),
    Grant(API, "tombstone", "UPDATE", ("until",)),
    *_whole(API, event, "SELECT", "DELETE"),
    *_whole(API, wipe, "SELECT"),
    *_whole(API, maintenance, "INSERT", "DELETE"),
    Grant(API, "canary", "SELECT", ("id", "registration_id", "tried_at", "refused_at")),
    Grant(API, "canary", "INSERT", ("id",)),
    Grant(API, "canary", "UPDATE", ("registration_id", "device", "tried_at", "refused_at", "refusal")),
    # The watch role opens credentials; it may not read device tokens and registration secrets.
    *_whole(WATCH, mailbox, "SELECT", "DELETE"),
    Grant(WATCH, "mailbox", "UPDATE", _without(mailbox, *_FIXED)),
    *_whole(WATCH, collection, "SELECT", "INSERT", "UPDATE", "DELETE"),
    *_whole(WATCH, hierarchy, "SELECT", "INSERT", "DELETE"),
    Grant(
        WATCH,
        "registration",
        "SELECT",
        (
            "id",
            "mailbox_id",
            "platform",
            "classes",
            "subfolders",
            "state",
            "proved_at",
            "token_hash",
            "must_prove",
            "last_push_at",
            *_TOKENS,
        ),
    ),
    Grant(WATCH, "registration", "UPDATE", ("state", "candidate_refused", "proved_at")),
    Grant(WATCH, "registration", "DELETE"),  # with a wipe, by the version before
    *_whole(WATCH, candidate, "SELECT", "DELETE"),
    Grant(WATCH, "candidate", "UPDATE", ("sealed", "account")),
    *_whole(WATCH, outbox, "SELECT", "DELETE"),
    Grant(WATCH, "outbox", "INSERT", _MARKED),
    Grant(WATCH, "outbox", "UPDATE", _GROWN),
    Grant(WATCH, "shard", "UPDATE", ("owner", "epoch", "lease_until")),
    *_whole(WATCH, node, "INSERT", "UPDATE", "DELETE"),
    *_whole(WATCH, tries, "SELECT", "INSERT", "UPDATE", "DELETE"),
    *_whole(WATCH, wipe, "SELECT", "INSERT", "DELETE"),
    *_whole(WATCH, path, "SELECT", "INSERT", "UPDATE"),
    *_whole(WATCH, sealed_anew, "SELECT", "INSERT"),
    Grant(WATCH, "canary", "SELECT", ("id", "refusal", "holder", "sent_at", "mail_refused_at")),
    Grant(WATCH, "canary", "INSERT", ("id",)),
    Grant(WATCH, "canary", "UPDATE", ("holder", "sent_at", "mail_refused_at")),
    *_whole(WATCH, canary_shown, "SELECT", "DELETE"),
    # Each notes which sealing keys it has; guards keep the api role from noting it about a watch process.
    *(grant for user in (API, WATCH) for grant in _whole(user, key_holder, "SELECT", "INSERT", "UPDATE", "DELETE")),
    # The push role sends; of mailboxes it may count the states, for its metrics, and mark one that lost a registration.
    Grant(PUSH, "mailbox", "SELECT", ("id", "server", "state", "reason", "paused_at")),
    Grant(PUSH, "mailbox", "UPDATE", ("dirty",)),
    Grant(PUSH, "registration", "SELECT", _FOR_PUSH),
    Grant(PUSH, "registration", "UPDATE", ("state", "last_push_at", "last_outcome", "pushed", *_QUARANTINE)),
    Grant(PUSH, "registration", "UPDATE", ("challenge_hash", "challenged_at")),
    *_whole(PUSH, challenged, "SELECT", "INSERT", "UPDATE", "DELETE"),
    Grant(PUSH, "registration", "DELETE"),  # after the last push to a wiped one, by the version before
    *_whole(PUSH, outbox, "SELECT", "DELETE"),
    Grant(
        PUSH,
        "outbox",
        "UPDATE",
        ("claimed_by", "claimed_until", "due_at", "attempts", "paced", "aside", "count", "first_at"),
    ),
    Grant(PUSH, "push_test", "SELECT", ("registration_id", "state")),
    Grant(PUSH, "push_test", "UPDATE", ("state", "reason", "channel", "ended_at")),
    Grant(PUSH, "canary", "SELECT", ("id", "registration_id", "device")),
    *(grant for user in (API, PUSH) for grant in _whole(user, canary_shown, "INSERT")),
    *(Grant(user, "event", "INSERT", _without(event, "id")) for user in ROLES),
    *(grant for user in (API, WATCH) for grant in _whole(user, act, "SELECT", "INSERT")),
    *(grant for user in ROLES for table in (shard, node, maintenance) for grant in _whole(user, table, "SELECT")),
    *(Grant(user, "alembic_version", "SELECT") for user in ROLES),
)


@dataclass(frozen=True, slots=True)
class Guard:
    """A change of rows that a role's grants would allow, but its work never needs: the database refuses it."""

    name: str
    user: str
    table: str
    event: str
    when: str
    """The condition, on the rows NEW and OLD."""


GUARDS: Final = (
    # Only the watch role, which has shown a credential to its server, makes a registration active or wiped.
    Guard("api_inserts_unproved", API, "registration", "INSERT", "NEW.state <> 'verifying'"),
    Guard(
        "api_activates_nothing",
        API,
        "registration",
        "UPDATE",
        "NEW.state <> OLD.state AND NOT (OLD.state = 'credential-refused' AND NEW.state = 'verifying')"
        " AND NOT (OLD.state IN ('active', 'token-gone') AND NEW.state = 'proving')"
        " AND NOT (OLD.state = 'proving' AND NEW.state = 'active')"
        " AND NOT (OLD.state = 'token-gone' AND NEW.state = 'active'"
        " AND (NEW.device_token <> OLD.device_token OR NEW.token_since <> OLD.token_since))",
    ),
    Guard(
        "push_ends_tokens_only",
        PUSH,
        "registration",
        "UPDATE",
        "NEW.state <> OLD.state AND NOT (OLD.state IN ('active', 'proving') AND NEW.state = 'token-gone')",
    ),
    # A mailbox without registrations is forgotten, and its credential destroyed.
    Guard("push_deletes_wiped_only", PUSH, "registration", "DELETE", "OLD.state <> 'wiped'"),
    Guard("api_inserts_mailboxes_unproved", API, "mailbox", "INSERT", "NEW.state <> 'verifying' OR NOT NEW.dirty"),
    Guard("api_clears_no_flag", API, "mailbox", "UPDATE", "NOT NEW.dirty"),
    Guard("push_clears_no_flag", PUSH, "mailbox", "UPDATE", "NOT NEW.dirty"),
    Guard("api_sets_test_marks_only", API, "outbox", "INSERT", "NEW.mark NOT IN ('test', 'challenge')"),
    Guard("api_notes_its_own_keys", API, "key_holder", "INSERT", "NEW.role <> 'api'"),
    Guard("api_changes_its_own_keys", API, "key_holder", "UPDATE", "NEW.role <> 'api' OR OLD.role <> 'api'"),
    Guard("api_removes_its_own_keys", API, "key_holder", "DELETE", "OLD.role <> 'api'"),
    Guard("api_deletes_challenges_only", API, "outbox", "DELETE", "OLD.mark <> 'challenge'"),
)

_TRAPS: Final = """\
WITH found AS (
    SELECT 'function ' || oid::regprocedure::text AS name, proowner AS owner, pronamespace AS place FROM pg_proc
    UNION ALL SELECT 'operator ' || oid::regoperator::text, oprowner, oprnamespace FROM pg_operator
    UNION ALL SELECT 'type ' || oid::regtype::text, typowner, typnamespace FROM pg_type WHERE typtype IN ('d', 'e', 'r')
    UNION ALL SELECT 'relation ' || oid::regclass::text, relowner, relnamespace FROM pg_class
)
SELECT found.name || ' of ' || pg_get_userbyid(found.owner) AS trap FROM found
JOIN pg_namespace AS schema ON schema.oid = found.place AND schema.nspname = 'public'
JOIN pg_roles AS owning ON owning.oid = found.owner
WHERE NOT owning.rolsuper
    AND found.owner <> (SELECT relowner FROM pg_class WHERE oid = 'public.mailbox'::regclass)
    AND found.owner <> (SELECT datdba FROM pg_database WHERE datname = current_database())"""
"""Finds what others have put where the relay's tables are: a function there may run instead of PostgreSQL's own."""

_CHECK_TRAPS: Final = f"""\
DO $relay$
DECLARE
    trap text;
BEGIN
    FOR trap IN {_TRAPS}
    LOOP
        RAISE EXCEPTION 'schema public holds a %: drop it first, another role could run it unawares', trap;
    END LOOP;
END $relay$;
"""

_CLOSE: Final = f"""\
DO $relay$
DECLARE
    owner name := (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'public.mailbox'::regclass);
BEGIN
    EXECUTE format('GRANT USAGE, CREATE ON SCHEMA public TO %I', owner);
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC, {", ".join(ROLES)}', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I, {", ".join(ROLES)}', current_database(), owner);
END $relay$;
"""  # noqa: S608  # names of ours

_NAMES: Final = ", ".join(f"'{user}'" for user in ROLES)
_CHECK_CLOSED: Final = f"""\
DO $relay$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY[{_NAMES}]
    LOOP
        IF (SELECT rolsuper OR rolbypassrls OR rolcreaterole OR rolreplication FROM pg_roles WHERE rolname = role) THEN
            RAISE EXCEPTION '% has attributes of an administrator: ALTER ROLE % NOSUPERUSER NOBYPASSRLS NOCREATEROLE'
                ' NOREPLICATION', role, role;
        END IF;
        IF EXISTS (SELECT 1 FROM pg_auth_members AS m JOIN pg_roles AS r ON r.oid = m.member WHERE r.rolname = role)
        THEN
            RAISE EXCEPTION '% is a member of another role, and so has its rights: REVOKE that role', role;
        END IF;
        IF has_schema_privilege(role, 'public', 'CREATE')
            OR has_database_privilege(role, current_database(), 'CREATE')
            OR has_database_privilege(role, current_database(), 'TEMPORARY')
        THEN
            RAISE EXCEPTION '% can still create objects: run these statements as the owner of the database and of'
                ' schema public, on PostgreSQL 14 and older as a superuser', role;
        END IF;
    END LOOP;
END $relay$;
"""  # noqa: S608  # names of ours

_FORBID: Final = """\
CREATE OR REPLACE FUNCTION public.relay_forbid() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $relay$
BEGIN
    RAISE EXCEPTION 'permission denied: % may not do this to table %', current_user, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege', HINT = TG_NAME;
END $relay$;
REVOKE ALL ON FUNCTION public.relay_forbid() FROM PUBLIC;
"""


def grants_sql() -> str:
    """Return the statements that give each role's user its rights and take all others away.

    The owner of the tables runs them after every upgrade; the users must exist.
    """
    users = ", ".join(ROLES)
    lines = [
        # Names are PostgreSQL's own, whatever schema public holds.
        "SET search_path = pg_catalog, pg_temp;",
        "SET client_min_messages = warning;",
        _CHECK_TRAPS,
        f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, {users};",
        f"REVOKE ALL ON SCHEMA public FROM PUBLIC, {users};",
        f"GRANT USAGE ON SCHEMA public TO {users};",
        _CLOSE,
    ]
    for grant in GRANTS:
        columns = f" ({', '.join(_quoted(name) for name in grant.columns)})" if grant.columns else ""
        lines.append(f"GRANT {grant.right}{columns} ON public.{grant.table} TO {grant.user};")
    lines.append(f"\n{_FORBID}")
    for guard in GUARDS:
        lines.append(f"DROP TRIGGER IF EXISTS {guard.name} ON public.{guard.table};")
        lines.append(
            f"CREATE TRIGGER {guard.name} BEFORE {guard.event} ON public.{guard.table} FOR EACH ROW\n"
            f"    WHEN (current_user = '{guard.user}' AND ({guard.when})) EXECUTE FUNCTION public.relay_forbid();"
        )
    lines += ["", _CHECK_CLOSED, "RESET client_min_messages;", "RESET search_path;"]
    return "\n".join(lines) + "\n"


async def grant(database: Database) -> None:
    """Run the statements of `grants_sql` on PostgreSQL, as one transaction of the owner of the tables.

    Raises StoreUnavailable.
    """
    await database.run(renew_grants)


def renew_grants(connection: sa.Connection) -> None:
    """Do what `grant` does, at the end of a transaction."""
    # A script of many statements has no answer to read: the driver sends it as one simple query.
    driver = connection.connection.driver_connection
    if driver is not None:
        await_only(driver.execute(grants_sql()))


def _quoted(name: str) -> str:
    return f'"{name}"'


async def excess(database: Database, role: Role) -> list[str]:
    """Return what the database user of a process may do that its role's work does not need, each as a phrase.

    Empty for the embedded database, and for a process of all roles. Raises StoreUnavailable.
    """
    user = _USERS.get(role)
    if database.dialect.name != "postgresql" or user is None:
        return []
    return await database.run(_excess, user, role)


async def missing(database: Database, role: Role) -> list[str]:
    """Return what the database user of a process lacks for its role's work, each as a phrase.

    Empty for the embedded database, and for a process of all roles. Raises StoreUnavailable.
    """
    user = _USERS.get(role)
    if database.dialect.name != "postgresql" or user is None:
        return []
    return await database.run(_missing, user)


def _missing(connection: sa.Connection, user: str) -> list[str]:
    if not connection.scalar(sa.text("SELECT pg_catalog.has_schema_privilege('public', 'USAGE')")):
        return ["may not use schema public"]
    has = {tuple(row) for row in connection.execute(sa.text(_RIGHTS))}
    needed = {
        (grant.right, grant.table)
        for grant in GRANTS
        if grant.user == user
        for column in (grant.columns or (("",) if grant.right == "DELETE" else _columns(grant.table)))
        if (grant.table, column, grant.right) not in has
    }
    guards = set(connection.scalars(sa.text(_GUARDED)))
    unguarded = sorted(guard.name for guard in GUARDS if guard.user == user and guard.name not in guards)
    found = [f"lacks {right} on {table}" for right, table in sorted(needed, key=lambda each: (each[1], each[0]))]
    return found + [f"is not held back by the trigger {name}" for name in unguarded]


def _excess(connection: sa.Connection, user: str, role: Role) -> list[str]:
    if connection.scalar(sa.text("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user")):
        return ["is a superuser"]
    if connection.scalar(sa.text(_OWNS)):
        return ["owns the tables"]
    found = [phrase for phrase, query in _MORE if connection.scalar(sa.text(query))]
    found += [f"may meet a {trap}" for trap in connection.scalars(sa.text(_TRAPS))]
    rights = [tuple(row) for row in connection.execute(sa.text(_RIGHTS))]
    allowed = {
        (grant.table, column, grant.right)
        for grant in GRANTS
        if grant.user == user
        for column in (grant.columns or ("", *_columns(grant.table)))
    }
    more = sorted({(right, table) for table, column, right in rights if (table, column, right) not in allowed})
    sealed = [(t, c) for t, c, right in rights if right == "SELECT" and (t, c) in _SEALED and role is not Role.WATCH]
    found += [f"may read {table}.{column}" for table, column in sealed]
    return found + [f"has {right} on {table}" for right, table in more]


_USERS: Final = {Role.API: API, Role.WATCH: WATCH, Role.PUSH: PUSH}
_GUARDED: Final = "SELECT tgname::text FROM pg_catalog.pg_trigger WHERE NOT tgisinternal AND tgenabled IN ('O', 'A')"
_SEALED: Final = (("mailbox", "sealed_credential"), ("candidate", "sealed"))
_OWNS: Final = """\
SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_class
    WHERE oid = 'public.mailbox'::pg_catalog.regclass AND pg_catalog.pg_has_role(relowner, 'MEMBER'))"""
_MORE: Final = (
    ("may create objects in schema public", "SELECT pg_catalog.has_schema_privilege('public', 'CREATE')"),
    (
        "may create temporary tables",
        "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY')",
    ),
    (
        "may create schemas",
        "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')",
    ),
    (
        "is a member of other roles",
        """SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_auth_members AS m
            JOIN pg_catalog.pg_roles AS r ON r.oid = m.member WHERE r.rolname = current_user)""",
    ),
)
_RIGHTS: Final = """\
SELECT c.relname::text, a.attname::text, r.name
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = 'public'
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
CROSS JOIN (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('REFERENCES')) AS r (name)
WHERE c.relkind IN ('r', 'v', 'm', 'p') AND pg_catalog.has_column_privilege(c.oid, a.attnum, r.name)
UNION ALL
SELECT c.relname::text, '', r.name
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = 'public'
CROSS JOIN (VALUES ('DELETE'), ('TRUNCATE'), ('TRIGGER')) AS r (name)
WHERE c.relkind IN ('r', 'v', 'm', 'p') AND pg_catalog.has_table_privilege(c.oid, r.name)"""
"""Every right of the present user on every column, and those on whole tables."""


def _columns(table: str) -> list[str]:
    """Return the columns of a table; Alembic's own has one."""
    return [column.name for column in metadata.tables[table].c] if table in metadata.tables else ["version_num"]
