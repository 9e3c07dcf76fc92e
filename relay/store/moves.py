"""Where mailboxes stand after a change: the keys of their collections, and when they last changed.

PostgreSQL writes both with the question whose phones the change concerns, so that they cost one answer and not three.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from eas_watcher.names import CollectionId, MailboxId
from relay.domain.model import CommitEntry
from relay.store.bulk import ROWS, Among, inserts
from relay.store.prepared import Prepared, execute_text, write_json
from relay.store.rows import COLLECTION, write_collection
from relay.store.tables import ZONE, Moment, collection, mailbox

_MOVE: Final = (
    sa.update(mailbox).where(Among("moved", mailbox.c.id)).values(last_change_at=sa.bindparam("now", type_=Moment))
)
_MOVED: Final = Prepared(_MOVE)
_ADVANCING: Final = ("class", "sync_key", "tries", "newest", "seen", "sub")
_ADVANCE: Final = (
    'UPDATE collection SET "class" = ?, sync_key = ?, tries = ?, newest = ?, seen = ?, sub = ?'
    " WHERE mailbox_id = ? AND collection_id = ?"
)


def _upsert(insert: postgresql.Insert | sqlite.Insert) -> postgresql.Insert | sqlite.Insert:
    return insert.on_conflict_do_update(
        index_elements=["mailbox_id", "collection_id"], set_={name: insert.excluded[name] for name in _ADVANCING}
    )


_INSERTS: Final = inserts(collection, [column.name for column in COLLECTION])
_UPSERTS: Final = {dialect: _upsert(insert) for dialect, insert in _INSERTS.items()}
_UPSERT: Final = Prepared(_UPSERTS)


def upserted_collections(chosen: sa.Select[Any]) -> sa.CTE:
    """Return the part of a statement for PostgreSQL that writes the collections a query chooses: their mailboxes."""
    insert = postgresql.insert(collection).from_select([column.name for column in COLLECTION], chosen)
    return _upsert(insert).returning(collection.c.mailbox_id).cte("advance")


def with_moves(question: sa.Select[Any]) -> Prepared:
    """Return a question to PostgreSQL that writes what `moves` says first; the mailboxes must be locked before."""
    return Prepared(question.add_cte(_MOVE.cte("move"), _UPSERTS["postgresql"].cte("advance")))


def moves(entries: Sequence[CommitEntry], now: datetime) -> dict[str, object]:
    """Return the parameters that a question made by `with_moves` needs besides its own."""
    rows = _collections(entries)
    moved = sorted({entry.mailbox_id for entry in entries if entry.progress.changes})
    return {"moved": moved, "now": now, ROWS: [rows[key] for key in sorted(rows)]}


def move_mailboxes(connection: sa.Connection, ids: Sequence[MailboxId], now: datetime) -> None:
    """Write that mailboxes changed now."""
    _MOVED.execute(connection, {"moved": ids, "now": now})


def move_collections(connection: sa.Connection, entries: Sequence[CommitEntry]) -> None:
    """Write the collections of entries."""
    rows = _collections(entries)
    if rows and not (connection.dialect.name == "sqlite" and _advance(connection, rows)):
        _UPSERT.execute(connection, {ROWS: [rows[key] for key in sorted(rows)]})


_Rows: TypeAlias = Mapping[tuple[MailboxId, CollectionId], list[object]]


def _collections(entries: Sequence[CommitEntry]) -> _Rows:
    """Return the rows of the collections that entries have; the last value of each."""
    return {(e.mailbox_id, c.id): write_collection(e.mailbox_id, c) for e in entries for c in e.progress.collections}


def _advance(connection: sa.Connection, rows: _Rows) -> bool:
    """Write the collections that are there to SQLite, which updates a row in half the time that an upsert takes.

    Return whether all were there.
    """
    values = []
    for key in sorted(rows):
        owner, id_, cls, sync_key, tried, newest, seen, sub = rows[key]
        moment = newest[:-ZONE] if isinstance(newest, str) else newest
        values.append((cls, sync_key, tried, moment, write_json(seen), sub, owner, id_))
    _, changed = execute_text(connection, _ADVANCE, values, many=True)
    return changed == len(values)
