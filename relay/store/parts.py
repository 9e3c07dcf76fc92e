"""Statements for PostgreSQL of several parts: how one part asks for the rows of another, whatever the estimates.

PostgreSQL expects a few rows of a list that is a parameter, and would compare each with each.
"""

from typing import Any

import sqlalchemy as sa


def within(query: sa.Select[Any]) -> Any:
    """Return the values of a query as what a column may be equal to; PostgreSQL looks each up in the column's index."""
    return sa.func.any(sa.func.array(query.scalar_subquery()))


def after(part: sa.CTE) -> sa.ColumnElement[bool]:
    """Return a condition that is true as soon as all rows of a part are there."""
    return sa.select(sa.func.count()).select_from(part).scalar_subquery() >= sa.literal_column("0")


def place(table: str) -> sa.Label[Any]:
    """Return where the version of a row lies [PostgreSQL: System Columns]."""
    return sa.literal_column(f"{table}.ctid").label("place")


def is_among(values: sa.ColumnElement[Any], query: sa.Select[Any]) -> sa.ColumnElement[bool]:
    """Return a condition for which PostgreSQL makes a hash table of the rows of a query.

    Without IS TRUE it makes a join of it and compares each with each, since it expects a single row.
    """
    return values.in_(query).is_(sa.true())
