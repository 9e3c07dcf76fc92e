"""The processes with sealing keys, as each of them notes it about itself."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from relay.domain.model import Role
from relay.domain.sealing_keys import KeyHolder
from relay.store.engine import Database
from relay.store.tables import key_holder, node

FRESH: Final = timedelta(seconds=75)
"""A process that has noted nothing for so long does not run any more; it notes something every 20 s."""


class SqlKeyHolderStore:
    """The KeyHolderStore on a database."""

    def __init__(self, database: Database) -> None:
        """Keep holders in a database."""
        self._database = database

    async def note(self, holder: KeyHolder, now: datetime) -> None:
        """Note what a process has, now."""
        await self._database.run(_note, holder, now)

    async def leave(self, node: str) -> None:
        """Forget a process that ends."""
        await self._database.run(_leave, node)

    async def holders(self, now: datetime) -> Sequence[KeyHolder]:
        """Return the processes that run, with those that hold mailboxes and have noted nothing."""
        return await self._database.run(holders, now)


def _note(connection: sa.Connection, holder: KeyHolder, now: datetime) -> None:
    values = {"role": holder.role.value, "opens": " ".join(sorted(holder.opens)), "seals": holder.seals, "seen_at": now}
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    fresh = insert(key_holder).values(node=holder.node, **values)
    connection.execute(fresh.on_conflict_do_update(index_elements=[key_holder.c.node], set_=values))
    # Of its own role: guards let the api role remove no others. Several processes may do it at the same time.
    gone = (key_holder.c.seen_at < now - FRESH) & (key_holder.c.role == holder.role.value)
    locked = sa.select(key_holder.c.node).where(gone).with_for_update(skip_locked=True)
    connection.execute(sa.delete(key_holder).where(key_holder.c.node.in_(locked)))


def _leave(connection: sa.Connection, name: str) -> None:
    connection.execute(sa.delete(key_holder).where(key_holder.c.node == name))


def holders(connection: sa.Connection, now: datetime) -> Sequence[KeyHolder]:
    """Return the processes that run, with those that hold mailboxes and have noted nothing."""
    fresh = sa.select(key_holder).where(key_holder.c.seen_at >= now - FRESH).order_by(key_holder.c.node)
    found = [
        KeyHolder(row.node, Role(row.role), frozenset(row.opens.split()), row.seals)
        for row in connection.execute(fresh)
    ]
    alive = connection.scalars(sa.select(node.c.id).where(node.c.alive_until > now).order_by(node.c.id)).all()
    silent = [name for name in alive if not any(_bears(each.node, [name]) for each in found)]
    shown = [replace(each, leased=not each.watches or _bears(each.node, alive)) for each in found]
    return shown + [KeyHolder(name, Role.WATCH, frozenset(), "") for name in silent]


def _bears(node: str, names: Collection[str]) -> bool:
    """Return True if a process has one of some names: one that joins once more has its name with a number."""
    return any(name == node or name.startswith(f"{node}.") for name in names)
