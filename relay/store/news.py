"""News on PostgreSQL: new keys of collections and the marks that they lead to, in one statement.

It is a transaction by itself, so a group of changes costs one answer of the server instead of five. It does what
`commits`, `moves`, `fan_out` and `marks` do one after the other, for entries that have nothing but keys and changes. It
locks in their order: each part that locks asks for all rows of the part before. A part that waited for a lock reads the
row as it is then, but finds no row that began to fit meanwhile. So a mailbox whose row was changed after the statement
began is left out, and committed in several statements: a transaction that makes a registration active changes its
mailbox first.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from eas_watcher.machine.memory import Change, Collection
from eas_watcher.names import MailboxId
from relay.domain.model import CommitEntry, RegistrationState
from relay.store.bulk import ByCharacter, in_order, unnest
from relay.store.marks import SOON, upserted_marks
from relay.store.moves import WRITTEN, changed_mailboxes, upserted_collections
from relay.store.parts import after, is_among, place, within
from relay.store.prepared import Prepared
from relay.store.rows import write_seen
from relay.store.tables import Moment, mailbox, registration, shard


def are_news(batch: Sequence[CommitEntry]) -> bool:
    """Return True if entries have new keys and changes, but nothing else, and each mailbox has one entry."""
    return len({entry.mailbox_id for entry in batch}) == len(batch) and not any(map(_has_more, batch))


def _has_more(entry: CommitEntry) -> bool:
    progress = entry.progress
    several = bool(progress.dropped) or progress.attention
    more = (progress.partnership, progress.condition, progress.refusals, progress.hierarchy)
    return several or any(each is not None for each in more)


def news(batch: Sequence[CommitEntry], now: datetime) -> dict[str, object]:
    """Return the parameters of `COMMIT_NEWS`."""
    entries = sorted(batch, key=lambda entry: entry.mailbox_id)
    rows = {(entry.mailbox_id, each.id): each for entry in entries for each in entry.progress.collections}
    changed, at = changed_mailboxes(entries), Moment.text(now)
    keys = [_collection(owner, rows[owner, id_], at if owner in changed else None) for owner, id_ in sorted(rows)]
    arrived = [row for entry in entries for row in _by_class(entry.mailbox_id, entry.progress.changes)]
    values: dict[str, object] = {
        "id": [entry.mailbox_id for entry in entries],
        "shard": [entry.shard for entry in entries],
        "epoch": [entry.epoch for entry in entries],
        "changed": [entry.mailbox_id in changed for entry in entries],
        "now": now,
        "soon": now + SOON,
    }
    return values | _columns(_KEYS, keys) | _columns(_ARRIVED, arrived)


def read_news(rows: Sequence[Any]) -> tuple[set[MailboxId], set[str]]:
    """Return which mailboxes were committed, and the platforms that got marks; `commits.commit` is for the others."""
    [(committed, platforms)] = rows
    return set(committed), set(platforms)


_ARRIVED: Final = ("owner", "mark", "top", "top_certain", "total", "total_certain")
_KEYS: Final = tuple(f"collection_{column.name}" for column in WRITTEN)


def _columns(names: Sequence[str], rows: Sequence[Sequence[object]]) -> dict[str, object]:
    """Return the values of each column of rows, by its name."""
    return dict(zip(names, zip(*rows, strict=True) if rows else [()] * len(names), strict=True))


def _collection(owner: MailboxId, value: Collection, changed_at: str | None) -> tuple[object, ...]:
    """Return the row of a collection, in the order of WRITTEN."""
    newest = None if value.newest is None else Moment.text(value.newest)
    seen = write_seen(value.seen)
    return owner, value.id, value.cls.value, value.sync_key, value.tries, newest, seen, value.sub, changed_at


def _by_class(owner: MailboxId, changes: Sequence[Change]) -> list[tuple[object, ...]]:
    """Return what arrived in a mailbox by class: outside of sub-folders, None if nothing did, and in all folders."""
    if len(changes) == 1:  # nearly always
        [change] = changes
        name, count, certain = change.cls.value, change.count, change.certain
        return [(owner, name, None if change.sub else count, None if change.sub else certain, count, certain)]
    found: list[tuple[object, ...]] = []
    for name in sorted({change.cls.value for change in changes}):
        every = [change for change in changes if change.cls.value == name]
        top = [change for change in every if not change.sub]
        found.append((owner, name, *(_sum(top) if top else (None, None)), *_sum(every)))
    return found


def _sum(changes: Sequence[Change]) -> tuple[int, bool]:
    return sum(change.count for change in changes), any(change.certain for change in changes)


# --- the statement


def _statement() -> sa.Select[Any]:
    entries = unnest(
        {
            "id": mailbox.c.id,
            "shard": mailbox.c.shard,
            "epoch": shard.c.epoch,
            "changed": sa.column("changed", sa.Boolean),
        }
    )
    given = sa.select(entries).cte("given")
    leased = (
        sa.select(shard.c.number, shard.c.epoch)
        .where(shard.c.number == within(sa.select(given.c.shard)))
        .order_by(shard.c.number)
        .with_for_update(read=True)
        .cte("leased")
    )
    locked = (
        sa.select(place(mailbox.name))
        .where(mailbox.c.id == within(sa.select(given.c.id)), after(leased))
        .order_by(*in_order(mailbox.c.id))
        .with_for_update(key_share=True)
        .cte("locked")
    )
    before = mailbox.alias("before")
    # A version of a row that was written after the statement began is not seen at its place.
    unchanged = sa.select(before.c.id, before.c.shard).where(place(before.name) == within(sa.select(locked.c.place)))
    good = (
        sa.select(given.c.id, given.c.changed)
        .where(
            is_among(sa.tuple_(given.c.shard, given.c.epoch), sa.select(leased.c.number, leased.c.epoch)),
            is_among(sa.tuple_(given.c.id, given.c.shard), unchanged),
        )
        .cte("good")
    )
    changed = within(sa.select(good.c.id).where(good.c.changed))
    keys = unnest(dict(zip(_KEYS, WRITTEN, strict=True)))
    present = keys.c.collection_mailbox_id.in_(sa.select(good.c.id))
    advance = upserted_collections(sa.select(keys).where(present))
    listening = (
        sa.select(registration)
        .with_only_columns(
            registration.c.id,
            registration.c.mailbox_id,
            registration.c.platform,
            registration.c.classes,
            registration.c.subfolders,
        )
        .where(
            registration.c.mailbox_id == changed,
            registration.c.state == RegistrationState.ACTIVE.value,
            after(advance),
        )
        .order_by(*in_order(registration.c.id))
        # A weaker lock would be given for the row as it was when the statement began, though it was updated since.
        .with_for_update(read=True)
        .cte("listening")
    )
    kinds = (sa.Text, sa.Text, sa.BigInteger, sa.Boolean, sa.BigInteger, sa.Boolean)
    arrived = unnest({name: sa.column(name, kind) for name, kind in zip(_ARRIVED, kinds, strict=True)})
    # A list has the list of one of its items; nothing else that a damaged row may have has it.
    asked = sa.func.jsonb_build_array(arrived.c.mark)
    classes, subfolders = (sa.cast(listening.c[name], JSONB) for name in ("classes", "subfolders"))
    deep = sa.func.coalesce(subfolders.contains(asked), sa.false())
    chosen = (
        sa.select(
            listening.c.id,
            arrived.c.mark,
            listening.c.platform,
            sa.case((deep, arrived.c.total), else_=arrived.c.top),
            sa.case((deep, arrived.c.total_certain), else_=arrived.c.top_certain),
            sa.literal_column("''", sa.Text),
        )
        .join_from(listening, arrived, arrived.c.owner == listening.c.mailbox_id)
        .where(classes.contains(asked), deep | arrived.c.top.is_not(None))
        .order_by(ByCharacter(listening.c.id), ByCharacter(arrived.c.mark))
    )
    marked = upserted_marks(chosen)
    return sa.select(
        sa.func.array(sa.select(good.c.id).scalar_subquery()).label("committed"),
        sa.func.array(sa.select(marked.c.platform).distinct().scalar_subquery()).label("platforms"),
    )


COMMIT_NEWS: Final = Prepared(_statement())
"""Commits news whose lease is still good, as `read_news` tells; for PostgreSQL only."""
