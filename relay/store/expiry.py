"""How registrations end that are kept no longer: which are of no use, since when, and for how long they are kept."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime

import sqlalchemy as sa

from eas_watcher.machine.memory import WatchState
from relay.domain.model import Ending, Mark, RegistrationState
from relay.domain.retention import Retention
from relay.store import tombstones
from relay.store.bulk import in_order
from relay.store.tables import candidate, mailbox, outbox, registration
from relay.store.twins import UNPROVED


def sweep(connection: sa.Connection, now: datetime, retention: Retention, at_once: int) -> tuple[int, Counter[Ending]]:
    """End one slice of what is kept no longer; return how many mailboxes were looked at, and what ended."""
    over = _over(now, retention)
    before = now - retention.unproved
    owners = sa.select(registration.c.mailbox_id).where(sa.or_(*over.values())).distinct()
    named = sa.exists().where(registration.c.mailbox_id == mailbox.c.id)
    ghosts = sa.select(mailbox.c.id).where(mailbox.c.since < before, ~named)
    ids = sorted({*connection.scalars(owners.limit(at_once)), *connection.scalars(ghosts.limit(at_once))})
    for id_ in ids:  # in the order of their ids, as all that lock several mailboxes do
        connection.execute(sa.update(mailbox).where(mailbox.c.id == id_).values(dirty=True))
    # The push role may be using some: those that are over when it has done are over.
    locked = sa.select(registration.c.id).where(registration.c.mailbox_id.in_(ids), sa.or_(*over.values()))
    connection.execute(locked.order_by(*in_order(registration.c.id)).with_for_update(of=registration))
    ended: Counter[Ending] = Counter()
    for ending, condition in over.items():
        mine = sa.select(registration.c.id).where(registration.c.mailbox_id.in_(ids), condition)
        going = list(connection.scalars(mine))
        tombstones.end(connection, going, ending, now, retention)
        if going:
            ended[ending] = len(going)
    return len(ids), ended


def _over(now: datetime, retention: Retention) -> Mapping[Ending, sa.ColumnElement[bool]]:
    """Return the condition of each way in which registrations end; wiped ones end once no push to their phone waits."""
    farewell = sa.exists().where(outbox.c.registration_id == registration.c.id, outbox.c.mark == Mark.ATTENTION.value)
    state = registration.c.state
    wiped = state == RegistrationState.WIPED.value
    # An app that sent another device token since may be on a phone that is off for days.
    unproved = sa.and_(registration.c.must_prove, registration.c.token_since == registration.c.created_at)
    stranger = registration.c.proved_at.is_(None) | unproved
    useless: list[sa.ColumnElement[bool]] = [stranger & (registration.c.created_at < now - retention.unproved)]
    if retention.token_gone is not None:
        gone = state == RegistrationState.TOKEN_GONE.value
        useless.append(gone & (registration.c.idle_since < now - retention.token_gone))
    if retention.refused is not None:
        before = now - retention.refused
        refused = mailbox.c.state == WatchState.CREDENTIAL_REFUSED.value
        # A new credential may be what the mailbox waits for, while its server is away.
        asks = sa.exists(candidate.c.registration_id).where(candidate.c.registration_id == registration.c.id)
        waits = state.in_((*UNPROVED, RegistrationState.PROVING.value))
        useless.append(waits & (registration.c.idle_since < before))
        mine = mailbox.c.id == registration.c.mailbox_id
        useless.append(~asks & sa.exists(mailbox.c.id).where(mine, refused, mailbox.c.since < before))
    if retention.untouched is not None:
        moments = (registration.c.seen_at, registration.c.last_push_at, registration.c.created_at)
        before = now - retention.untouched
        useless.append(sa.and_(*(sa.or_(moment.is_(None), moment < before) for moment in moments)))
    return {Ending.WIPED: wiped & ~farewell, Ending.EXPIRED: ~wiped & sa.or_(*useless)}


def note_idle(connection: sa.Connection, now: datetime, at_once: int) -> bool:
    """Note since when registrations are of no use, or that they are of use again; return whether some may be left.

    The column follows the state within one look, whichever role changed the state. Rows that are in use wait for the
    next one.
    """
    idle = registration.c.state.not_in((RegistrationState.ACTIVE.value, RegistrationState.WIPED.value))
    since = registration.c.idle_since
    found: list[str] = []
    for stale, value in ((idle & since.is_(None), now), (~idle & since.is_not(None), None)):
        some = sa.select(registration.c.id).where(stale).order_by(*in_order(registration.c.id)).limit(at_once)
        ids = list(connection.scalars(some.with_for_update(key_share=True, skip_locked=True)))
        connection.execute(sa.update(registration).where(registration.c.id.in_(ids)).values(idle_since=value))
        found += ids
    return len(found) >= at_once
