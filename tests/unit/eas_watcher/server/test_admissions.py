from eas_watcher.server.admissions import Admissions
from eas_watcher.server.idle_timeout import IdleTimeout, Lesson, PathKnowledge
from tests.unit.eas_watcher.running import Middle
from tests.unit.eas_watcher.watching import NOW

URL = "https://mail.example.com/eas"
LESSON = Lesson(225, IdleTimeout(299.0, 301.0))


def admissions(lesson: Lesson | None = None) -> Admissions:
    return Admissions(64, Middle(), lambda: NOW, {} if lesson is None else {URL: lesson})


async def test_each_server_has_one_admission() -> None:
    owner = admissions()
    first = owner.admission(URL, 50.0)

    assert owner.admission(URL, 10.0) is first
    assert owner.admission("https://mail.example.org/eas", 50.0) is not first
    assert first.short.free == 64


async def test_only_servers_that_were_asked_are_known() -> None:
    owner = admissions()
    assert owner.known(URL) is None

    admission = owner.admission(URL, 50.0)

    assert owner.known(URL) is admission
    assert owner.items() == [(URL, admission)]


async def test_a_new_admission_starts_from_what_earlier_processes_learnt() -> None:
    owner = admissions(LESSON)

    assert owner.admission(URL, 50.0).path == PathKnowledge.recalled(LESSON)
    assert owner.admission("https://mail.example.org/eas", 50.0).path == PathKnowledge()
