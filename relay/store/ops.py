"""What health and metrics count in the database."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from eas_watcher.machine.memory import WatchState
from eas_watcher.reasons import Reason
from relay.domain.model import Environment, Platform, RegistrationState
from relay.domain.ports.ops import OutboxLevel, RefusedLogins, TokenLevel, WatchNode
from relay.domain.reasons import read_reason
from relay.domain.tries import Budget, TryLimits
from relay.domain.unreadable import UnreadableRows
from relay.store import tries
from relay.store.engine import Database
from relay.store.reading import WRONG, describe
from relay.store.rows import AnyRow, shown_condition
from relay.store.tables import mailbox, maintenance, node, outbox, registration, shard


class SqlOpsStore:
    """The OpsStore of every role."""

    def __init__(
        self,
        database: Database,
        unreadable: UnreadableRows | None = None,
        limits: Mapping[str, TryLimits] = MappingProxyType({}),
    ) -> None:
        """Count in a database, note what cannot be read.

        `limits` has what the directory of each server bears, for a role that shows credentials.
        """
        self._database = database
        self._unreadable = unreadable or UnreadableRows()
        self.limits = limits

    async def reachable(self) -> None:
        """Raise StoreUnavailable when the database does not answer."""
        await self._database.run(lambda connection: connection.scalar(sa.select(1)))

    async def mailboxes_by_state(self) -> Mapping[tuple[WatchState, Reason | None], int]:
        """Count mailboxes by state and reason, as people see them."""
        shown = sa.select(*shown_condition()).select_from(mailbox).subquery()
        rows = await self._database.run(_rows, sa.select(*shown.c, sa.func.count()).group_by(*shown.c))
        counts: Counter[tuple[WatchState, Reason | None]] = Counter()
        for state, reason, number in self._known(rows, mailbox, WatchState):
            counts[state, read_reason(reason)] += number  # two reasons of a newer version are one to this version
        return counts

    async def registrations_by_state(self) -> Mapping[tuple[Platform, RegistrationState], int]:
        """Count registrations."""
        group = (registration.c.platform, registration.c.state)
        rows = await self._database.run(_rows, sa.select(*group, sa.func.count()).group_by(*group))
        known = self._known(rows, registration, Platform, RegistrationState)
        return {(platform, state): number for platform, state, number in known}

    async def outbox(self) -> Mapping[Platform, OutboxLevel]:
        """Measure the outbox of each platform; marks of registrations in quarantine are not counted."""
        waits = outbox.c.aside == ""
        pending, parked = sa.func.count(sa.case((waits, 1))), sa.func.count(sa.case((sa.not_(waits), 1)))
        oldest = sa.func.min(sa.case((waits, outbox.c.first_at)))
        failing = sa.func.count(sa.case((waits & (outbox.c.attempts > 0), 1)))
        query = (
            sa.select(outbox.c.platform, pending, oldest, failing, parked)
            .join_from(outbox, registration)
            .where(registration.c.state == RegistrationState.ACTIVE.value, registration.c.recheck_at.is_(None))
            .group_by(outbox.c.platform)
        )
        levels = {platform: OutboxLevel(0, None, 0) for platform in Platform}
        try:
            rows = await self._database.run(_rows, query)
        except WRONG:  # of a moment; the claims find and name it
            rows = await self._database.run(_rows, query.with_only_columns(*_without_age(query)))
        for platform, *level in self._known(rows, outbox, Platform):
            levels[platform] = OutboxLevel(*level)
        return levels

    async def refused_logins(self, now: datetime) -> Mapping[str, RefusedLogins]:
        """Count by server the credentials of apps that were refused; empty for a role that shows none."""
        found = {}
        if self.limits:
            budgets = await self._database.run(_budgets, self.limits, now)
            for server, limits in self.limits.items():
                budget = budgets[server]
                wait = budget.wait(limits, now, owner=False) is not None
                minutes = round(limits.window.total_seconds() / 60)
                found[server] = RefusedLogins(budget.strangers + budget.owners, limits.refusals, minutes, wait)
        return found

    async def maintained(self) -> Mapping[str, datetime]:
        """Return the mail servers in maintenance, and since when."""
        rows = await self._database.run(_rows, sa.select(maintenance.c.server, maintenance.c.since))
        return {row.server: row.since for row in rows}

    async def tokens(self) -> Sequence[TokenLevel]:
        """Count active registrations by app, environment and the reason why their device tokens are refused."""
        names = ("platform", "app", "environment", "quarantine_reason", "quarantine_remedy")
        group = [registration.c[name] for name in names]
        query = sa.select(*group, sa.func.count()).where(registration.c.state == RegistrationState.ACTIVE.value)
        rows = await self._database.run(_rows, query.group_by(*group).order_by(*group))
        return [TokenLevel(*level) for level in self._known(rows, registration, Platform, str, Environment)]

    async def nodes(self, now: datetime) -> Sequence[WatchNode]:
        """Return the watch processes, each with the number of its shards."""
        owned = sa.func.count(shard.c.number)
        query = sa.select(node.c.id, node.c.version, node.c.alive_until, node.c.leaving, owned).outerjoin_from(
            node, shard, shard.c.owner == node.c.id
        )
        rows = await self._database.run(_rows, query.group_by(*query.selected_columns[:-1]).order_by(node.c.id))
        return [
            WatchNode(id_, version, shards, (until - now).total_seconds(), bool(leaving))
            for id_, version, until, leaving, shards in rows
        ]

    def _known(self, rows: Iterable[AnyRow], table: sa.Table, *kinds: Callable[[Any], Any]) -> list[list[Any]]:
        """Return counted rows with their first values turned into these kinds, and set aside those that are of none."""
        found: list[list[Any]] = []
        strange: dict[str, str] = {}
        for row in rows:
            try:
                found.append([*(kind(value) for kind, value in zip(kinds, row, strict=False)), *row[len(kinds) :]])
            except WRONG as error:
                strange[describe(error)] = f"{row[-1]} rows" if table is not outbox else "some rows"
        self._unreadable.looked(table.name, f"counted by {', '.join(kind.__name__ for kind in kinds)}", strange)
        return found


def _rows(connection: sa.Connection, query: sa.Select[Any]) -> Sequence[AnyRow]:
    return connection.execute(query).all()


def _budgets(connection: sa.Connection, limits: Mapping[str, TryLimits], now: datetime) -> Mapping[str, Budget]:
    """Return how much of its limits each server has spent."""
    return {server: tries.budget(connection, own.place(server), own, now) for server, own in limits.items()}


def _without_age(query: sa.Select[Any]) -> list[sa.ColumnElement[Any]]:
    platform, pending, _, *rest = query.selected_columns
    return [platform, pending, sa.null(), *rest]
