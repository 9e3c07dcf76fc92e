"""The count of tries: how often credentials of each account were shown to its server, in which window.

A candidate, and a credential that was refused before, is counted before it is shown, under a lock on its server's row,
so that processes count one after the other. A refusal that nobody could foresee is counted when it is stored.
"""

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from operator import itemgetter
from typing import Final, NamedTuple, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from relay.domain.tries import DEFAULT, LIMIT, Budget, Tries, TryLimits, Wait, account_key
from relay.store.prepared import Prepared
from relay.store.reading import WRONG
from relay.store.tables import Moment, tries

Insert: TypeAlias = postgresql.Insert | sqlite.Insert

log = logging.getLogger(__name__)

_SERVER: Final = ""
"""The account and user of the row that stands for a whole server."""


class Login(NamedTuple):
    """A user of a server, as a mailbox names it; or of the directory that several servers share."""

    server: str
    user: str


def read(connection: sa.Connection, server: str, account: str) -> Tries:
    """Return all tries of an account, in all spellings."""
    ((spent, last_at),) = _READ.rows(connection, {"server": server, "account": account})
    return Tries(spent or 0, last_at)


def budget(connection: sa.Connection, server: str, limits: TryLimits, now: datetime) -> Budget:
    """Return the refused candidates of a server within the window."""
    window = {"server": server, "since": limits.since(now), "until": now + limits.window}
    ((strangers, owners, first_at),) = _BUDGET.rows(connection, window)
    return Budget(strangers or 0, owners or 0, first_at)


def spend(
    connection: sa.Connection, login: Login, limits: TryLimits, now: datetime, *, candidate: bool, owner: bool
) -> Wait | None:
    """Count a try of an account; return how long it must wait instead, if none is left.

    `owner`: the credential is a candidate that came with the secret of an active registration.
    """
    _lock(connection, login.server, now)
    # Rows that cannot count any more go first, since nobody else deletes them.
    _DELETE_OLD.execute(connection, {"server": login.server, "stale": limits.stale(now)})
    account = account_key(login.user)
    known = _known(connection, login, account, now)
    wait = known.wait(limits, now, owner=owner)
    if wait is None and candidate:
        wait = (budget(connection, login.server, limits, now)).wait(limits, now, owner=owner)
    if wait is not None:
        return wait
    if known.last_at is not None and not known.present(limits, now).spent:
        _forget(connection, login.server, account)
    _add(connection, login, account, now, strangers=int(candidate and not owner), owners=int(candidate and owner))
    return None


def count(connection: sa.Connection, refused: Iterable[Login], limits: Mapping[str, TryLimits], now: datetime) -> None:
    """Count one refusal of each login, whose server could not be kept from refusing it."""
    limited = [(limits.get(server, DEFAULT), server, user) for server, user in refused]
    # In the order of the rows' keys but for the spelling: nobody else locks two spellings of an account.
    for place, account, user, own in sorted(
        ((own.place(server), account_key(user), user, own) for own, server, user in limited), key=itemgetter(0, 1, 2)
    ):
        login = Login(place, user)
        if not (_known(connection, login, account, now)).present(own, now).spent:
            _forget(connection, login.server, account)
        _add(connection, login, account, now)


def clear(connection: sa.Connection, login: Login) -> None:
    """Forget the tries of a login that its server has just accepted: the directory forgets them, too.

    Those of other spellings stay: their account may be another one.
    """
    account = account_key(login.user)
    _CLEAR.execute(connection, {"server": login.server, "account": account, "user": login.user})


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
    _LOCK.execute(connection, {"server": server, "last_at": now})


def _forget(connection: sa.Connection, server: str, account: str) -> None:
    """Delete all tries of an account: a window passed since the last one."""
    _FORGET.execute(connection, {"server": server, "account": account})


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
    key = {"server": login.server, "account": account, "user": login.user}
    _ADD.execute(connection, {**key, **values, "last_at": now})


def _locking(insert: Insert) -> sa.Executable:
    given = insert.values(
        server=sa.bindparam("server"), account=_SERVER, user="", last_at=sa.bindparam("last_at", type_=Moment)
    )
    return given.on_conflict_do_update(index_elements=_KEY, set_={"last_at": given.excluded.last_at})


def _adding(insert: Insert) -> sa.Executable:
    given = insert.values({name: sa.bindparam(name, type_=tries.c[name].type) for name in (*_KEY, *_COUNTS, "last_at")})
    added = {name: tries.c[name] + given.excluded[name] for name in _COUNTS}
    return given.on_conflict_do_update(index_elements=_KEY, set_={**added, "last_at": given.excluded.last_at})


_KEY: Final = ["server", "account", "user"]
_COUNTS: Final = ("spent", "strangers", "owners")
_MINE: Final = (tries.c.server == sa.bindparam("server"), tries.c.account == sa.bindparam("account"))
_OF_SERVER: Final = (tries.c.server == sa.bindparam("server"), tries.c.account != _SERVER)
_READ: Final = Prepared(
    sa.select(
        sa.func.sum(tries.c.spent, type_=sa.Integer).label("spent"),
        sa.func.max(tries.c.last_at, type_=Moment).label("last_at"),
    ).where(*_MINE)
)
_BUDGET: Final = Prepared(
    sa.select(
        sa.func.sum(tries.c.strangers, type_=sa.Integer).label("strangers"),
        sa.func.sum(tries.c.owners, type_=sa.Integer).label("owners"),
        sa.func.min(tries.c.last_at, type_=Moment).label("first_at"),
    ).where(
        *_OF_SERVER,
        tries.c.strangers + tries.c.owners > 0,
        tries.c.last_at > sa.bindparam("since", type_=Moment),
        tries.c.last_at < sa.bindparam("until", type_=Moment),
    )
)
_DELETE_OLD: Final = Prepared(
    sa.delete(tries).where(*_OF_SERVER, tries.c.last_at < sa.bindparam("stale", type_=Moment))
)
_CLEAR: Final = Prepared(sa.delete(tries).where(*_MINE, tries.c.user == sa.bindparam("user")))
_FORGET: Final = Prepared(sa.delete(tries).where(*_MINE))
_INSERTS: Final[Mapping[str, Insert]] = {"postgresql": postgresql.insert(tries), "sqlite": sqlite.insert(tries)}
_LOCK: Final = Prepared({dialect: _locking(insert) for dialect, insert in _INSERTS.items()})
_ADD: Final = Prepared({dialect: _adding(insert) for dialect, insert in _INSERTS.items()})
