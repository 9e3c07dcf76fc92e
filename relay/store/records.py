"""Own how the watch role reads mailboxes: each with its collections, registrations and candidates."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from eas_watcher.names import MailboxId
from relay.domain.model import Candidate, RegistrationId, RegistrationState, WatchRecord
from relay.store.bulk import in_order
from relay.store.rows import (
    COLLECTION,
    MAILBOX,
    PARTNERSHIP,
    AnyRow,
    read_classes,
    read_collection,
    read_mailbox,
    read_memory,
)
from relay.store.tables import candidate, collection, hierarchy, mailbox, registration

AT_ONCE: Final = 500  # mailboxes per statement; far below both databases' limit of parameters

_QUERY: Final = sa.select(*MAILBOX, *PARTNERSHIP, mailbox.c.sealed_credential).outerjoin_from(mailbox, hierarchy)


async def take(
    connection: AsyncConnection, shards: Sequence[int], now: datetime, *, only_dirty: bool, at_once: int = AT_ONCE
) -> list[WatchRecord]:
    """Lock and read mailboxes of some shards, and clear their dirty flags."""
    query = _QUERY.where(mailbox.c.shard.in_(shards)).order_by(*in_order(mailbox.c.id))
    query = query.with_for_update(of=mailbox, key_share=True)
    if only_dirty:
        query = query.where(mailbox.c.dirty)
    records: list[WatchRecord] = []
    for rows in _slices((await connection.execute(query)).all(), at_once):
        ids = [row.id for row in rows]
        # By id: a mailbox that became dirty since the statement above keeps its flag.
        await connection.execute(sa.update(mailbox).where(mailbox.c.id.in_(ids)).values(dirty=False))
        records += await _complete(connection, rows, now)
    return records


async def count_tries(connection: AsyncConnection, shards: Sequence[int]) -> None:
    """Count a try on the keys of all collections of some shards."""
    owners = sa.select(mailbox.c.id).where(mailbox.c.shard.in_(shards))
    await connection.execute(
        sa.update(collection).where(collection.c.mailbox_id.in_(owners)).values(tries=collection.c.tries + 1)
    )


async def read(connection: AsyncConnection, mailbox_id: MailboxId, now: datetime) -> WatchRecord | None:
    """Read one mailbox; None when there is no such mailbox."""
    rows = (await connection.execute(_QUERY.where(mailbox.c.id == mailbox_id))).all()
    found = await _complete(connection, rows, now)
    return found[0] if found else None


async def _complete(connection: AsyncConnection, rows: Sequence[AnyRow], now: datetime) -> list[WatchRecord]:
    """Join rows of the mailbox table with what belongs to them."""
    if not rows:
        return []
    ids = [row.id for row in rows]
    of_collection = sa.select(*COLLECTION).where(collection.c.mailbox_id.in_(ids))
    collections = _by_mailbox(
        (await connection.execute(of_collection.order_by(collection.c.mailbox_id, collection.c.collection_id))).all()
    )
    of_registration = (
        sa.select(
            registration.c.mailbox_id,
            registration.c.id,
            registration.c.classes,
            registration.c.subfolders,
            registration.c.state,
            candidate.c.sealed,
        )
        .outerjoin_from(registration, candidate)
        .where(registration.c.mailbox_id.in_(ids))
        .order_by(registration.c.id)
    )
    registrations = _by_mailbox((await connection.execute(of_registration)).all())
    return [_record(row, collections[row.id], registrations[row.id], now) for row in rows]


def _record(row: AnyRow, collections: Sequence[AnyRow], registrations: Sequence[AnyRow], now: datetime) -> WatchRecord:
    active = [r for r in registrations if r.state == RegistrationState.ACTIVE.value]
    classes = frozenset(cls for r in active for cls in read_classes(r.classes))
    subfolders = frozenset(cls for r in active for cls in read_classes(r.classes) & read_classes(r.subfolders))
    return WatchRecord(
        mailbox=read_mailbox(row),
        sealed_credential=row.sealed_credential,
        memory=read_memory(row, map(read_collection, collections), classes, subfolders, now),
        candidates=tuple(
            Candidate(RegistrationId(r.id), MailboxId(row.id), r.sealed) for r in registrations if r.sealed is not None
        ),
        registrations=len(registrations),
    )


def _by_mailbox(rows: Sequence[AnyRow]) -> dict[str, list[AnyRow]]:
    grouped: dict[str, list[AnyRow]] = defaultdict(list)
    for row in rows:
        grouped[row.mailbox_id].append(row)
    return grouped


def _slices(rows: Sequence[AnyRow], length: int) -> Iterator[Sequence[AnyRow]]:
    for start in range(0, len(rows), length):
        yield rows[start : start + length]
