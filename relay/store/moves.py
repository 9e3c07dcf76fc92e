"""Where mailboxes stand after a change: the keys of their collections, and when these changed last.

PostgreSQL writes them with the question whose phones the change concerns, so that both cost one answer.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from eas_watcher.machine.memory import Collection
from eas_watcher.names import MailboxId
from relay.domain.model import CommitEntry
from relay.store.bulk import ROWS, Among, inserts
from relay.store.prepared import Prepared, execute_text
from relay.store.rows import CHANGED, COLLECTION, write_collection, write_seen
from relay.store.tables import BARE, Moment, collection, mailbox, sqlite_text

WRITTEN: Final = (*COLLECTION, collection.c.changed_at)
"""The columns of a collection that is written."""
_LAST: Final = CHANGED.element
_KEEP: Final = (
    sa.update(mailbox)
    .where(Among("ids", mailbox.c.id), mailbox.c.last_change_at.is_(None) | (mailbox.c.last_change_at < _LAST))
    .values(last_change_at=_LAST)
)
_ADVANCING: Final = ("class", "sync_key", "tries", "newest", "seen", "sub")
_ADVANCE: Final = (
    'UPDATE collection SET "class" = ?, sync_key = ?, tries = ?, newest = ?, seen = ?, sub = ?,'
    " changed_at = coalesce(?, changed_at) WHERE mailbox_id = ? AND collection_id = ?"
)


def _upsert(insert: postgresql.Insert | sqlite.Insert) -> postgresql.Insert | sqlite.Insert:
    changed_at = sa.func.coalesce(insert.excluded.changed_at, collection.c.changed_at)
    return insert.on_conflict_do_update(
        index_elements=["mailbox_id", "collection_id"],
        set_={**{name: insert.excluded[name] for name in _ADVANCING}, "changed_at": changed_at},
    )


_INSERTS: Final = inserts(collection, [column.name for column in WRITTEN])
_UPSERTS: Final = {dialect: _upsert(insert) for dialect, insert in _INSERTS.items()}
_UPSERT: Final = Prepared(_UPSERTS)


def upserted_collections(chosen: sa.Select[Any]) -> sa.CTE:
    """Return the part of a statement for PostgreSQL that writes the collections a query chooses: their mailboxes."""
    insert = postgresql.insert(collection).from_select([column.name for column in WRITTEN], chosen)
    return _upsert(insert).returning(collection.c.mailbox_id).cte("advance")


def with_moves(question: sa.Select[Any]) -> Prepared:
    """Return a question to PostgreSQL that writes what `moves` says first; the mailboxes must be locked before."""
    return Prepared(question.add_cte(_UPSERTS["postgresql"].cte("advance")))


def moves(entries: Sequence[CommitEntry], now: datetime) -> dict[str, object]:
    """Return the parameters that a question made by `with_moves` needs besides its own."""
    return {ROWS: _rows(_moved(entries, now))}


def move_collections(connection: sa.Connection, entries: Sequence[CommitEntry], now: datetime) -> None:
    """Write the collections of entries."""
    moved = _moved(entries, now)
    if moved and not (connection.dialect.name == "sqlite" and _advance(connection, moved)):
        _UPSERT.execute(connection, {ROWS: _rows(moved)})


def keep_changes(connection: sa.Connection, ids: Sequence[MailboxId]) -> None:
    """Note in the rows of mailboxes when they changed last: some of their collections are deleted next."""
    connection.execute(_KEEP, {"ids": ids})


def changed_mailboxes(entries: Sequence[CommitEntry]) -> set[MailboxId]:
    """Return the mailboxes in which something arrived or changed."""
    return {entry.mailbox_id for entry in entries if entry.progress.changes}


class _Moved(NamedTuple):
    """A collection that moved on."""

    owner: MailboxId
    collection: Collection
    changed_at: str | None
    """The text of when something arrived or changed in it, or in one asked for with it; None: the key alone is new."""


def _moved(entries: Sequence[CommitEntry], now: datetime) -> list[_Moved]:
    """Return the collections that entries have, the last value of each, in the order of their keys."""
    last = {(e.mailbox_id, c.id): c for e in entries for c in e.progress.collections}
    changed, at = changed_mailboxes(entries), Moment.text(now)
    return [_Moved(key[0], last[key], at if key[0] in changed else None) for key in sorted(last)]


def _rows(moved: Sequence[_Moved]) -> list[list[object]]:
    return [[*write_collection(owner, value), changed_at] for owner, value, changed_at in moved]


def _advance(connection: sa.Connection, moved: Sequence[_Moved]) -> bool:
    """Write the collections that are there to SQLite, which updates a row in half the time that an upsert takes.

    Return whether all were there.
    """
    values = [
        (
            c.cls.value,
            c.sync_key,
            c.tries,
            sqlite_text(c.newest),
            write_seen(c.seen),
            int(c.sub),  # the driver takes a bool four times as long
            changed_at and changed_at[:BARE],
            owner,
            c.id,
        )
        for owner, c, changed_at in moved
    ]
    return execute_text(connection, _ADVANCE, values, many=True)[1] == len(values)
