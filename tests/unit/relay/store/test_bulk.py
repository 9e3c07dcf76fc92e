"""Many values as one parameter: what the statements look like, and that indexes serve them."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from relay.store.bulk import Among, Listed
from relay.store.tables import Moment, mailbox, metadata, registration, shard


@pytest.fixture
def connection() -> Iterator[sa.Connection]:
    engine = sa.create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def plan(connection: sa.Connection, where: sa.ColumnElement[bool], table: sa.Table) -> str:
    statement = sa.select(sa.literal(1)).select_from(table).where(where).compile(connection)
    arguments = ("[]",) * str(statement).count("?")
    rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", arguments)
    return "\n".join(row[3] for row in rows)


def test_sqlite_looks_keys_up_in_an_index(connection: sa.Connection) -> None:
    among = Among("ids", mailbox.c.id)
    either = Among("mailboxes", registration.c.mailbox_id) & (
        (registration.c.state == "active") | Among("wiped", registration.c.mailbox_id)
    )

    assert "SEARCH mailbox USING COVERING INDEX" in plan(connection, among, mailbox)
    assert "SEARCH registration USING INDEX" in plan(connection, either, registration)


def test_postgresql_gets_an_array_of_the_columns_type() -> None:
    numbers = sa.select(mailbox.c.id).where(Among("shards", mailbox.c.shard))

    text = str(numbers.compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]

    assert "mailbox.shard = ANY (ARRAY(SELECT CAST(json_array_elements_text(%(shards)s::JSON) AS INTEGER)))" in text


def test_nothing_is_among_no_keys(connection: sa.Connection) -> None:
    connection.execute(sa.text("INSERT INTO shard (number, epoch) VALUES (1, 1), (2, 1)"))
    query = sa.select(shard.c.number).where(Among("n", shard.c.number))

    assert connection.scalars(query, {"n": []}).all() == []
    assert connection.scalars(query, {"n": [2, 3]}).all() == [2]


@pytest.mark.parametrize(
    ("kind", "values", "text"),
    [
        (sa.Text(), ["a", "", "b,c"], '{"a","","b,c"}'),
        (sa.Text(), ['a"', "b\\", None], r'{"a\"","b\\",NULL}'),
        (sa.Text(), ["a\0b", '"'], '{"a\0b","\\""}'),
        (sa.Text(), ["NULL"], '{"NULL"}'),
        (sa.JSON(), ['["a"]'], r'{"[\"a\"]"}'),
        (sa.Integer(), [1, None], "{1,NULL}"),
        (sa.Boolean(), [True, False], "{True,False}"),
        (Moment(), [datetime(2026, 11, 24, 8, tzinfo=UTC)], "{2026-11-24 08:00:00+00:00}"),
        (sa.Text(), [], "{}"),
        (sa.Integer(), [], "{}"),
    ],
)
def test_a_list_is_written_as_postgresql_reads_an_array(
    kind: sa.types.TypeEngine[Any], values: Sequence[object], text: str
) -> None:
    write = Listed(kind).bind_processor(postgresql.dialect())  # type: ignore[no-untyped-call]

    assert write(values) == text
