"""Whole tables as lines of text, the same for both databases, and back: what backups and moves are made of.

What a table holds is read from the database, not from `tables.py`: so a table that a migration adds is never left out,
and a database of an older schema can be read and written, too.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import islice
from math import isfinite
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from relay.domain.errors import DatabaseRefuses, RowsUnreadable
from relay.store.bulk import ByCharacter
from relay.store.engine import away
from relay.store.prepared import execute_text
from relay.store.reading import UNDECODABLE, WRONG, describe
from relay.store.tables import Moment, metadata, read_sqlite_text

T = TypeVar("T")

BATCH: Final = 1000  # rows per statement
NAMED: Final = 20  # rows that cannot be read which one error names


class Kind(StrEnum):
    """What a column holds, and how a line spells it."""

    TEXT = "text"
    BYTES = "bytes"  # as base64
    FLAG = "bool"
    WHOLE = "int"
    REAL = "float"
    MOMENT = "moment"  # as `Moment.text` writes it
    JSON = "json"  # as the text that the database holds, in a string: the difference of null and no value stays


class JsonText(sa.types.TypeDecorator[str]):
    """A column of JSON whose values are passed as the text that they are."""

    impl = sa.JSON
    cache_ok = True

    def bind_processor(self, dialect: sa.Dialect) -> None:  # noqa: ARG002 -- as in SQLAlchemy
        """Return nothing: the text is what the driver takes."""
        return


_TYPES: Final[Mapping[Kind, sa.types.TypeEngine[Any]]] = {
    Kind.TEXT: sa.Text(),
    Kind.BYTES: sa.LargeBinary(),
    Kind.FLAG: sa.Boolean(),
    Kind.WHOLE: sa.BigInteger(),
    Kind.REAL: sa.Double(),
    Kind.MOMENT: Moment(),
    Kind.JSON: JsonText(),
}
_KINDS: Final = (  # the first that fits
    (sa.JSON, Kind.JSON),
    (sa.DateTime, Kind.MOMENT),
    (sa.Boolean, Kind.FLAG),
    (sa.LargeBinary, Kind.BYTES),
    (sa.Integer, Kind.WHOLE),
    (sa.Float, Kind.REAL),
    (sa.String, Kind.TEXT),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """A table as a database has it: its name, its primary key, and the kinds of its columns."""

    table: str
    key: tuple[str, ...]
    columns: tuple[tuple[str, Kind], ...]
    parents: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    """Columns that are the key of a row in another table, and that table."""


@dataclass(frozen=True, slots=True)
class Sum:
    """What some lines are, in short: how many, and their SHA-256 in hex."""

    rows: int
    digest: str


@dataclass(slots=True)
class LeftOut:
    """Rows that cannot be read, and those that belong to them, which are no use without."""

    allowed: bool = False
    """False: the first table with such rows is the last one that is read."""
    names: list[str] = field(default_factory=list)
    """Each row as table, key and fault."""
    _keys: set[tuple[str, object]] = field(default_factory=set)

    def add(self, shape: Shape, row: Mapping[str, object], fault: str) -> None:
        """Note a row that is left out."""
        key = [row[name] for name in shape.key]
        self.names.append(f"{shape.table} {'/'.join(map(str, key))} ({fault})")
        if len(key) == 1:
            self._keys.add((shape.table, key[0]))

    def has_parent(self, shape: Shape, row: Mapping[str, object]) -> bool:
        """Return whether the row that a row belongs to is left out."""
        return any((table, row[column]) in self._keys for column, table in shape.parents)


def shapes(connection: sa.Connection) -> list[Shape]:
    """Return the relay's tables that a database has, each behind those that its rows belong to."""
    inspector = sa.inspect(connection)
    present = set(inspector.get_table_names())
    return [_shape(inspector, table.name) for table in metadata.sorted_tables if table.name in present]


def _shape(inspector: sa.Inspector, table: str) -> Shape:
    columns = tuple((each["name"], _kind(each["type"])) for each in inspector.get_columns(table))
    parents = tuple(
        (each["constrained_columns"][0], each["referred_table"]) for each in inspector.get_foreign_keys(table)
    )
    return Shape(table, tuple(inspector.get_pk_constraint(table)["constrained_columns"]), columns, parents)


def _kind(found: sa.types.TypeEngine[Any]) -> Kind:
    return next(kind for type_, kind in _KINDS if isinstance(found, type_))


def _table(shape: Shape) -> sa.TableClause:
    return sa.table(shape.table, *(sa.column(name, _TYPES[kind]) for name, kind in shape.columns))


def read_lines(connection: sa.Connection, shape: Shape, left_out: LeftOut) -> Iterator[bytes]:
    """Yield the rows of a table in the order of its key, each as a line of JSON: a list of values.

    Rows are fetched as they are asked for, some at a time. Raises RowsUnreadable at the end of a table with rows that
    are not what the schema says, unless they may be left out.
    """
    table, kinds, before = _table(shape), dict(shape.columns), len(left_out.names)
    on_sqlite = connection.dialect.name == "sqlite"
    values = [
        # As the driver has them: SQLite keeps anything anywhere, and one bad value must not spoil its neighbours.
        sa.cast(table.c[name], sa.Text) if kind is Kind.JSON and not on_sqlite else sa.type_coerce(table.c[name], _RAW)
        for name, kind in shape.columns
    ]
    order = [ByCharacter(table.c[name]) if kinds[name] is Kind.TEXT else table.c[name] for name in shape.key]
    query = sa.select(*values).order_by(*order)
    names, convert = list(kinds), [_OUT[kind] for kind in kinds.values()]
    try:
        for row in _fetched(connection, query, shape.table):
            if left_out.names and left_out.has_parent(shape, dict(zip(names, row, strict=True))):
                left_out.add(shape, dict(zip(names, row, strict=True)), "belongs to a row that is left out")
                continue
            try:
                line = [None if value is None else to(value) for to, value in zip(convert, row, strict=True)]
            except WRONG as error:
                left_out.add(shape, dict(zip(names, row, strict=True)), describe(error))
                continue
            yield _encode(line).encode() + b"\n"
    except UNDECODABLE as error:
        if not on_sqlite or away(error):
            raise
        left_out.allowed = False
        left_out.names.append(f"{shape.table} ({describe(error)})")
    if len(left_out.names) > before and not left_out.allowed:
        raise RowsUnreadable(left_out.names, NAMED)


