"""Test that prepared statements do what SQLAlchemy does with the same statement, on both databases."""

import json
from datetime import timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa

from relay.domain.errors import StoreUnavailable
from relay.store.bulk import Among
from relay.store.engine import Database, open_database
from relay.store.prepared import Prepared, write_json
from relay.store.registrations import SqlRegistrationStore
from relay.store.tables import mailbox, registration
from relay.store.updates import Updates
from tests.contract.samples import NOW, register
from tests.transactions import recorded

ALL = sa.select(*mailbox.c, *(column.label(f"of_{column.name}") for column in registration.c)).join_from(
    mailbox, registration
)
BY_ID = sa.update(mailbox).where(mailbox.c.id == sa.bindparam("_id"))


async def test_rows_have_the_values_that_sqlalchemy_reads(
    engine: Database, registrations: SqlRegistrationStore
) -> None:
    await register(registrations)
    ours, theirs = Prepared(ALL), ALL

    def compare(connection: sa.Connection) -> tuple[Any, Any]:
        return ours.rows(connection), connection.execute(theirs).all()

    [row], [expected] = await engine.run(compare)

    assert tuple(row) == tuple(expected)
    assert (row.since, row.of_classes, row.dirty) == (NOW, ["calendar", "email"], True)


async def test_values_are_written_as_sqlalchemy_writes_them(
    engine: Database, registrations: SqlRegistrationStore
) -> None:
    for name in ("ann", "ben", "eve"):
        await register(registrations, name)
    later = (NOW + timedelta(microseconds=1)).astimezone(timezone(timedelta(hours=5)))
    values = {"sealed_credential": b"\x00\xff", "last_ping_at": later, "heartbeat": 0.5, "dirty": False, "url": None}
    columns = tuple(values)

    def write(connection: sa.Connection) -> Any:
        Prepared(BY_ID, columns).execute(connection, {"_id": "mb-ann", **values})
        Prepared(BY_ID, columns).many(connection, [{"_id": "mb-ben", **values}])
        connection.execute(BY_ID, [{"_id": "mb-eve", **values}])
        read = sa.select(*(mailbox.c[name] for name in columns)).where(Among("ids", mailbox.c.id))
        return Prepared(read).rows(connection, {"ids": ["mb-ann", "mb-ben", "mb-eve"]})

    written = await engine.run(write)

    assert [row._asdict() for row in written] == [values] * 3


@pytest.mark.parametrize("value", [["it's", "é\\\0"], (("a", 1, 0.5, True, None),), {"email": 1.5}, [], None])
def test_json_is_written_as_the_standard_library_writes_it(value: Any) -> None:
    assert write_json(value) == json.dumps(value)


def test_what_is_no_json_is_not_written() -> None:
    with pytest.raises(TypeError, match="datetime is not JSON serializable"):
        write_json([NOW])


async def test_values_that_all_rows_share_are_given_once(engine: Database, registrations: SqlRegistrationStore) -> None:
    for name in ("ann", "ben"):
        await register(registrations, name)
    update = Prepared(BY_ID, ("last_ping_at", "heartbeat"))

    def write(connection: sa.Connection) -> list[Any]:
        rows = [{"_id": "mb-ann", "heartbeat": 1.5}, {"_id": "mb-ben", "heartbeat": 2.5}]
        update.many(connection, rows, {"last_ping_at": NOW})
        return Prepared(sa.select(mailbox.c.last_ping_at, mailbox.c.heartbeat).order_by(mailbox.c.id)).rows(connection)

    assert await engine.run(write) == [(NOW, 1.5), (NOW, 2.5)]


@pytest.mark.parametrize("odd", ["it's", 'a "b", {c}', "NULL", "\\", '\\","', "\t\n é\x01", " "])
async def test_many_rows_are_updated_each_to_values_of_its_own(
    engine: Database, registrations: SqlRegistrationStore, odd: str
) -> None:
    for name in ("ann", "ben", "eve"):
        await register(registrations, name)
    names = ("pushed", "last_push_at", "quarantine_reason", "rechecks", "recheck_at")
    ann: tuple[object, ...] = ({"email": 1.5}, NOW, odd, 1, None)
    ben: tuple[object, ...] = ({}, NOW + timedelta(hours=1), "", 2, NOW)
    rows = [
        {"_id": f"reg-{name}-phone", **dict(zip(names, values, strict=True))}
        for name, values in (("ann", ann), ("ben", ben))
    ]

    updated = await engine.run(Updates(registration, ("id",), names).run, rows)

    written = sa.select(*(registration.c[name] for name in names)).order_by(registration.c.id)
    assert updated == 2
    assert await engine.run(Prepared(written).rows) == [ann, ben, (None, None, "", 0, None)]


async def test_listeners_hear_of_prepared_statements(engine: Database) -> None:
    with recorded(engine) as committed:
        await engine.run(Prepared(sa.select(mailbox.c.id)).rows)

    assert [len(statements) for statements in committed] == [1]


async def test_errors_are_those_of_sqlalchemy_without_values(
    engine: Database, registrations: SqlRegistrationStore
) -> None:
    await register(registrations)
    insert = Prepared(sa.insert(registration), ("id", "mailbox_id", "device_token"))
    wrong = Prepared(sa.select(sa.text("no_such_column")).select_from(mailbox))

    with pytest.raises(sa.exc.IntegrityError) as raised:
        await engine.run(insert.execute, {"id": "r", "mailbox_id": "mb-ann", "device_token": "secret-token"})
    with pytest.raises(sa.exc.DBAPIError, match="no_such_column"):
        await engine.run(wrong.execute)

    assert "secret-token" not in str(raised.value)
    assert await engine.run(Prepared(sa.select(sa.func.count()).select_from(registration)).rows) == [(1,)]


async def test_a_lost_connection_is_replaced(postgres_engine: Database) -> None:
    cut = Prepared(sa.select(sa.func.pg_terminate_backend(sa.func.pg_backend_pid())))

    with pytest.raises(StoreUnavailable):
        await postgres_engine.run(cut.rows)

    assert await postgres_engine.run(Prepared(sa.select(sa.literal(1))).rows) == [(1,)]


async def test_a_connection_that_does_not_answer_in_time_is_dropped(postgres_engine: Database) -> None:
    def late(*_: object) -> None:
        raise TimeoutError

    def ask(connection: sa.Connection) -> None:
        sa.event.listen(connection, "before_cursor_execute", late)
        try:
            Prepared(sa.select(sa.literal(1))).rows(connection)
        finally:
            dropped.append(connection.invalidated)

    dropped: list[bool] = []
    with pytest.raises(StoreUnavailable):
        await postgres_engine.run(ask)

    assert dropped == [True]


async def test_a_changed_table_spoils_one_transaction_and_not_the_next(fresh_postgres_url: str) -> None:
    everything = Prepared(sa.select(sa.text("*")).select_from(mailbox))
    async with open_database(fresh_postgres_url) as engine:
        await engine.run(everything.execute)
        await engine.run(lambda connection: connection.execute(sa.text("ALTER TABLE mailbox ADD COLUMN odd integer")))

        with pytest.raises(StoreUnavailable):
            await engine.run(everything.execute)
        await engine.run(everything.execute)


def test_a_statement_with_an_expanding_list_is_refused() -> None:
    listed = Prepared(sa.select(mailbox.c.id).where(mailbox.c.id.in_(["a"])))
    with sa.create_engine("sqlite://").connect() as connection, pytest.raises(AssertionError, match="is a list"):
        listed.rows(connection)
