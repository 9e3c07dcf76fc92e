"""What health and metrics count in the database."""

from collections import Counter
from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from eas_watcher.machine.memory import WatchState
from eas_watcher.reasons import Reason
from relay.domain.model import Environment, Platform, RegistrationState
from relay.domain.ports.ops import OutboxLevel, TokenLevel
from relay.domain.reasons import read_reason
from relay.store.engine import transaction
from relay.store.tables import mailbox, outbox, registration


class SqlOpsStore:
    """The OpsStore of every role."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Count in a database."""
        self._engine = engine

    async def reachable(self) -> None:
        """Raise StoreUnavailable when the database does not answer."""
        async with transaction(self._engine) as connection:
            await connection.scalar(sa.select(1))

    async def mailboxes_by_state(self) -> Mapping[tuple[WatchState, Reason | None], int]:
        """Count mailboxes by state and reason."""
        group = (mailbox.c.state, mailbox.c.reason)
        async with transaction(self._engine) as connection:
            rows = await connection.execute(sa.select(*group, sa.func.count()).group_by(*group))
            counts: Counter[tuple[WatchState, Reason | None]] = Counter()
            for state, reason, number in rows:  # two reasons of a newer version are one to this version
                counts[WatchState(state), read_reason(reason)] += number
            return counts

    async def registrations_by_state(self) -> Mapping[tuple[Platform, RegistrationState], int]:
        """Count registrations."""
        group = (registration.c.platform, registration.c.state)
        async with transaction(self._engine) as connection:
            rows = await connection.execute(sa.select(*group, sa.func.count()).group_by(*group))
            return {(Platform(platform), RegistrationState(state)): number for platform, state, number in rows}

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
        async with transaction(self._engine) as connection:
            rows = await connection.execute(query)
            levels |= {Platform(platform): OutboxLevel(*level) for platform, *level in rows}
        return levels

    async def tokens(self) -> Sequence[TokenLevel]:
        """Count active registrations by app, environment and the reason why their device tokens are refused."""
        names = ("platform", "app", "environment", "quarantine_reason", "quarantine_remedy")
        group = [registration.c[name] for name in names]
        query = sa.select(*group, sa.func.count()).where(registration.c.state == RegistrationState.ACTIVE.value)
        async with transaction(self._engine) as connection:
            rows = await connection.execute(query.group_by(*group).order_by(*group))
            return [
                TokenLevel(Platform(platform), app, Environment(environment), *rest)
                for platform, app, environment, *rest in rows
            ]
