"""Test that the rights that operators copy are those that the tests try."""

from pathlib import Path

from relay.store.privileges import grants_sql

PUBLISHED = Path(__file__).parents[4] / "docs" / "postgresql-grants.sql"


def test_the_published_statements_are_the_present_ones() -> None:
    comments, statements = PUBLISHED.read_text().split("\n\n", 1)

    assert all(line.startswith("--") for line in comments.splitlines())
    assert statements == grants_sql()
