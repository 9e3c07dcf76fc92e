"""What the relay learnt of the paths to mail servers: a row for each URL that was ever asked."""

from collections.abc import Mapping
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine

from eas_watcher.server.idle_timeout import IdleTimeout, Lesson
from relay.store.engine import transaction
from relay.store.tables import path


class SqlIdleTimeoutStore:
    """The IdleTimeoutStore of the watch role."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Keep lessons in a database."""
        self._engine = engine

    async def lessons(self, since: datetime) -> Mapping[str, Lesson]:
        """Return the lessons since a moment, by URL."""
        async with transaction(self._engine) as connection:
            rows = await connection.execute(sa.select(path).where(path.c.learnt_at >= since))
            return {row.url: Lesson(row.interval, _read_cut_off(row)) for row in rows}

    async def keep_lesson(self, url: str, lesson: Lesson, now: datetime) -> None:
        """Keep a lesson, which replaces the one before."""
        cut = lesson.cut_off
        row = {
            "url": url,
            "interval": lesson.interval,
            "cut_shortest": None if cut is None else cut.shortest,
            "cut_longest": None if cut is None else cut.longest,
            "learnt_at": now,
        }
        async with transaction(self._engine) as connection:
            await connection.execute(_UPSERT[connection.dialect.name], row)


def _read_cut_off(row: sa.Row[tuple[object, ...]]) -> IdleTimeout | None:
    return None if row.cut_shortest is None else IdleTimeout(row.cut_shortest, row.cut_longest)


def _upsert(insert: postgresql.Insert | sqlite.Insert) -> postgresql.Insert | sqlite.Insert:
    replaced = ("interval", "cut_shortest", "cut_longest", "learnt_at")
    return insert.on_conflict_do_update(index_elements=["url"], set_={name: insert.excluded[name] for name in replaced})


_UPSERT = {"postgresql": _upsert(postgresql.insert(path)), "sqlite": _upsert(sqlite.insert(path))}
