"""How rows are read singly: one that cannot be read is left out and told, and the others are read all the same."""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from operator import itemgetter
from typing import Any, Final, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.exc import DBAPIError

from relay.store.engine import away
from relay.store.prepared import Prepared
from relay.store.tables import Moment

T = TypeVar("T")

LONGEST: Final = 65_536
"""Characters of a text; ids, keys, tokens and reasons are far shorter."""
SHOWN: Final = 120
"""Characters of a fault that are shown."""
AT_ONCE: Final = 200
"""Keys per statement; far below both databases' limit of parameters and of nested expressions."""
FORMS: Final = 64
"""Forms of good rows that a reader knows again."""
NO_PARAMETERS: Final[Mapping[str, object]] = {}
UNDECODABLE: Final = (ValueError, TypeError, ArithmeticError, RecursionError, sqlite3.OperationalError, DBAPIError)
"""What drivers and SQLAlchemy raise for a value that they cannot turn into one of ours."""
WRONG: Final = (ValueError, TypeError, ArithmeticError, AttributeError, LookupError, RecursionError)
"""What a reader raises for a value that is not in the form that it must have."""


@dataclass(frozen=True, slots=True)
class Bad:
    """A row that cannot be read: its primary key and the fault."""

    key: tuple[str, ...]
    fault: str

    @property
    def name(self) -> str:
        """The key as one text."""
        return "/".join(self.key)


class Reader(Generic[T]):
    """Reads the rows of a query as values, each by itself.

    The query must select the key of the table whose rows it reads; conditions may be added to it.
    """

    def __init__(self, query: sa.Select[Any], key: Sequence[sa.Column[Any]], read: Callable[[Row[Any]], T]) -> None:
        """Read rows of `query`, which are those of the table with the primary key `key`."""
        self.query = query
        self._key = tuple(key)
        self._read = read
        columns = [_column(selected) for selected in query.selected_columns]
        self._checks = [None if column is None else _Check(column, key[0].table) for column in columns]
        self._kinds = [None if check is None else check.kind for check in self._checks]
        self._good: dict[tuple[type, ...], Callable[[Row[Any]], Iterable[str]]] = {}
        """What returns the texts, by the types of a row's values, which are good unless a text is too long."""
        self._places = [next(i for i, column in enumerate(columns) if column is part) for part in self._key]

    def all(
        self,
        connection: sa.Connection,
        query: sa.Select[Any] | Prepared,
        parameters: Mapping[str, object] = NO_PARAMETERS,
    ) -> tuple[list[T], list[Bad]]:
        """Run the reader's query with conditions; return the values of its rows, and the rows without a value."""
        rows, bad = fetch(connection, query, self._key, parameters)
        values: list[T] = []
        for row in rows:
            value = self.value(row)
            if isinstance(value, Bad):
                bad.append(value)
            else:
                values.append(value)
        return values, bad

    def value(self, row: Row[Any]) -> T | Bad:
        """Return the value of a row, or what is wrong with it."""
        try:
            texts = self._good.get(tuple(map(type, row)))
            if texts is None or len("".join(texts(row))) > LONGEST:  # no text is too long if all together are not
                self._check(row)
            return self._read(row)
        except WRONG as error:
            return Bad(tuple(str(row[place]) for place in self._places), describe(error))

    def _check(self, row: Row[Any]) -> None:
        """Raise ValueError for a row with a value that is not as its column says."""
        for check, kind, value in zip(self._checks, self._kinds, row, strict=False):
            if check is not None and (type(value) is not kind or (isinstance(value, str) and len(value) > LONGEST)):
                check.accept(value)
        types = tuple(map(type, row))
        if float not in types and len(self._good) < FORMS:
            places = [place for place, kind in enumerate(types) if kind is str]
            # A getter of one place returns its value, not a tuple.
            self._good[types] = itemgetter(*places) if len(places) > 1 else lambda row: [row[i] for i in places]


