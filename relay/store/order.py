"""Own the order in which rows are locked: everybody's is that of the keys' characters, as Python sorts them.

Who locks rows one by one, as a list of updates or inserts does, has them in that order. A database that sorts otherwise
(PostgreSQL by its locale, where `a` comes before `B`) would lock them in another one, and both would wait in a circle.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


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
