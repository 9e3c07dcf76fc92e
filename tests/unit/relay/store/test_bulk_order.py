"""The order of locks: the ORDER BY itself, since no test can count on a locale that sorts otherwise."""

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from relay.store.bulk import in_order
from relay.store.tables import outbox


@pytest.mark.parametrize(
    ("dialect", "order"),
    [
        (postgresql.dialect(), 'outbox.registration_id COLLATE "C", outbox.mark COLLATE "C"'),  # type: ignore[no-untyped-call]
        (sqlite.dialect(), "outbox.registration_id, outbox.mark"),
    ],
)
def test_keys_are_sorted_by_their_characters_whatever_the_locale(dialect: sa.Dialect, order: str) -> None:
    query = sa.select(outbox.c.count).order_by(*in_order(outbox.c.registration_id, outbox.c.mark))

    assert str(query.compile(dialect=dialect)).endswith(f"ORDER BY {order}")
