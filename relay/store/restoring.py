"""What follows when a backup was restored: the database has again what was removed since, which must not ring."""

import sqlalchemy as sa

from relay.admin.audit import Stamp, What
from relay.domain.model import RegistrationState
from relay.store import acts
from relay.store.engine import Database, scrub
from relay.store.tables import candidate, mailbox, outbox, registration


async def distrust(database: Database, stamp: Stamp) -> int:
    """Let no registration ring before its app has sent its device token again; return how many there are.

    They become `token-gone`, as if the provider had said so: each app knows what to do then, and those that do not come
    back end after their time, with the stored credentials. Marks and candidates are dropped, but for the last push of
    wiped registrations. No role may run.
    """
    number = await database.run(_distrust, stamp)
    await scrub(database)
    return number


def _distrust(connection: sa.Connection, stamp: Stamp) -> int:
    pushed = (RegistrationState.ACTIVE.value, RegistrationState.PROVING.value)
    active = sa.update(registration).where(registration.c.state.in_(pushed))
    gone = active.values(state=RegistrationState.TOKEN_GONE.value, idle_since=None).returning(registration.c.id)
    number = len(connection.scalars(gone).all())
    wiped = sa.select(registration.c.id).where(registration.c.state == RegistrationState.WIPED.value)
    connection.execute(sa.delete(outbox).where(outbox.c.registration_id.not_in(wiped)))
    connection.execute(sa.delete(candidate))
    connection.execute(sa.update(mailbox).values(dirty=True))
    acts.note(connection, stamp, What.RESTORED, detail=f"{number} registrations")
    return number
