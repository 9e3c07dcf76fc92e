"""The count of tries: how often credentials of each account were shown to its server, in which window.

A candidate, and a credential that was refused before, is counted before it is shown, under a lock on its server's row,
so that processes count one after the other. A refusal that nobody could foresee is counted when it is stored.
"""

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from relay.domain.tries import DEFAULT, LIMIT, Budget, Tries, TryLimits, Wait, account_key
from relay.store.reading import WRONG
from relay.store.tables import tries

log = logging.getLogger(__name__)

_SERVER: Final = ""
"""The account and user of the row that stands for a whole server."""


class Login(NamedTuple):
    """A user of a server, as a mailbox names it; or of the directory that several servers share."""

    server: str
    user: str


def read(connection: sa.Connection, server: str, account: str) -> Tries:
    """Return all tries of an account, in all spellings."""
    query = sa.select(sa.func.sum(tries.c.spent), sa.func.max(tries.c.last_at)).where(
        tries.c.server == server, tries.c.account == account
    )
    spent, last_at = connection.execute(query).one()
    return Tries(spent or 0, last_at)


def budget(connection: sa.Connection, server: str, limits: TryLimits, now: datetime) -> Budget:
    """Return the refused candidates of a server within the window."""
    query = sa.select(sa.func.sum(tries.c.strangers), sa.func.sum(tries.c.owners), sa.func.min(tries.c.last_at)).where(
        tries.c.server == server,
        tries.c.account != _SERVER,
        tries.c.strangers + tries.c.owners > 0,
        tries.c.last_at > limits.since(now),
        tries.c.last_at < now + limits.window,
    )
    strangers, owners, first_at = connection.execute(query).one()
    return Budget(strangers or 0, owners or 0, first_at)


def spend(
    connection: sa.Connection, login: Login, limits: TryLimits, now: datetime, *, candidate: bool, owner: bool
) -> Wait | None:
    """Count a try of an account; return how long it must wait instead, if none is left.

    `owner`: the credential is a candidate that came with the secret of an active registration.
    """
    _lock(connection, login.server, now)
    # Rows that cannot count any more go first, since nobody else deletes them.
    old = tries.c.last_at < limits.stale(now)
    connection.execute(sa.delete(tries).where(tries.c.server == login.server, tries.c.account != _SERVER, old))
    account = account_key(login.user)
    known = _known(connection, login, account, now)
    wait = known.wait(limits, now, owner=owner)
    if wait is None and candidate:
        wait = (budget(connection, login.server, limits, now)).wait(limits, now, owner=owner)
    if wait is not None:
        return wait
    if not known.present(limits, now).spent:
        _forget(connection, login.server, account)
    _add(connection, login, account, now, strangers=int(candidate and not owner), owners=int(candidate and owner))
    return None


def count(connection: sa.Connection, refused: Iterable[Login], limits: Mapping[str, TryLimits], now: datetime) -> None:
    """Count one refusal of each login, whose server could not be kept from refusing it."""
    # In the order of the rows' keys but for the spelling: nobody else locks two spellings of an account.
    for server, user in sorted(refused, key=lambda login: (login.server, account_key(login.user), login.user)):
        own = limits.get(server, DEFAULT)
        login, account = Login(own.place(server), user), account_key(user)
        if not (_known(connection, login, account, now)).present(own, now).spent:
            _forget(connection, login.server, account)
        _add(connection, login, account, now)


def clear(connection: sa.Connection, login: Login) -> None:
    """Forget the tries of a login that its server has just accepted: the directory forgets them, too.

    Those of other spellings stay: their account may be another one.
    """
    mine = (tries.c.server == login.server) & (tries.c.user == login.user)
    connection.execute(sa.delete(tries).where(mine, tries.c.account == account_key(login.user)))


def _known(connection: sa.Connection, login: Login, account: str, now: datetime) -> Tries:
    """Return the tries of an account. Those that cannot be read are all spent now, so that none is shown too often."""
    try:
        return read(connection, login.server, account)
    except WRONG:
        log.warning("tries of an account cannot be read: all count as spent", extra={"server": login.server})
        _forget(connection, login.server, account)
        _add(connection, login, account, now, spent=LIMIT)
        return Tries(LIMIT, now)


def _lock(connection: sa.Connection, server: str, now: datetime) -> None:
    """Hold the row of a server until the transaction ends, so that its tries are counted one after the other."""
    insert = _insert(connection).values(server=server, account=_SERVER, user="", last_at=now)
    statement = insert.on_conflict_do_update(index_elements=_KEY, set_={"last_at": insert.excluded.last_at})
    connection.execute(statement)


def _forget(connection: sa.Connection, server: str, account: str) -> None:
    """Delete all tries of an account: a window passed since the last one."""
    connection.execute(sa.delete(tries).where(tries.c.server == server, tries.c.account == account))


def _add(
    connection: sa.Connection,
    login: Login,
    account: str,
    now: datetime,
    *,
    spent: int = 1,
    strangers: int = 0,
    owners: int = 0,
) -> None:
    values = {"spent": spent, "strangers": strangers, "owners": owners}
    insert = _insert(connection).values(server=login.server, account=account, user=login.user, last_at=now, **values)
    added = {name: tries.c[name] + insert.excluded[name] for name in values}
    connection.execute(insert.on_conflict_do_update(index_elements=_KEY, set_={**added, "last_at": now}))


def _insert(connection: sa.Connection) -> "postgresql.Insert | sqlite.Insert":
    return postgresql.insert(tries) if connection.dialect.name == "postgresql" else sqlite.insert(tries)


_KEY: Final = ["server", "account", "user"]
