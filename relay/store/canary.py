"""The canary in the database: who registers its mailbox, who sends its mails, and how far the last one has come."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from eas_watcher.machine.memory import WatchState
from relay.domain.canary import NOT_REGISTERED, Reading, Shown, Turn
from relay.domain.model import Platform, RegistrationId, RegistrationState
from relay.domain.ports.canary import CanaryRegistration
from relay.store.bulk import Among
from relay.store.engine import Database
from relay.store.rows import CHANGED, read_last_change
from relay.store.tables import Moment, canary, canary_shown, mailbox, registration

ROW: Final = 1
_MINE: Final = sa.update(canary).where(canary.c.id == ROW)


class SqlCanaryStore:
    """The CanaryStore of all roles; each uses the methods that its rights allow."""

    def __init__(self, database: Database) -> None:
        """Keep the canary in a database."""
        self._database = database

    async def registration(self) -> CanaryRegistration:
        """Return how the canary's mailbox is registered."""
        query = sa.select(canary.c.registration_id, canary.c.refused_at).where(canary.c.id == ROW)
        row = await self._database.run(lambda connection: connection.execute(query).one_or_none())
        if row is None:
            return CanaryRegistration()
        return CanaryRegistration(
            None if row.registration_id is None else RegistrationId(row.registration_id), row.refused_at
        )

    async def may_try(self, now: datetime, pause: timedelta) -> bool:
        """Note that a process is about to register; return False if one did so within `pause`."""
        return await self._database.run(_claim, _MAY_TRY, {"now": now, "before": now - pause}, {"tried_at": now})

    async def registered(self, registration_id: RegistrationId, device: bytes) -> None:
        """Note the registration of the relay's own device, with the key of the device."""
        values = {"registration_id": registration_id, "device": device, "refused_at": None, "refusal": ""}
        await self._database.run(lambda connection: connection.execute(_MINE.values(**values)))

    async def refused(self, why: str, at: datetime | None) -> None:
        """Note why the mailbox is not registered, and when the mail server refused the password; None: it did not."""
        values = {"refusal": why} | ({} if at is None else {"refused_at": at})
        await self._database.run(lambda connection: connection.execute(_MINE.values(**values)))

    async def device(self) -> tuple[RegistrationId, bytes] | None:
        """Return the registration of the relay's own device and its key; None: there is none."""
        query = sa.select(canary.c.registration_id, canary.c.device).where(canary.c.id == ROW)
        row = await self._database.run(lambda connection: connection.execute(query).one_or_none())
        if row is None or row.registration_id is None or row.device is None:
            return None
        return RegistrationId(row.registration_id), bytes(row.device)

    async def shown(self, platform: Platform, shown: Shown) -> None:
        """Note that a device of the canary's mailbox showed a push; the first word counts."""
        values = {"platform": platform.value, "noticed_at": shown.noticed_at, "shown_at": shown.shown_at}
        await self._database.run(lambda connection: connection.execute(_SHOWN[connection.dialect.name], values))

    async def claim(self, node: str, now: datetime, interval: timedelta) -> Turn:
        """Note that a process sends a mail now, if it is its turn.

        A mail is sent once in an interval, by the process that sent the one before; by another one after two intervals
        without any. A moment ahead was noted while a clock was wrong. What devices showed before is deleted.
        """
        values = {"node": node, "now": now, "before": now - interval, "long_before": now - 2 * interval}
        return await self._database.run(_take_turn, values)

    async def mail_refused_at(self) -> datetime | None:
        """Return when the mail server refused the credential for sending; None: it did not."""
        query = sa.select(canary.c.mail_refused_at).where(canary.c.id == ROW)
        return await self._database.run(lambda connection: connection.scalar(query))

    async def mail_refused(self, at: datetime | None) -> None:
        """Note that the mail server refused the credential for sending; None: that it took it."""
        await self._database.run(lambda connection: connection.execute(_MINE.values(mail_refused_at=at)))

    async def reading(self, server: str, user: str, keys: Collection[str], since: datetime) -> Reading:
        """Return how the mailbox of a user is, and what its devices showed of changes since a moment."""
        return await self._database.run(_reading, server, user, keys, since)


_MAY_SEND: Final = sa.or_(
    canary.c.sent_at.is_(None),
    canary.c.sent_at > sa.bindparam("now", type_=Moment),
    (canary.c.holder == sa.bindparam("node")) & (canary.c.sent_at <= sa.bindparam("before", type_=Moment)),
    canary.c.sent_at <= sa.bindparam("long_before", type_=Moment),
)
_MAY_TRY: Final = sa.or_(
    canary.c.tried_at.is_(None),
    canary.c.tried_at > sa.bindparam("now", type_=Moment),
    canary.c.tried_at <= sa.bindparam("before", type_=Moment),
)
_FIRST: Final = {
    "postgresql": postgresql.insert(canary).values(id=ROW).on_conflict_do_nothing(),
    "sqlite": sqlite.insert(canary).values(id=ROW).on_conflict_do_nothing(),
}
_SHOWN: Final = {
    "postgresql": postgresql.insert(canary_shown).on_conflict_do_nothing(),
    "sqlite": sqlite.insert(canary_shown).on_conflict_do_nothing(),
}


def _claim(
    connection: sa.Connection, may: sa.ColumnElement[bool], values: dict[str, object], new: dict[str, object]
) -> bool:
    """Write values into the row if a condition holds; return whether it does."""
    connection.execute(_FIRST[connection.dialect.name])
    return connection.execute(_MINE.where(may).values(**new), values).rowcount == 1


def _take_turn(connection: sa.Connection, values: dict[str, object]) -> Turn:
    node = values["node"]
    if _claim(connection, _MAY_SEND, values, {"holder": node, "sent_at": values["now"]}):
        connection.execute(sa.delete(canary_shown))
        return Turn.NOW
    holder = connection.scalar(sa.select(canary.c.holder).where(canary.c.id == ROW))
    return Turn.LATER if holder == node else Turn.ANOTHERS


def _reading(connection: sa.Connection, server: str, user: str, keys: Collection[str], since: datetime) -> Reading:
    same = (mailbox.c.user == user) | Among("keys", mailbox.c.user_key)
    query = sa.select(mailbox.c.id, mailbox.c.state, mailbox.c.reason, mailbox.c.last_change_at, CHANGED)
    query = query.where(mailbox.c.server == server, same).order_by(mailbox.c.user == user)
    own = connection.execute(query, {"keys": sorted(keys)}).all()
    if not own:
        refusal = connection.scalar(sa.select(canary.c.refusal).where(canary.c.id == ROW))
        return Reading(watched=False, why=refusal or NOT_REGISTERED)
    row = own[-1]
    active = (registration.c.mailbox_id == row.id) & (registration.c.state == RegistrationState.ACTIVE.value)
    pushed = sa.select(registration.c.platform, sa.func.max(registration.c.last_push_at)).where(active)
    pushes = connection.execute(pushed.group_by(registration.c.platform)).all()
    shown: dict[Platform, Shown] = {}
    since_then = sa.select(canary_shown).where(canary_shown.c.noticed_at >= since)
    for each in connection.execute(since_then.order_by(canary_shown.c.noticed_at)):
        shown.setdefault(Platform(each.platform), Shown(each.noticed_at, each.shown_at))
    watched = row.state == WatchState.WATCHING.value
    return Reading(
        watched,
        "" if watched else row.reason or row.state,
        read_last_change(row),
        {Platform(platform): at for platform, at in pushes if at is not None},
        shown,
    )
