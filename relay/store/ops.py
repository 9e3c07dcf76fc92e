"""Own what health and metrics count."""

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from eas_watcher.progress import WatchState
from relay.model import Platform, RegistrationState
from relay.ports import OutboxLevel
from relay.store.engine import transaction
from relay.store.tables import mailbox, outbox, registration


class SqlOpsStore:
    """Be the OpsStore of every role."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Take the database."""
        self._engine = engine

    async def reachable(self) -> None:
        """Raise StoreUnavailable when the database does not answer."""
        async with transaction(self._engine) as connection:
            await connection.scalar(sa.select(1))

    async def mailboxes_by_state(self) -> Mapping[tuple[WatchState, str], int]:
        """Count mailboxes by state and reason."""
        group = (mailbox.c.state, mailbox.c.reason)
        async with transaction(self._engine) as connection:
            rows = await connection.execute(sa.select(*group, sa.func.count()).group_by(*group))
            return {(WatchState(state), reason): number for state, reason, number in rows}

    async def registrations_by_state(self) -> Mapping[tuple[Platform, RegistrationState], int]:
        """Count registrations."""
        group = (registration.c.platform, registration.c.state)
        async with transaction(self._engine) as connection:
            rows = await connection.execute(sa.select(*group, sa.func.count()).group_by(*group))
            return {(Platform(platform), RegistrationState(state)): number for platform, state, number in rows}

    async def outbox(self) -> Mapping[Platform, OutboxLevel]:
        """Measure the outbox of each platform; only what may be pushed counts."""
        failing = sa.func.count(sa.case((outbox.c.attempts > 0, 1)))
        query = (
            sa.select(outbox.c.platform, sa.func.count(), sa.func.min(outbox.c.first_at), failing)
            .join_from(outbox, registration)
            .where(registration.c.state == RegistrationState.ACTIVE.value)
            .group_by(outbox.c.platform)
        )
        levels = {platform: OutboxLevel(0, None, 0) for platform in Platform}
        async with transaction(self._engine) as connection:
            rows = await connection.execute(query)
            levels |= {Platform(platform): OutboxLevel(*level) for platform, *level in rows}
        return levels
