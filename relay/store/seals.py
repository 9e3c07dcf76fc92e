"""The keys that stored credentials are sealed for, and the end of credentials whose key is lost."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from eas_watcher.machine.memory import WatchState
from eas_watcher.reasons import Reason
from relay.admin.audit import Stamp, What
from relay.domain.model import Mark, RegistrationState
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
    head = sa.func.substr(mailbox.c.sealed_credential, 1, _HEAD)
    query = sa.select(head, sa.func.count()).where(mailbox.c.sealed_credential.is_not(None)).group_by(head)
    return {bytes(row[0]): row[1] for row in connection.execute(query)}


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
