"""How a database takes the content of another one, and what follows: the world went on since that content was read."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from relay.admin.audit import Stamp, What
from relay.domain.errors import BackupInvalid, DatabaseBusy, DatabaseFilled, DatabaseRefuses
from relay.domain.model import RegistrationState
from relay.store import acts
from relay.store.copying import LeftOut, Shape, Sum, continue_numbers, read_lines, shapes, summed, write_lines
from relay.store.engine import Database, scrub
from relay.store.migrate import (
    Leaving,
    drop_tables,
    lock_revision,
    one_at_a_time,
    revision_of,
    revisions,
    set_leaving,
    upgrade_to,
)
from relay.store.privileges import ROLES, renew_grants
from relay.store.rows import FREE
from relay.store.tables import (
    Moment,
    act,
    candidate,
    key_holder,
    mailbox,
    metadata,
    node,
    outbox,
    registration,
    sealed_anew,
    shard,
    wipe,
)

_OF_MIGRATIONS: Final = frozenset({shard.name, sealed_anew.name, node.name, key_holder.name})
"""Tables with rows in a database that nobody has used yet, and those of the processes."""
_SESSIONS: Final = """\
SELECT DISTINCT 'sessions of the database user ' || coalesce(usename, '?') FROM pg_catalog.pg_stat_activity
WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid()
    AND (application_name = 'push-relay' OR usename IN :roles)"""
_PATIENT: Final = (
    "SET LOCAL statement_timeout = 0",
    "SET LOCAL idle_in_transaction_session_timeout = '60s'",  # between two batches this process reads or writes a file
)


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a database, to be put into another one."""

    revision: str
    tables: Iterable[tuple[Shape, Iterator[bytes]]]
    """Each table once, behind those that its rows belong to; its lines end before the next one is taken."""
    origin: str
    """Where it is from, as words for the audit log."""


@dataclass(frozen=True, slots=True)
class Filled:
    """What a database took."""

    sums: Mapping[str, Sum]
    """By table."""
    credentials: int
    """Sealed credentials of mailboxes."""
    silent: int
    """Registrations that ring again once their apps have sent their device tokens."""
    granted: bool
    """Whether the roles' users have their rights on the new tables, as they had on those before."""


