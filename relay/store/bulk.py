"""How many values are passed to a statement as one: binding each costs more than the database needs for its row.

They are passed as JSON, which both databases take apart, so that a statement is the same whatever their number.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.operators import OperatorType

from relay.store.tables import BARE, Moment


class ByCharacter(FunctionElement[str]):
    """A column of texts, sorted by code points whatever the database's locale."""

    type = sa.Text()
    inherit_cache = True

    def __init__(self, column: sa.ColumnElement[Any]) -> None:
        """Sort a column of texts."""
        super().__init__(column)


@compiles(ByCharacter)
def _as_it_is(element: ByCharacter, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses.clauses[0], **options)


@compiles(ByCharacter, "postgresql")
def _collated(element: ByCharacter, compiler: SQLCompiler, **options: Any) -> str:
    return f'{_as_it_is(element, compiler, **options)} COLLATE "C"'


def in_order(*key: sa.Column[Any]) -> list[ByCharacter]:
    """Return what a statement that locks rows with this key is ordered by."""
    return [ByCharacter(column) for column in key]


ENOUGH: Final = 1_000_000
"""Counters stop here: one that overflows its column would fail the statement for all rows."""


def count_up(column: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    """Return one more than a counter, up to ENOUGH."""
    return sa.case((column < ENOUGH, column + 1), else_=column)


ROWS: Final = "rows"
"""The parameter of the inserts below: a list of rows, each a list of values in the order of the given columns, with
moments as their text."""
NOTHING: Final[Mapping[str, sa.ColumnElement[Any]]] = {}


class Among(FunctionElement[bool]):
    """A condition: the value of a column is in the list that one parameter holds. The list may be empty."""

    type = sa.Boolean()
    inherit_cache = True

    def __init__(self, parameter: str, column: sa.Column[Any]) -> None:
        """Compare a column of texts or numbers with the parameter of this name."""
        super().__init__(sa.bindparam(parameter, type_=sa.JSON), column)

    def self_group(self, against: OperatorType | None = None) -> Self:  # noqa: ARG002  # as in SQLAlchemy
        """Return itself: without parentheses SQLAlchemy compares it with 1, for which SQLite uses no index."""
        return self


@compiles(Among, "sqlite")
def _among_on_sqlite(element: Among, compiler: SQLCompiler, **options: Any) -> str:
    keys, column = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({keys}))"  # noqa: S608  # a column and a parameter


@compiles(Among, "postgresql")
def _among_on_postgresql(element: Among, compiler: SQLCompiler, **options: Any) -> str:
    keys, column = (compiler.process(clause, **options) for clause in element.clauses)
    kind = compiler.dialect.type_compiler_instance.process(element.clauses.clauses[1].type)
    # PostgreSQL looks an array up in an index, value by value; how it joins a sub-query depends on its estimates.
    return f"{column} = ANY (ARRAY(SELECT CAST(json_array_elements_text({keys}) AS {kind})))"


def inserts(
    table: sa.Table, given: Sequence[str], fixed: Mapping[str, sa.ColumnElement[Any]] = NOTHING
) -> Mapping[str, postgresql.Insert | sqlite.Insert]:
    """Return for each dialect the statement that inserts rows of `given` columns and the same `fixed` values."""
    parameter = sa.bindparam(ROWS, type_=sa.JSON)
    columns = [table.c[name] for name in given]
    row = sa.func.json_array_elements(parameter).table_valued("value").c.value
    values = sa.select(*(from_list(row, index, column) for index, column in enumerate(columns)), *fixed.values())
    on_postgresql = postgresql.insert(table).from_select([*given, *fixed], values)
    row = sa.func.json_each(parameter).table_valued("value").c.value
    values = sa.select(*(_on_sqlite(row, index, column) for index, column in enumerate(columns)), *fixed.values())
    # Without a condition SQLite reads ON CONFLICT as the beginning of a join.
    values = values.where(sa.literal_column("1") == sa.literal_column("1"))
    on_sqlite = sqlite.insert(table).from_select([*given, *fixed], values)
    return {"postgresql": on_postgresql, "sqlite": on_sqlite}


class Listed(sa.types.TypeDecorator[Sequence[Any]]):
    """A parameter for PostgreSQL that is a list of values, as the text of an array.

    The driver takes lists, too, but asks of each value whether it is a list again: that takes longer than all the rest.
    Moments must be aware, or be texts, which are made faster; JSON must be text.
    """

    impl = sa.Text
    cache_ok = True

    def __init__(self, kind: sa.types.TypeEngine[Any]) -> None:
        """List values of this type."""
        super().__init__()
        self.kind = kind

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[Any], str]:  # noqa: ARG002
        """Return what writes a list."""
        return _write_texts if isinstance(self.kind, (sa.Text, sa.JSON)) else _write_others


_BETWEEN: Final = "\0"
"""Between texts that are escaped at once: PostgreSQL keeps no text with this character."""
_QUOTES: Final = '","'


def _write_texts(values: Sequence[str | None]) -> str:
    if not values:
        return "{}"
    if None not in values:
        text = _BETWEEN.join(values)  # type: ignore[arg-type]
        if text.count(_BETWEEN) == len(values) - 1:
            return f'{{"{_escape(text).replace(_BETWEEN, _QUOTES)}"}}'
    return f"{{{','.join(map(_write_text, values))}}}"


def _write_text(value: str | None) -> str:
    return "NULL" if value is None else f'"{_escape(value)}"'


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def _write_others(values: Sequence[object]) -> str:
    texts = map(str, values) if None not in values else ("NULL" if value is None else str(value) for value in values)
    return f"{{{','.join(texts)}}}"


def array(name: str, kind: sa.types.TypeEngine[Any]) -> sa.ColumnElement[Any]:
    """Return the list that a parameter holds, as an array of PostgreSQL."""
    return sa.cast(sa.bindparam(name, type_=Listed(kind)), postgresql.ARRAY(kind))


def unnest(columns: Mapping[str, sa.ColumnElement[Any]]) -> sa.TableValuedAlias:
    """Return rows whose columns are lists, on PostgreSQL: each parameter has the name and type of a column.

    PostgreSQL reads a row of arrays several times faster than one of JSON, which it parses once for each column.
    """
    lists = [array(name, column.type) for name, column in columns.items()]
    named = [sa.column(name, column.type) for name, column in columns.items()]
    return sa.func.unnest(*lists).table_valued(*named).render_derived()


def from_list(row: sa.ColumnElement[Any], index: int, column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """Return on PostgreSQL the value of a column in a row that is a list of JSON."""
    if isinstance(column.type, sa.JSON):
        return row.op("->")(index)
    return sa.cast(row.op("->>")(index), column.type)


def _on_sqlite(row: sa.ColumnElement[Any], index: int, column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    value = sa.func.json_extract(row, f"$[{index}]")
    if isinstance(column.type, Moment):
        return sa.func.substr(value, 1, BARE)
    return value