def _fetched(connection: sa.Connection, query: sa.Select[*tuple[Any, ...]], table: str) -> Iterator[Any]:
    """Yield the rows of a query without values, some at a time."""
    if connection.dialect.name == "sqlite":
        yield from connection.execute(query.execution_options(yield_per=BATCH))
        return
    # The driver leaves its own cursors open to the end of the transaction, and so the table in use.
    cursor = f"copied_{table}"
    execute_text(connection, f"DECLARE {cursor} NO SCROLL CURSOR FOR {query.compile(dialect=connection.dialect)}")
    while rows := connection.exec_driver_sql(f"FETCH {BATCH} FROM {cursor}").all():
        yield from rows
    execute_text(connection, f"CLOSE {cursor}")


def write_lines(connection: sa.Connection, shape: Shape, lines: Iterable[bytes]) -> Sum:
    """Insert rows that lines hold; return their sum.

    Raises ValueError or TypeError for a line that is no such row, DatabaseRefuses for one that the database does not
    take; no message shows a value.
    """
    insert = _table(shape).insert()
    kinds = dict(shape.columns)
    rows, digest = 0, hashlib.sha256()
    remaining = iter(lines)
    while batch := list(islice(remaining, BATCH)):
        values = [_values(kinds, line) for line in batch]
        try:
            connection.execute(insert, values)
        except DBAPIError as error:
            if away(error):
                raise
            raise DatabaseRefuses(f"rows of the table {shape.table}: {error.orig}") from error
        rows += len(batch)
        digest.update(b"".join(batch))
    return Sum(rows, digest.hexdigest())


def load(line: bytes) -> Any:
    """Return what a line of JSON holds; raises ValueError."""
    try:
        return json.loads(line)
    except RecursionError as error:
        raise ValueError("lists in lists without end") from error


def _values(kinds: Mapping[str, Kind], line: bytes) -> dict[str, object]:
    held = load(line)
    if not isinstance(held, list):
        raise ValueError("a row that is no list")  # noqa: TRY004 -- of the file, not of an argument
    return {
        name: None if value is None else _IN[kind](value)
        for (name, kind), value in zip(kinds.items(), held, strict=True)
    }


def summed(lines: Iterable[bytes]) -> Sum:
    """Return the sum of lines."""
    rows, digest = 0, hashlib.sha256()
    for line in lines:
        rows += 1
        digest.update(line)
    return Sum(rows, digest.hexdigest())


def continue_numbers(connection: sa.Connection, shape: Shape) -> None:
    """Let PostgreSQL number new rows after those that were inserted with their numbers; SQLite does so by itself."""
    if connection.dialect.name != "postgresql":
        return
    for name in shape.key:
        sequence = connection.scalar(sa.select(sa.func.pg_get_serial_sequence(f"public.{shape.table}", name)))
        highest = connection.scalar(sa.select(sa.func.max(_table(shape).c[name]))) if sequence else None
        if highest is not None:
            connection.execute(sa.select(sa.func.setval(sa.cast(sequence, sa.Text), highest)))


def _text(value: object) -> str:
    return value if type(value) is str else _of(str, value)


def _bytes(value: object) -> str:
    return base64.b64encode(_of(bytes, value)).decode()


def _flag(value: object) -> bool:
    if value not in (0, 1):
        raise ValueError("neither true nor false")
    return bool(value)


def _whole(value: object) -> int:
    number = _of(int, value)
    if not -(2**63) <= number < 2**63:
        raise ValueError("more than 64 bits")
    return number


def _real(value: object) -> float:
    number = float(value) if type(value) is int else _of(float, value)
    if not isfinite(number):
        raise ValueError("a number that is not finite")
    return number


def _moment(value: object) -> str:
    if isinstance(value, str):
        value = read_sqlite_text(value)
    return Moment.text(_of(datetime, value))


def _json(value: object) -> str:
    json.loads(_of(str, value))
    return _of(str, value)


def _of(kind: type[T], value: object) -> T:
    if type(value) is not kind:
        raise TypeError(f"of the type {type(value).__name__}, not {kind.__name__}")
    return value


def _from_base64(value: object) -> bytes:
    return base64.b64decode(_of(str, value), validate=True)


def _from_iso(value: object) -> datetime:
    moment = datetime.fromisoformat(_of(str, value))
    if moment.tzinfo is None:
        raise ValueError("a moment without its time zone")
    return moment


_RAW: Final = sa.types.NullType()
_encode: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_OUT: Final[Mapping[Kind, Callable[[object], object]]] = {
    Kind.TEXT: _text,
    Kind.BYTES: _bytes,
    Kind.FLAG: _flag,
    Kind.WHOLE: _whole,
    Kind.REAL: _real,
    Kind.MOMENT: _moment,
    Kind.JSON: _json,
}
_IN: Final[Mapping[Kind, Callable[[object], object]]] = {
    Kind.TEXT: _text,
    Kind.BYTES: _from_base64,
    Kind.FLAG: _flag,
    Kind.WHOLE: _whole,
    Kind.REAL: _real,
    Kind.MOMENT: _from_iso,
    Kind.JSON: _text,
}
