"""Test what is kept of the paths to mail servers."""

from datetime import timedelta

from eas_watcher.server.idle_timeout import IdleTimeout, Lesson
from relay.store.engine import Database
from relay.store.idle_timeouts import SqlIdleTimeoutStore
from tests.contract.samples import LATER, NOW

URL = "https://mail.example.com/Microsoft-Server-ActiveSync"
SHORT = Lesson(225, IdleTimeout(298.5, 301.25))


async def test_nothing_is_known_of_a_path_at_first(engine: Database) -> None:
    assert await SqlIdleTimeoutStore(engine).lessons(NOW) == {}


async def test_the_last_lesson_replaces_the_one_before(engine: Database) -> None:
    store = SqlIdleTimeoutStore(engine)
    await store.keep_lesson(URL, SHORT, NOW)
    await store.keep_lesson("https://other.example.com/", Lesson(600), NOW)
    assert await store.lessons(NOW) == {URL: SHORT, "https://other.example.com/": Lesson(600)}

    await store.keep_lesson(URL, Lesson(1680), LATER)

    assert await store.lessons(NOW) == {URL: Lesson(1680), "https://other.example.com/": Lesson(600)}


async def test_how_many_pings_a_server_holds_is_kept_with_or_without_a_heartbeat(engine: Database) -> None:
    store = SqlIdleTimeoutStore(engine)
    for lesson in (Lesson(None, capacity=4), Lesson(300, capacity=0), Lesson(300)):
        await store.keep_lesson(URL, lesson, NOW)
        assert await store.lessons(NOW) == {URL: lesson}


async def test_lessons_before_a_moment_are_left_out(engine: Database) -> None:
    store = SqlIdleTimeoutStore(engine)
    await store.keep_lesson(URL, SHORT, NOW)

    assert await store.lessons(NOW + timedelta(seconds=1)) == {}
