"""The accounts whose device an administrator wiped: nobody registers for them again before an administrator allows it.

They outlive their mailboxes, which are forgotten with the last registration. An account counts in all its spellings,
since each spelling is another device to the mail server, which would not refuse that one. For the same reason it counts
at all servers of its directory.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from eas_watcher.names import MailboxId
from relay.admin.audit import Stamp, What
from relay.domain.tries import DEFAULT, TryLimits, account_key, servers_alike
from relay.store import acts
from relay.store.bulk import Among
from relay.store.engine import Database
from relay.store.prepared import Prepared
from relay.store.tables import mailbox, tries, wipe

_MINE: Final = (Among("servers", wipe.c.server), wipe.c.account == sa.bindparam("account"))
_STANDS: Final = Prepared(sa.select(wipe.c.user).where(*_MINE).limit(1))
_LIFT: Final = Prepared(sa.delete(wipe).where(*_MINE))


@dataclass(frozen=True, slots=True)
class WipedAccount:
    """An account that nobody may register for."""

    server: str
    user: str
    """As the wiped mailbox spelled it."""
    wiped_at: datetime


def note(connection: sa.Connection, mailboxes: Collection[MailboxId], now: datetime) -> None:
    """Note the accounts of mailboxes that are being wiped; an account that was noted before keeps its moment."""
    if not mailboxes:
        return
    query = sa.select(mailbox.c.server, mailbox.c.user).where(mailbox.c.id.in_(sorted(mailboxes)))
    rows = {(row.server, account_key(row.user)): row.user for row in connection.execute(query)}
    if rows:
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        values = [
            {"server": server, "account": account, "user": rows[server, account], "wiped_at": now}
            for server, account in sorted(rows)
        ]
        connection.execute(insert(wipe).on_conflict_do_nothing(), values)


def stands(connection: sa.Connection, server: str, user: str, limits: Mapping[str, TryLimits]) -> bool:
    """Return whether the account of a user was wiped, and not allowed again; `limits` name the directories."""
    return bool(_STANDS.rows(connection, _of(server, user, limits)))


def lift(connection: sa.Connection, server: str, user: str, limits: Mapping[str, TryLimits]) -> None:
    """Allow the account of a user again."""
    _LIFT.execute(connection, _of(server, user, limits))


async def wiped_accounts(database: Database) -> Sequence[WipedAccount]:
    """Return the accounts that nobody may register for, the latest wipe first."""
    return await database.run(_wiped_accounts)


async def allow(database: Database, user: str, server: str | None, stamp: Stamp) -> Sequence[WipedAccount]:
    """Allow an account again, in whatever spelling, at one server or at all of them; return what was allowed."""
    return await database.run(_allow, account_key(user), server, stamp)


def forget_user(connection: sa.Connection, server: str, user: str, limits: Mapping[str, TryLimits]) -> None:
    """Delete the tries and the wipe of a user; of an account that another mailbox has too, only those of this spelling.

    The api role's database user may not do it.
    """
    alike = sorted(servers_alike(limits, server))
    others = connection.scalars(sa.select(mailbox.c.user).where(mailbox.c.server.in_(alike), mailbox.c.user != user))
    if any(account_key(other) == account_key(user) for other in others):
        mine: tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]] = wipe.c.user == user, tries.c.user == user
    else:
        mine = wipe.c.account == account_key(user), tries.c.account == account_key(user)
    connection.execute(sa.delete(wipe).where(wipe.c.server.in_(alike), mine[0]))
    place = limits.get(server, DEFAULT).place(server)
    connection.execute(sa.delete(tries).where(tries.c.server == place, mine[1]))


def may_forget(connection: sa.Connection) -> bool:
    """Return True if the present database user may delete the tries and wipes of users."""
    return connection.dialect.name == "sqlite" or bool(connection.scalar(sa.text(_MAY)))


_MAY: Final = """\
SELECT pg_catalog.has_table_privilege('public.wipe', 'DELETE')
    AND pg_catalog.has_table_privilege('public.tries', 'DELETE')"""


def _wiped_accounts(connection: sa.Connection) -> list[WipedAccount]:
    query = sa.select(wipe.c.server, wipe.c.user, wipe.c.wiped_at).order_by(wipe.c.wiped_at.desc(), wipe.c.user)
    return [WipedAccount(*row) for row in connection.execute(query)]


def _allow(connection: sa.Connection, account: str, server: str | None, stamp: Stamp) -> list[WipedAccount]:
    mine = [wipe.c.account == account] if server is None else [wipe.c.account == account, wipe.c.server == server]
    gone = sa.delete(wipe).where(*mine).returning(wipe.c.server, wipe.c.user, wipe.c.wiped_at)
    allowed = sorted((WipedAccount(*row) for row in connection.execute(gone)), key=lambda each: each.server)
    for each in allowed:
        acts.note(connection, stamp, What.WIPE_ALLOW, server=each.server, user=each.user)
    return allowed


def _of(server: str, user: str, limits: Mapping[str, TryLimits]) -> Mapping[str, object]:
    """Return the parameters that name the wipe of the account of a user."""
    return {"servers": sorted(servers_alike(limits, server)), "account": account_key(user)}
