"""Own how many values reach a statement as one: binding each of them costs more than the database takes for its row.

They travel as JSON, which both databases take apart themselves, so a statement is the same whatever their number.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.operators import OperatorType

from relay.store.tables import Moment


class ByCharacter(FunctionElement[str]):
    """Be a column of texts that is sorted by its characters' code points, whatever the database's locale."""

    type = sa.Text()
    inherit_cache = True

    def __init__(self, column: sa.Column[Any]) -> None:
        """Take a column of texts."""
        super().__init__(column)


@compiles(ByCharacter)
def _as_it_is(element: ByCharacter, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses.clauses[0], **options)


@compiles(ByCharacter, "postgresql")
def _collated(element: ByCharacter, compiler: SQLCompiler, **options: Any) -> str:
    return f'{_as_it_is(element, compiler, **options)} COLLATE "C"'


def in_order(*key: sa.Column[Any]) -> list[ByCharacter]:
    """Give what to order a statement by that locks rows with this key."""
    return [ByCharacter(column) for column in key]


ROWS: Final = "rows"
"""The parameter of the inserts made here: a list of rows, each a list of values in the order of the given columns, with
moments as their text."""
NOTHING: Final[Mapping[str, sa.ColumnElement[Any]]] = {}
ZONE: Final = 6
"""Characters of the zone at the end of a moment's text."""


class Among(FunctionElement[bool]):
    """Be true where the values of some columns are in the list that one parameter holds; it may be empty.

    Of one column the list holds values, of several it holds lists of them.
    """

    type = sa.Boolean()
    inherit_cache = True

    def __init__(self, parameter: str, *columns: sa.Column[Any]) -> None:
        """Take the name of the parameter, and columns of texts or numbers."""
        super().__init__(sa.bindparam(parameter, type_=sa.JSON), *columns)

    def self_group(self, against: OperatorType | None = None) -> Self:  # noqa: ARG002  # SQLAlchemy's own
        """Stay as it is: SQLite uses no index for a comparison that is compared with 1."""
        return self


@compiles(Among, "sqlite")
def _among_on_sqlite(element: Among, compiler: SQLCompiler, **options: Any) -> str:
    keys, *columns = (compiler.process(clause, **options) for clause in element.clauses)
    if len(columns) == 1:
        return f"{columns[0]} IN (SELECT value FROM json_each({keys}))"  # noqa: S608  # a column and a parameter
    values = ", ".join(f"json_extract(value, '$[{place}]')" for place in range(len(columns)))
    return f"({', '.join(columns)}) IN (SELECT {values} FROM json_each({keys}))"  # noqa: S608  # as above


@compiles(Among, "postgresql")
def _among_on_postgresql(element: Among, compiler: SQLCompiler, **options: Any) -> str:
    keys, *columns = (compiler.process(clause, **options) for clause in element.clauses)
    kinds = [compiler.dialect.type_compiler_instance.process(clause.type) for clause in element.clauses.clauses[1:]]
    first = f"json_array_elements_text({keys})" if len(columns) == 1 else f"json_array_elements({keys}) ->> 0"
    # An array is looked up in an index, value by value; a sub-query alone would be joined by the planner's guess.
    among = f"{columns[0]} = ANY (ARRAY(SELECT CAST({first} AS {kinds[0]})))"
    if len(columns) == 1:
        return among
    values = ", ".join(f"CAST(item ->> {place} AS {kind})" for place, kind in enumerate(kinds))
    whole = f"({', '.join(columns)}) IN (SELECT {values} FROM json_array_elements({keys}) AS item)"  # noqa: S608  # as above
    return f"({among} AND {whole})"


def inserts(
    table: sa.Table, given: Sequence[str], fixed: Mapping[str, sa.ColumnElement[Any]] = NOTHING
) -> Mapping[str, postgresql.Insert | sqlite.Insert]:
    """Make for each dialect the statement that inserts rows of `given` columns, with the same `fixed` ones in each."""
    parameter = sa.bindparam(ROWS, type_=sa.JSON)
    columns = [table.c[name] for name in given]
    row = sa.func.json_array_elements(parameter).table_valued("value").c.value
    taken = sa.select(*(_on_postgresql(row, place, column) for place, column in enumerate(columns)), *fixed.values())
    on_postgresql = postgresql.insert(table).from_select([*given, *fixed], taken)
    row = sa.func.json_each(parameter).table_valued("value").c.value
    taken = sa.select(*(_on_sqlite(row, place, column) for place, column in enumerate(columns)), *fixed.values())
    # Without a condition SQLite takes ON CONFLICT for the beginning of a join.
    taken = taken.where(sa.literal_column("1") == sa.literal_column("1"))
    on_sqlite = sqlite.insert(table).from_select([*given, *fixed], taken)
    return {"postgresql": on_postgresql, "sqlite": on_sqlite}


def _on_postgresql(row: sa.ColumnElement[Any], place: int, column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    if isinstance(column.type, sa.JSON):
        return row.op("->")(place)
    return sa.cast(row.op("->>")(place), column.type)


def _on_sqlite(row: sa.ColumnElement[Any], place: int, column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    value = sa.func.json_extract(row, f"$[{place}]")
    if isinstance(column.type, Moment):
        return sa.func.substr(value, 1, sa.func.length(value) - ZONE)
    return value
