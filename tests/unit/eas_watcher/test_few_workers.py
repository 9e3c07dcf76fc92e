"""Servers with fewer workers than mailboxes, over simulated hours; `make bench B=workers` prints the figures."""

import asyncio
import logging
from statistics import mean

import pytest

from tests.unit.eas_watcher.workers import FewWorkers, crowd

pytestmark = pytest.mark.looptime
LEARNING = 900.0  # seconds
HOUR = 3600.0


@pytest.mark.parametrize(
    ("mailboxes", "workers", "held", "gap"),
    [(36, 5, 3.5, 240.0), (3, 1, 0.9, 240.0), pytest.param(40, 30, 28.0, 100.0, marks=pytest.mark.slow)],
)
async def test_as_many_are_held_as_there_are_workers_and_the_rest_is_polled(
    mailboxes: int, workers: int, held: float, gap: float, caplog: pytest.LogCaptureFixture
) -> None:
    async with crowd(FewWorkers(workers), mailboxes) as place:
        await place.run(LEARNING)
        place.unwatched.clear()
        place.states.clear()
        await place.run(HOUR)
        since, until = LEARNING, LEARNING + HOUR

        assert sum(place.share(since, until)) >= held
        assert min(place.share(since, until)) > 0.01, "each has its turn"
        assert max(place.gaps(since, until)) <= gap
        assert max(place.journals.late) <= 300.0
        assert mean(place.unwatched) <= 0.01
        assert place.states == {"serving"}
        assert place.admission.describe("mail.example.com").startswith("mail.example.com holds about ")
        assert place.admission.path.cut_off is None, "504 of a full server is no idle timeout"


@pytest.mark.parametrize("every", [6.0, pytest.param(60.0, marks=pytest.mark.slow)])
async def test_mailboxes_that_come_one_after_the_other_find_a_worker(every: float) -> None:
    async with crowd(FewWorkers(5), 36, every=every) as place:
        await place.run(36 * every + LEARNING)
        since = 36 * every + LEARNING
        await place.run(HOUR)

        assert sum(place.share(since, since + HOUR)) >= 3.5
        assert max(place.gaps(since, since + HOUR)) <= 240.0
        firsts = [place.server.covered[name][0][0] - number * every for number, name in enumerate(place.mailboxes)]
        assert max(firsts) <= 240.0, "none waits longer for its first answer than the longest trial lasts"


async def test_a_server_with_a_worker_for_each_holds_all_all_the_time() -> None:
    async with crowd(FewWorkers(40), 30) as place:
        await place.run(HOUR)

        assert min(place.share(60.0, HOUR)) >= 0.99
        assert place.admission.capacity.limit is None


@pytest.mark.slow
@pytest.mark.parametrize("restarts", [True, False])
async def test_workers_that_come_and_go_are_noticed(*, restarts: bool) -> None:
    server = FewWorkers(5)

    def change(workers: int) -> None:
        if restarts:
            server.restart(workers)
        else:
            server.workers = workers
            server.serve()

    async with crowd(server, 36) as place:
        clock = asyncio.get_running_loop().time
        await place.run(LEARNING)
        change(50)
        await place.run(2 * LEARNING)
        began = clock()
        await place.run(HOUR / 2)
        assert min(place.share(began, clock())) >= 0.95
        assert place.admission.describe("mail.example.com") == ""

        change(5)
        await place.run(LEARNING)
        began = clock()
        await place.run(HOUR)
        assert sum(place.share(began, clock())) >= 3.5
        assert max(place.gaps(began, clock())) <= 240.0
        assert mean(place.unwatched[-360:]) <= 0.01


@pytest.mark.slow
async def test_processes_that_share_a_server_converge_on_what_it_holds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    async with crowd(FewWorkers(10), 36, processes=3) as place:
        await place.run(HOUR)
        place.unwatched.clear()
        await place.run(HOUR)

        assert sum(place.share(HOUR, 2 * HOUR)) >= 7.0
        assert max(place.gaps(HOUR, 2 * HOUR)) <= 300.0
        assert mean(place.unwatched) <= 0.02


async def test_a_random_504_takes_no_mailbox_from_a_server_that_holds_all() -> None:
    server = FewWorkers(50)
    async with crowd(server, 36) as place:
        await place.run(600.0)
        for _ in range(60):
            server.refuse_next()
            await place.run(60.0)

        assert place.admission.capacity.limit is None
        assert min(place.share(600.0, 4200.0)) >= 0.9


async def test_what_was_learnt_is_known_to_the_next_process() -> None:
    async with crowd(FewWorkers(5), 36) as place:
        await place.run(LEARNING)
        lesson = place.admission.lesson
    assert lesson is not None
    assert lesson.capacity in {4, 5}

    async with crowd(FewWorkers(5), 36, lesson=lesson) as place:
        began = asyncio.get_running_loop().time()
        await place.run(LEARNING)

        assert max(place.gaps(began, began + LEARNING)) <= 240.0
        assert mean(place.unwatched) <= 0.02
        assert place.states <= {"serving", "starting"}
