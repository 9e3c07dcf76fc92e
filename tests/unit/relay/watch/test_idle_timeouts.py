import asyncio
from collections.abc import Mapping
from datetime import datetime
from random import Random

import pytest

from eas_watcher.heartbeat import Heartbeat
from eas_watcher.server.admission import ServerAdmission
from eas_watcher.server.admissions import Admissions
from eas_watcher.server.idle_timeout import IdleTimeout, Lesson, PathKnowledge
from relay.domain.errors import StoreUnavailable
from relay.watch.idle_timeouts import KEEP, STALE, IdleTimeoutKeeper, recall
from tests.unit.eas_watcher.watching import NOW

pytestmark = pytest.mark.looptime

URL = "https://mail.example.com/eas"
SHORT = Lesson(225, IdleTimeout(299.0, 301.0))


class Store:
    """Keep lessons in memory; `away`: the database does not answer."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[Lesson, datetime]] = {}
        self.writes = 0
        self.away = False

    async def lessons(self, since: datetime) -> Mapping[str, Lesson]:
        return {url: lesson for url, (lesson, at) in self.rows.items() if at >= since}

    async def keep_lesson(self, url: str, lesson: Lesson, now: datetime) -> None:
        if self.away:
            raise StoreUnavailable
        self.writes += 1
        self.rows[url] = lesson, now


def door(path: PathKnowledge | None = None) -> ServerAdmission:
    return ServerAdmission(10.0, 8, Random(1), lambda: NOW, path)


async def test_only_what_is_new_is_kept_and_seldom() -> None:
    store, doors = Store(), {URL: door(), "https://other.example.com/eas": door()}
    running = asyncio.ensure_future(IdleTimeoutKeeper(store, doors.items, {}, lambda: NOW).run())
    await asyncio.sleep(KEEP * 3.5)
    assert store.writes == 0

    doors[URL].held(Heartbeat(900), 900.0)
    await asyncio.sleep(KEEP * 3)
    running.cancel()

    assert store.rows == {URL: (Lesson(900), NOW)}
    assert store.writes == 1


async def test_how_many_pings_a_server_holds_is_kept() -> None:
    store, full = Store(), door()
    full.capacity.limit = 4
    await IdleTimeoutKeeper(store, {URL: full}.items, {}, lambda: NOW).keep()

    assert store.rows == {URL: (Lesson(None, capacity=4), NOW)}
    lessons = await recall(store, lambda: NOW)
    admission = Admissions(8, Random(1), lambda: NOW, lessons).admission(URL, 10.0)
    assert (admission.capacity.limit, admission.path.lesson) == (4, None)


async def test_a_lesson_that_is_stored_already_is_not_written_again() -> None:
    store = Store()
    await IdleTimeoutKeeper(store, {URL: door(PathKnowledge.recalled(SHORT))}.items, {URL: SHORT}, lambda: NOW).keep()

    assert store.writes == 0


async def test_a_lesson_that_cannot_be_stored_now_is_stored_later(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    store.away = True
    paths = IdleTimeoutKeeper(store, {URL: door(PathKnowledge.recalled(SHORT))}.items, {}, lambda: NOW)
    await paths.keep()
    assert "the database is away" in caplog.text

    store.away = False
    await paths.keep()

    assert store.rows == {URL: (SHORT, NOW)}


async def test_a_new_process_starts_from_what_the_one_before_has_learnt() -> None:
    store = Store()
    store.rows = {URL: (SHORT, NOW - STALE), "https://old.example.com/eas": (SHORT, NOW - STALE * 1.01)}

    lessons = await recall(store, lambda: NOW)
    admissions = Admissions(8, Random(1), lambda: NOW, lessons)

    assert admissions.admission(URL, 1.0).path == PathKnowledge.recalled(SHORT)
    assert admissions.admission("https://old.example.com/eas", 1.0).path == PathKnowledge()
