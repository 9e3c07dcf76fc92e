"""What the relay learnt of mail servers and the paths to them: a row for each URL that was ever asked."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from eas_watcher.server.idle_timeout import IdleTimeout, Lesson
from relay.domain.unreadable import UnreadableRows
from relay.store.engine import Database
from relay.store.reading import Reader, faults
from relay.store.rows import AnyRow
from relay.store.tables import path


class SqlIdleTimeoutStore:
    """The IdleTimeoutStore of the watch role."""

    def __init__(self, database: Database, unreadable: UnreadableRows | None = None) -> None:
        """Keep lessons in a database, note what cannot be read."""
        self._database = database
        self._unreadable = unreadable or UnreadableRows()

    async def lessons(self, since: datetime) -> Mapping[str, Lesson]:
        """Return the lessons since a moment, by URL."""
        found, bad = await self._database.run(_LESSONS.all, _LESSONS.query.where(path.c.learnt_at >= since))
        for each in bad:
            self._unreadable.looked("path", each.name, {each.name: each.fault})
        return dict(found)

    async def look_again(self, _now: datetime) -> None:
        """Look at the rows set aside; those that are readable serve from the next start on."""
        for url in self._unreadable.owners("path"):
            _, bad = await self._database.run(_LESSONS.all, _LESSONS.query.where(path.c.url == url))
            self._unreadable.looked("path", url, faults(bad))

    async def keep_lesson(self, url: str, lesson: Lesson, now: datetime) -> None:
        """Keep a lesson, which replaces the one before."""
        cut = lesson.cut_off
        row = {
            "url": url,
            "interval": lesson.interval,
            "cut_shortest": None if cut is None else cut.shortest,
            "cut_longest": None if cut is None else cut.longest,
            "capacity": lesson.capacity,
            "learnt_at": now,
        }
        await self._database.run(lambda connection: connection.execute(_UPSERT[connection.dialect.name], row))


def _read_lesson(row: AnyRow) -> tuple[str, Lesson]:
    cut = None if row.cut_shortest is None else IdleTimeout(row.cut_shortest, row.cut_longest)
    return row.url, Lesson(row.interval, cut, row.capacity)


_LESSONS: Final = Reader(sa.select(path), [path.c.url], _read_lesson)


def _upsert(insert: postgresql.Insert | sqlite.Insert) -> postgresql.Insert | sqlite.Insert:
    replaced = ("interval", "cut_shortest", "cut_longest", "capacity", "learnt_at")
    return insert.on_conflict_do_update(index_elements=["url"], set_={name: insert.excluded[name] for name in replaced})


_UPSERT = {"postgresql": _upsert(postgresql.insert(path)), "sqlite": _upsert(sqlite.insert(path))}
