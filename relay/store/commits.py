"""The hot path: progress of many watches in one transaction, a few statements whatever their number.

Rows are locked in the order shard, mailbox, collection, hierarchy, registration, outbox, push_test, wipe, challenged,
tries, and by key within each, so that transactions wait for each other, but never in a circle. A candidate is locked
only while its mailbox is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

import sqlalchemy as sa

from eas_watcher.machine.memory import Condition, Progress, WatchState
from eas_watcher.names import NO_SYNC_KEY, MailboxId
from relay.domain.handover import Offer
from relay.domain.model import CommitEntry, DuePush, Mark, Platform, RegistrationState
from relay.domain.ports.wakeups import Topic
from relay.domain.reasons import write_reason
from relay.domain.tries import TryLimits
from relay.store import tries, wipes
from relay.store.bulk import Among, in_order
from relay.store.fan_out import fan_out
from relay.store.marks import set_claimed
from relay.store.moves import keep_changes, move_collections, moves
from relay.store.prepared import Prepared, execute_text, write_json
from relay.store.rows import write_hierarchy, write_partnership
from relay.store.tables import candidate, collection, hierarchy, mailbox, outbox, registration, shard

_MUTABLE: Final = (
    mailbox.c.version,
    mailbox.c.policy_key,
    mailbox.c.hierarchy_key,
    mailbox.c.informed,
    mailbox.c.acknowledged,
    mailbox.c.url,
    mailbox.c.horizon,
    mailbox.c.state,
    mailbox.c.reason,
    mailbox.c.detail,
    mailbox.c.since,
    mailbox.c.next_try_at,
    mailbox.c.refusals,
)
_UPDATE: Final = Prepared(
    sa.update(mailbox).where(mailbox.c.id == sa.bindparam("_id")), [column.name for column in _MUTABLE]
)
_DROP: Final = sa.delete(collection).where(
    collection.c.mailbox_id == sa.bindparam("_mailbox"), collection.c.collection_id == sa.bindparam("_collection")
)
_LEASED: Final = (
    sa.select(shard.c.number, shard.c.epoch)
    .where(Among("shards", shard.c.number))
    .order_by(shard.c.number)
    .with_for_update(read=True)
)
_EPOCHS: Final = Prepared(_LEASED)
_LOCKED: Final = (
    sa.select(mailbox.c.id, mailbox.c.shard)
    .where(Among("ids", mailbox.c.id))
    .order_by(*in_order(mailbox.c.id))
    .with_for_update(key_share=True)
)
_PRESENT: Final = Prepared(
    sa.select(mailbox.c.id, mailbox.c.server, mailbox.c.user, *_MUTABLE).where(Among("ids", mailbox.c.id))
)
_LEASES: Final = _LEASED.cte("leased")
_MAILBOXES: Final = _LOCKED.cte("locked")
_LOCK: Final = Prepared(
    sa.union_all(
        sa.select(_LEASES.c.number, _LEASES.c.epoch, sa.null().label("id")),
        sa.select(_MAILBOXES.c.shard, sa.null(), _MAILBOXES.c.id),
    )
)
"""Both at once for PostgreSQL, which appends the mailboxes, and so locks them, when it has all shards."""
_KNOWN: Final = """
SELECT mailbox.id, mailbox.shard, shard.epoch FROM json_each(?) ids CROSS JOIN mailbox CROSS JOIN shard
WHERE mailbox.id = ids.value AND shard.number = mailbox.shard
"""
"""The same for SQLite, which locks all tables at once."""
_FORGET_HIERARCHIES: Final = sa.delete(hierarchy).where(Among("mailboxes", hierarchy.c.mailbox_id))


@dataclass(frozen=True, slots=True)
class Committed:
    """What a batch changed."""

    fenced: frozenset[MailboxId]
    topics: list[Topic]
    """The topics to wake: those of the platforms that got marks to claim."""
    wiped: bool
    """Whether a credential was destroyed."""
    born: list[DuePush]
    """The pushes whose marks were born claimed."""


def commit(
    connection: sa.Connection,
    batch: Sequence[CommitEntry],
    now: datetime,
    limits: Mapping[str, TryLimits] = MappingProxyType({}),
    offers: Mapping[Platform, Offer] = MappingProxyType({}),
) -> Committed:
    """Commit the entries whose lease is still good; the others change nothing.

    `limits` has what the directory of each server bears, `offers` what the dispatchers of this process take over.
    """
    good = _lock(connection, batch)
    wiped = {e.mailbox_id for e in good if e.progress.condition and e.progress.condition.state is WatchState.WIPED}
    refused: list[tries.Login] = []
    at_once = bool(offers) and _at_once(connection, good)
    if not at_once:
        refused = _update_mailboxes(connection, good, now)
        _move_collections(connection, [entry for entry in good if entry.mailbox_id not in wiped], now)
    news = fan_out(connection, good, wiped, offers, now, moves(good, now) if at_once else None)
    if wiped:  # after the look for active registrations, which alone hear of it
        _wipe(connection, wiped)
    topics, born = set_claimed(connection, news.marks, now, news.claims)
    wipes.note(connection, wiped, now)
    tries.count(connection, refused, limits, now)
    kept = {entry.mailbox_id for entry in good}
    fenced = frozenset(entry.mailbox_id for entry in batch if entry.mailbox_id not in kept)
    return Committed(fenced, topics, wiped=bool(wiped), born=[news.pushes[key] for key in born])


def still_leased(connection: sa.Connection, leases: Mapping[int, int]) -> list[int]:
    """Lock the shards until the transaction ends; return those that still have the epoch given."""
    rows = _EPOCHS.rows(connection, {"shards": sorted(leases)})
    return [row.number for row in rows if row.epoch == leases[row.number]]


def _lock(connection: sa.Connection, batch: Sequence[CommitEntry]) -> list[CommitEntry]:
    """Lock the shards and mailboxes of entries until the transaction ends; return those whose lease is still good."""
    numbers, ids = sorted({entry.shard for entry in batch}), sorted({entry.mailbox_id for entry in batch})
    if connection.dialect.name == "sqlite":  # one transaction writes at a time
        found, _ = execute_text(connection, _KNOWN, (write_json(ids),), fetch=True)
        known = set(found)
        return [entry for entry in batch if (entry.mailbox_id, entry.shard, entry.epoch) in known]
    rows = _LOCK.rows(connection, {"shards": numbers, "ids": ids})
    epochs = {row.number: row.epoch for row in rows if row.id is None}
    shards = {row.id: row.number for row in rows if row.id is not None}
    return [e for e in batch if epochs.get(e.shard) == e.epoch and shards.get(e.mailbox_id) == e.shard]


def _at_once(connection: sa.Connection, entries: Sequence[CommitEntry]) -> bool:
    """Return whether the database is PostgreSQL, and entries have news and new keys, but nothing else."""
    if connection.dialect.name != "postgresql" or not any(entry.progress.changes for entry in entries):
        return False
    progress = [entry.progress for entry in entries]
    return not any(_changes_mailbox(each) or each.dropped or each.hierarchy is not None for each in progress)


def _update_mailboxes(connection: sa.Connection, entries: Sequence[CommitEntry], now: datetime) -> list[tries.Login]:
    """Write what changed of mailboxes; return the users of those whose credential was refused for the first time.

    The later refusals of a credential are counted before it is shown.
    """
    changing = [entry for entry in entries if _changes_mailbox(entry.progress)]
    if not changing:
        return []
    found = _PRESENT.rows(connection, {"ids": sorted({entry.mailbox_id for entry in changing})})
    # One statement sets all of them, so each names every column.
    present: list[dict[str, Any]] = [row._asdict() for row in found]
    rows: dict[MailboxId, dict[str, Any]] = {row.pop("id"): row for row in present}
    logins = {id_: tries.Login(row.pop("server"), row.pop("user")) for id_, row in rows.items()}
    refused: list[tries.Login] = []
    for entry in changing:
        row, progress = rows[entry.mailbox_id], entry.progress
        if progress.partnership is not None:
            row |= write_partnership(progress.partnership)
        if progress.condition is not None:
            row |= _condition(progress.condition, row, now)
        if progress.refusals is not None:
            if not row["refusals"] and progress.refusals:
                refused.append(logins[entry.mailbox_id])
            row["refusals"] = progress.refusals
    _UPDATE.many(connection, [{"_id": id_} | rows[id_] for id_ in sorted(rows)])
    return refused


def _changes_mailbox(progress: Progress) -> bool:
    return not (progress.partnership is None and progress.condition is None and progress.refusals is None)


def _condition(condition: Condition, row: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    reason = write_reason(condition.reason)
    same = row["state"] == condition.state.value and row["reason"] == reason
    wait = condition.retry_in
    return {
        "state": condition.state.value,
        "reason": reason,
        "detail": condition.detail,
        "since": row["since"] if same else now,
        "next_try_at": None if wait is None else now + timedelta(seconds=wait),
    }


def _move_collections(connection: sa.Connection, entries: Sequence[CommitEntry], now: datetime) -> None:
    dropped = sorted((entry.mailbox_id, id_) for entry in entries for id_ in entry.progress.dropped)
    if dropped:
        keep_changes(connection, sorted({owner for owner, _ in dropped}))
        connection.execute(_DROP, [{"_mailbox": owner, "_collection": id_} for owner, id_ in dropped])
    move_collections(connection, entries, now)
    hierarchies = {e.mailbox_id: e.progress.hierarchy for e in entries if e.progress.hierarchy is not None}
    if hierarchies:
        connection.execute(_FORGET_HIERARCHIES, {"mailboxes": sorted(hierarchies)})
        kept = [write_hierarchy(owner, hierarchies[owner]) for owner in sorted(hierarchies) if hierarchies[owner]]
        if kept:
            connection.execute(sa.insert(hierarchy), kept)


def _wipe(connection: sa.Connection, wiped: set[MailboxId]) -> None:
    """Destroy what an administrator wants gone: credentials, every key, the candidates and all marks but `attention`.

    The registrations are ended by the api role, which leaves tombstones, once their phones were told.
    """
    ids = sorted(wiped)
    keep_changes(connection, ids)
    connection.execute(
        sa.update(mailbox)
        .where(mailbox.c.id.in_(ids))
        .values(
            sealed_credential=None,
            version=None,
            policy_key=None,
            hierarchy_key=NO_SYNC_KEY,
            informed=False,
            acknowledged=None,
            horizon=None,
        )
    )
    connection.execute(sa.delete(collection).where(collection.c.mailbox_id.in_(ids)))
    connection.execute(sa.delete(hierarchy).where(hierarchy.c.mailbox_id.in_(ids)))
    mine = registration.c.mailbox_id.in_(ids)
    locked = sa.select(registration.c.id).where(mine).order_by(*in_order(registration.c.id))
    connection.execute(locked.with_for_update(key_share=True))  # an update takes them in any order
    connection.execute(sa.update(registration).where(mine).values(state=RegistrationState.WIPED.value))
    owners = sa.select(registration.c.id).where(mine)
    connection.execute(sa.delete(candidate).where(candidate.c.registration_id.in_(owners)))
    # A phone that has proved nothing may be somebody else's: it hears of no wipe.
    strange = outbox.c.registration_id.in_(owners.where(registration.c.must_prove))
    untold = (outbox.c.mark != Mark.ATTENTION.value) | strange
    connection.execute(sa.delete(outbox).where(outbox.c.registration_id.in_(owners), untold))
