"""The keys that stored credentials are sealed for, those to be sealed again, and the end of those whose key is lost."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from eas_watcher.machine.memory import WatchState
from eas_watcher.names import MailboxId
from eas_watcher.reasons import Reason
from relay.admin.audit import Stamp, What
from relay.domain.model import Mark, RegistrationState, SealedMailbox
from relay.domain.reasons import Cause
from relay.store import acts
from relay.store.engine import Database, scrub
from relay.store.marks import NewMark, set_marks
from relay.store.tables import candidate, mailbox, registration

LOST: Final = "the key of the stored credential was lost: log in again"
_HEAD: Final = 9  # bytes of a seal that name its form and key


async def seal_heads(database: Database) -> Mapping[bytes, int]:
    """Return how many mailboxes have a credential, by the first bytes of its seal; none if there are no tables yet."""
    return await database.run(_seal_heads)


def _seal_heads(connection: sa.Connection) -> Mapping[bytes, int]:
    if not sa.inspect(connection).has_table(mailbox.name):
        return {}
    head = _head(mailbox.c.sealed_credential)
    query = sa.select(head, sa.func.count()).where(mailbox.c.sealed_credential.is_not(None)).group_by(head)
    return {bytes(row[0]): row[1] for row in connection.execute(query)}


def count_seals(connection: sa.Connection) -> Mapping[bytes, tuple[int, int]]:
    """Return how many credentials of mailboxes and how many candidates there are, by the first bytes of their seals."""
    credentials, candidates = _seal_heads(connection), {}
    if sa.inspect(connection).has_table(candidate.name):
        head = _head(candidate.c.sealed)
        query = sa.select(head, sa.func.count()).group_by(head)
        candidates = {bytes(row[0]): row[1] for row in connection.execute(query)}
    return {head: (credentials.get(head, 0), candidates.get(head, 0)) for head in {**credentials, **candidates}}


def sealed_otherwise(
    connection: sa.Connection, shards: Sequence[int], head: bytes, after: MailboxId | None, most: int
) -> list[SealedMailbox]:
    """Return mailboxes of some shards with seals that do not begin with `head`, in the order of their ids.

    At most so many, and those behind `after`; of each only these seals.
    """
    own = _head(mailbox.c.sealed_credential) != head
    waits = sa.exists(sa.literal(1)).where(
        registration.c.mailbox_id == mailbox.c.id,
        candidate.c.registration_id == registration.c.id,
        _head(candidate.c.sealed) != head,
    )
    query = (
        sa.select(mailbox.c.id, mailbox.c.server, mailbox.c.user, mailbox.c.sealed_credential)
        .where(mailbox.c.shard.in_(shards), sa.or_(own, waits))
        .order_by(mailbox.c.id)
        .limit(most)
    )
    rows = connection.execute(query if after is None else query.where(mailbox.c.id > after)).all()
    candidates: dict[str, list[bytes]] = {}
    of_these = (
        sa.select(registration.c.mailbox_id, candidate.c.sealed)
        .join_from(candidate, registration)
        .where(registration.c.mailbox_id.in_([row.id for row in rows]))
    )
    for row in connection.execute(of_these):
        candidates.setdefault(row.mailbox_id, []).append(bytes(row.sealed))
    return [
        SealedMailbox(
            row.id,
            row.server,
            row.user,
            tuple(
                bytes(seal)
                for seal in (row.sealed_credential, *candidates.get(row.id, ()))
                if seal is not None and seal[:_HEAD] != head
            ),
        )
        for row in rows
    ]


def count_sealed_otherwise(connection: sa.Connection, shards: Sequence[int], head: bytes) -> int:
    """Return how many seals of some shards do not begin with `head`."""
    own, waits = _head(mailbox.c.sealed_credential) != head, _head(candidate.c.sealed) != head
    count = sa.select(sa.func.count())
    credentials = count.select_from(mailbox).where(mailbox.c.shard.in_(shards), own)
    owned = candidate.join(registration).join(mailbox)
    candidates = count.select_from(owned).where(mailbox.c.shard.in_(shards), waits)
    return sum(connection.execute(query).scalar_one() for query in (credentials, candidates))


def look_again(connection: sa.Connection, shards: Sequence[int], keys: Sequence[bytes]) -> None:
    """Mark mailboxes dirty that are blocked since a seal did not open, or have a candidate for one of some keys."""
    blocked = sa.and_(mailbox.c.state == WatchState.BLOCKED.value, mailbox.c.reason == Reason.SEAL_BROKEN.value)
    waits = sa.exists(sa.literal(1)).where(
        registration.c.mailbox_id == mailbox.c.id,
        candidate.c.registration_id == registration.c.id,
        sa.func.substr(candidate.c.sealed, 2, _HEAD - 1).in_(keys),
    )
    mine = mailbox.c.shard.in_(shards)
    connection.execute(sa.update(mailbox).where(mine, sa.or_(blocked, waits)).values(dirty=True))


def _head(seal: sa.ColumnElement[bytes]) -> sa.ColumnElement[bytes]:
    return sa.func.substr(seal, 1, _HEAD, type_=sa.LargeBinary)


async def note_key(database: Database, stamp: Stamp, what: What, key: str) -> None:
    """Add the entry of an act about a sealing key to the audit log."""
    await database.run(lambda connection: acts.note(connection, stamp, what, detail=f"sealing key {key}"))


async def forget_credentials(database: Database, now: datetime, stamp: Stamp) -> int:
    """Destroy all credentials, as if their servers had refused them; return how many mailboxes had one.

    Phones with an active registration get an `attention` push. No watch role may run.
    """
    number = await database.run(_forget, now, stamp)
    await scrub(database)
    return number


def _forget(connection: sa.Connection, now: datetime, stamp: Stamp) -> int:
    had = mailbox.c.sealed_credential.is_not(None) & (mailbox.c.state != WatchState.WIPED.value)
    values = {
        "sealed_credential": None,
        "accepted": False,
        "state": WatchState.CREDENTIAL_REFUSED.value,
        "reason": Reason.CREDENTIAL_UNUSABLE.value,
        "detail": LOST,
        "since": now,
        "next_try_at": None,
    }
    ids = connection.scalars(sa.update(mailbox).where(had).values(values).returning(mailbox.c.id)).all()
    verifying = registration.c.state == RegistrationState.VERIFYING.value
    connection.execute(sa.update(registration).where(verifying).values(state=RegistrationState.REFUSED.value))
    own = sa.select(registration.c.id, registration.c.platform)
    active = registration.c.state == RegistrationState.ACTIVE.value
    listeners = connection.execute(own.where(registration.c.mailbox_id.in_(ids), active)).all()
    connection.execute(sa.delete(candidate))
    name, cause = Mark.ATTENTION.value, Cause.CREDENTIAL.value
    marks = [NewMark(row.id, name, row.platform, 1, certain=True, cause=cause) for row in listeners]
    set_marks(connection, marks, now)
    acts.note(connection, stamp, What.CREDENTIALS_FORGET, detail=f"{len(ids)} credentials")
    return len(ids)