class _Check:
    """Compares a value with the type of its column: SQLite stores anything anywhere."""

    def __init__(self, column: sa.Column[Any], table: sa.FromClause) -> None:
        self._name = column.name
        self._kinds = _kinds(column.type)
        self.kind = self._kinds[0] if self._kinds and self._kinds[0] is not float else None
        """The type of values that need no check, but texts that of their length; None: all need it."""
        # A column of a table that was joined may be missing with its row.
        self._optional = bool(column.nullable) or column.table is not table

    def accept(self, value: object) -> None:
        """Raise ValueError for a value that is of another type, too long, or not finite."""
        if value is None:
            if not self._optional:
                raise ValueError(f"{self._name}: missing")
        elif self._kinds and (
            not isinstance(value, self._kinds) or (self._kinds == (int,) and isinstance(value, bool))
        ):
            raise ValueError(f"{self._name}: {type(value).__name__} instead of {self._kinds[0].__name__}")
        elif isinstance(value, str) and len(value) > LONGEST:
            raise ValueError(f"{self._name}: {len(value)} characters")
        elif isinstance(value, float) and not isfinite(value):
            raise ValueError(f"{self._name}: not a finite number")


def fetch(
    connection: sa.Connection,
    query: sa.Select[Any] | Prepared,
    key: Sequence[sa.ColumnElement[Any]],
    parameters: Mapping[str, object] = NO_PARAMETERS,
) -> tuple[list[Row[Any]], list[Bad]]:
    """Return the rows of a query, and those with values that cannot be decoded.

    One such value spoils the answer as a whole, so the rows are then asked for in halves, by their keys.
    """
    select: sa.Select[Any]
    select = query.statement(connection.dialect.name) if isinstance(query, Prepared) else query
    try:
        if isinstance(query, Prepared):
            return query.rows(connection, parameters), []
        return list(connection.execute(query, parameters).all()), []
    except UNDECODABLE as error:
        if is_ours(error):
            raise
    keys = [tuple(row) for row in connection.execute(select.with_only_columns(*key), parameters).all()]
    return _halves(connection, select.limit(None), key, keys, parameters)


def _halves(
    connection: sa.Connection,
    query: sa.Select[Any],
    key: Sequence[sa.ColumnElement[Any]],
    keys: Sequence[tuple[Any, ...]],
    parameters: Mapping[str, object],
) -> tuple[list[Row[Any]], list[Bad]]:
    if not keys:
        return [], []
    try:
        chosen = query.where(sa.or_(*(sa.and_(*map(_equal, key, values)) for values in keys)))
        if len(keys) <= AT_ONCE:
            return list(connection.execute(chosen, parameters).all()), []
    except UNDECODABLE as error:
        if is_ours(error):
            raise
        if len(keys) == 1:
            return [], [Bad(tuple(map(str, keys[0])), describe(error))]
    middle = len(keys) // 2
    rows, bad = _halves(connection, query, key, keys[:middle], parameters)
    more_rows, more_bad = _halves(connection, query, key, keys[middle:], parameters)
    return rows + more_rows, bad + more_bad


def _equal(column: sa.ColumnElement[Any], value: object) -> sa.ColumnElement[bool]:
    return column == value


def is_ours(error: Exception) -> bool:
    """Return True if an error is no value's fault: the database is away, or refuses the statement."""
    if away(error):
        return True
    return isinstance(error, DBAPIError) and not isinstance(error.orig, UNDECODABLE)


def describe(error: BaseException) -> str:
    """Return the fault that an error stands for; a driver's own text may hold what is secret."""
    if isinstance(error, (DBAPIError, sqlite3.OperationalError)):
        return "a value that cannot be decoded"
    return f"{error}"[:SHOWN] or type(error).__name__


def faults(bad: Iterable[Bad]) -> dict[str, str]:
    """Return what is wrong with rows, by their keys."""
    return {each.name: each.fault for each in bad}


def _column(selected: sa.ColumnElement[Any]) -> sa.Column[Any] | None:
    """Return the column of a table that is selected, under its own or another name; None: an expression."""
    inner = selected.element if isinstance(selected, sa.Label) else selected
    return inner if isinstance(inner, sa.Column) else None


def _kinds(kind: sa.types.TypeEngine[Any]) -> tuple[type, ...]:
    """Return the types of Python that a column's values have; none: any."""
    if isinstance(kind, Moment):
        return (datetime,)
    if isinstance(kind, sa.Boolean):
        return (bool,)
    if isinstance(kind, sa.Integer):
        return (int,)
    if isinstance(kind, sa.Double):
        return (float, int)
    if isinstance(kind, sa.LargeBinary):
        return (bytes,)
    return (str,) if isinstance(kind, sa.Text) else ()