def snapshot(connection: sa.Connection) -> None:
    """Begin a transaction that sees one state of the database, whatever others commit meanwhile."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        _be_patient(connection)


def leave(connection: sa.Connection) -> None:
    """Note that the content of a database is taken elsewhere from now on, so that no process starts on it.

    Raises DatabaseBusy, SchemaNewer.
    """
    one_at_a_time(connection)
    lock_revision(connection)
    refuse_users(connection)
    set_leaving(connection, Leaving.UNDER_WAY)


def have_left(connection: sa.Connection) -> None:
    """Note that the content of a database is elsewhere, so that it is never taken from here again."""
    set_leaving(connection, Leaving.DONE)


def come_back(connection: sa.Connection) -> None:
    """Let processes use a database again that was left."""
    lock_revision(connection)
    set_leaving(connection, Leaving.NO)


def fill(connection: sa.Connection, content: Content, stamp: Stamp, what: What, *, replace: bool, keep: bool) -> Filled:
    """Put content into a database, which must be empty or be replaced, and bring it to the newest schema.

    All of it is read back and compared. If the registrations `keep` ringing, nothing may have been removed since the
    content was read; else they are distrusted. Raises DatabaseFilled, DatabaseBusy, BackupInvalid, DatabaseRefuses,
    RowsForbidden, SchemaNewer; nothing is changed then, if the transaction is rolled back.
    """
    if connection.dialect.name == "postgresql":
        _be_patient(connection)
    one_at_a_time(connection)
    before, _ = revision_of(connection)
    if before is not None:
        lock_revision(connection)
        refuse_users(connection)
    held = rows_of(connection)
    if held and not replace:
        raise DatabaseFilled(held)
    epoch, ended = _highest_epoch(connection) if before else 0, _last_act(connection)
    wipes = connection.execute(sa.select(wipe)).mappings().all() if before == revisions()[-1] else ()
    granted = connection.dialect.name == "postgresql" and _has_grants(connection)
    drop_tables(connection)
    upgrade_to(connection, content.revision)
    sums = _take(connection, content)
    if content.revision != revisions()[-1]:
        upgrade_to(connection, "head")
    _let_nobody_own(connection, epoch)
    _add_wipes(connection, wipes)
    silent = 0 if keep else _silence(connection)
    rows = sum(each.rows for each in sums.values())
    detail = f"{rows} rows of {content.origin}{ended}{'' if keep else f', {silent} registrations'}"
    acts.note(connection, stamp, what, detail=detail)
    if granted:
        renew_grants(connection)
    sealed = mailbox.c.sealed_credential.is_not(None)
    credentials = connection.scalar(sa.select(sa.func.count()).select_from(mailbox).where(sealed)) or 0
    return Filled(sums, credentials, silent, granted)


def _be_patient(connection: sa.Connection) -> None:
    for statement in _PATIENT:
        connection.execute(sa.text(statement))


def refuse_users(connection: sa.Connection) -> None:
    """Raise DatabaseBusy if other processes of the relay use a database of PostgreSQL.

    Of an embedded one a lock on its file says so.
    """
    if users := users_of(connection):
        raise DatabaseBusy(users)


def users_of(connection: sa.Connection) -> list[str]:
    """Return who of the relay uses a database of PostgreSQL now, each as a phrase; none for an embedded one."""
    if connection.dialect.name != "postgresql":
        return []
    sessions = sa.text(_SESSIONS).bindparams(sa.bindparam("roles", list(ROLES), expanding=True))
    users = list(connection.scalars(sessions))
    columns = sa.inspect(connection).get_columns(node.name) if sa.inspect(connection).has_table(node.name) else ()
    if node.c.alive_until.name in {each["name"] for each in columns}:  # in older schemas it has no leases
        alive = sa.select(node.c.id).where(node.c.alive_until > sa.func.clock_timestamp(type_=Moment))
        users += [f"watch process {name}" for name in connection.scalars(alive)]
    return users


def rows_of(connection: sa.Connection) -> dict[str, int]:
    """Return how many rows the tables have that hold what a relay has learnt; tables without rows are left out."""
    present = set(sa.inspect(connection).get_table_names())
    numbers = {
        table.name: connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0
        for table in metadata.sorted_tables
        if table.name in present - _OF_MIGRATIONS
    }
    return {name: number for name, number in numbers.items() if number}


def _highest_epoch(connection: sa.Connection) -> int:
    return connection.scalar(sa.select(sa.func.max(shard.c.epoch))) or 0


def _last_act(connection: sa.Connection) -> str:
    """Return the end of the audit log that is about to be replaced, as words for the new one."""
    if not sa.inspect(connection).has_table(act.name):
        return ""
    last = connection.execute(
        sa.select(act.c.number, act.c.digest).order_by(act.c.number.desc()).limit(1)
    ).one_or_none()
    return "" if last is None else f", in place of a log that ended with act {last.number}, {last.digest}"


def _has_grants(connection: sa.Connection) -> bool:
    """Return whether the user of a role has rights on the tables that are there."""
    query = sa.text(
        "SELECT EXISTS (SELECT 1 FROM information_schema.role_table_grants"
        " WHERE table_schema = 'public' AND table_name = 'mailbox' AND grantee IN :roles)"
    )
    return bool(connection.scalar(query.bindparams(sa.bindparam("roles", list(ROLES), expanding=True))))


def _take(connection: sa.Connection, content: Content) -> dict[str, Sum]:
    """Insert the rows of each table and read them back; return their sums."""
    wanted = {shape.table: shape for shape in shapes(connection)}
    for shape in reversed(wanted.values()):  # rows that migrations have made
        connection.execute(sa.delete(sa.table(shape.table)))
    sums: dict[str, Sum] = {}
    for shape, lines in content.tables:
        own = wanted.get(shape.table)
        if own is None or own.key != shape.key or dict(own.columns) != dict(shape.columns) or shape.table in sums:
            raise BackupInvalid(f"its table {shape.table} is not that of the schema {content.revision}")
        try:
            sums[shape.table] = write_lines(connection, shape, lines)
        except (ValueError, TypeError) as error:
            raise BackupInvalid(f"its table {shape.table} has a row that is none of its rows") from error
        if summed(read_lines(connection, shape, LeftOut())) != sums[shape.table]:
            raise DatabaseRefuses(f"the table {shape.table} does not hold what was written to it")
        continue_numbers(connection, shape)
    if lacks := sorted(wanted.keys() - sums.keys()):
        raise BackupInvalid(f"it lacks tables of the schema {content.revision}: {', '.join(lacks)}")
    return sums


def _let_nobody_own(connection: sa.Connection, epoch: int) -> None:
    """Free all that processes of the past own; a process that had a shard here under an old epoch commits nothing."""
    for processes in (node, key_holder):
        connection.execute(sa.delete(processes))
    higher = sa.case((shard.c.epoch < epoch, epoch), else_=shard.c.epoch) + 1
    connection.execute(sa.update(shard).values(owner=None, lease_until=None, epoch=higher))
    connection.execute(sa.update(outbox).where(outbox.c.claimed_by.is_not(None)).values(FREE))


def _add_wipes(connection: sa.Connection, wipes: Iterable[sa.RowMapping]) -> None:
    """Let accounts stay wiped that a database knew before it was replaced."""
    known = {tuple(row) for row in connection.execute(sa.select(wipe.c.server, wipe.c.account))}
    lacking = [dict(row) for row in wipes if (row["server"], row["account"]) not in known]
    if lacking:
        connection.execute(sa.insert(wipe), lacking)


async def distrust(database: Database, stamp: Stamp) -> int:
    """Let no registration ring before its app has sent its device token again; return how many there are.

    They become `token-gone`, as if the provider had said so: each app knows what to do then, and those that do not come
    back end after their time, with the stored credentials. Marks and candidates are dropped, but for the last push of
    wiped registrations. No role may run.
    """
    number = await database.run(_distrust, stamp)
    await scrub(database)
    return number


def _distrust(connection: sa.Connection, stamp: Stamp) -> int:
    number = _silence(connection)
    acts.note(connection, stamp, What.RESTORED, detail=f"{number} registrations")
    return number


def _silence(connection: sa.Connection) -> int:
    pushed = (RegistrationState.ACTIVE.value, RegistrationState.PROVING.value)
    active = sa.update(registration).where(registration.c.state.in_(pushed))
    gone = active.values(state=RegistrationState.TOKEN_GONE.value, idle_since=None).returning(registration.c.id)
    number = len(connection.scalars(gone).all())
    wiped = sa.select(registration.c.id).where(registration.c.state == RegistrationState.WIPED.value)
    connection.execute(sa.delete(outbox).where(outbox.c.registration_id.not_in(wiped)))
    connection.execute(sa.delete(candidate))
    connection.execute(sa.update(mailbox).values(dirty=True))
    return number
