import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from itertools import pairwise
from random import Random

import pytest

from eas_watcher.errors import AccessDenied, ServerBusy, Unauthorized, Unreachable
from eas_watcher.heartbeat import HELD, Heartbeat
from eas_watcher.reasons import Reason
from eas_watcher.server.admission import ClientAdmission, ServerAdmission
from eas_watcher.server.breaker import DISTINCT
from tests.unit.eas_watcher.running import Middle
from tests.unit.eas_watcher.watching import NOW

pytestmark = pytest.mark.looptime

AWAY = Unreachable("no connection: Connection refused", reached=False)
REFUSED = Unauthorized("the server refuses the credential (HTTP 401)")
RATE = 10.0
MANY = 200


def clock() -> float:
    return asyncio.get_running_loop().time()


def here(mailbox: Hashable, refusals: int = 0) -> ClientAdmission:
    """Make a visitor that has passed before, so that it need not start."""
    return ClientAdmission(mailbox, refusals, passed=0)


def new_door() -> ServerAdmission:
    return ServerAdmission(RATE, 8, Middle(), lambda: NOW)


class Watches:
    """Send through a door again and again, as runners do; `reach` says what comes of each request."""

    def __init__(self, door: ServerAdmission, reach: Callable[[ClientAdmission], Awaitable[None]]) -> None:
        self.door = door
        self.reach = reach
        self.sent: list[float] = []
        self.done: list[float] = []

    async def run(self, visitor: ClientAdmission) -> None:
        while True:
            await self.door.enter(visitor)
            self.sent.append(clock())
            try:
                await self.reach(visitor)
            except (Unreachable, ServerBusy) as error:
                self.door.failed(visitor, error)
            else:
                self.door.answered(visitor)
                self.done.append(clock())
                return
            finally:
                self.door.leave(visitor)


@asynccontextmanager
async def running(watches: Watches, number: int = MANY) -> AsyncIterator[list[asyncio.Task[None]]]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(watches.run(here(name))) for name in range(number)]
        yield tasks
        for task in tasks:
            task.cancel()


async def away(_: ClientAdmission) -> None:
    raise AWAY


async def close(door: ServerAdmission, visitor: ClientAdmission | None = None) -> None:
    visitor = visitor or ClientAdmission("first")
    await door.enter(visitor)
    door.failed(visitor, AWAY)
    door.leave(visitor)


async def test_an_open_door_keeps_nobody_waiting() -> None:
    door, visitors = new_door(), [ClientAdmission(name) for name in range(MANY)]
    for _ in range(2):
        began = clock()
        for visitor in visitors:
            await door.enter(visitor)

    assert clock() == began
    await asyncio.sleep(1 / RATE)
    assert (door.state, door.waiting, door.expected_wait()) == ("serving", 0, None)


async def test_all_that_start_at_once_are_let_in_at_the_rate() -> None:
    door, known, came = new_door(), ClientAdmission("known"), []
    await door.enter(known)
    await asyncio.sleep(1)
    assert door.state == "serving"

    async def start(name: int) -> None:
        await door.enter(ClientAdmission(name))
        came.append(clock())

    async with asyncio.TaskGroup() as tasks:
        for name in range(MANY):
            tasks.create_task(start(name))
        await asyncio.sleep(5)
        assert (door.state, door.waiting) == ("starting", MANY - 51)
        await door.enter(known)
        assert clock() == 6.0  # who is here already goes on meanwhile

    assert min(after - before for before, after in pairwise(came)) >= 0.99 / RATE
    assert clock() == pytest.approx(1 + MANY / RATE, abs=0.2)
    await asyncio.sleep(1 / RATE)
    assert door.state == "serving"


async def test_a_mailbox_that_comes_alone_does_not_wait() -> None:
    door = new_door()
    for name in range(5):
        await door.enter(ClientAdmission(name))
        await asyncio.sleep(2 / RATE)
        assert door.state == "serving"

    assert clock() == pytest.approx(10 / RATE)


async def test_while_the_server_is_away_one_probes_and_the_rest_wait_without_timers() -> None:
    watches = Watches(new_door(), away)
    async with running(watches):
        await asyncio.sleep(300)
        loop = asyncio.get_running_loop()
        timers = [timer for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        assert len(timers) <= 2
        assert watches.door.waiting >= MANY - 2
        assert watches.door.state == "away"
        assert watches.door.detail == str(AWAY)
        probes = [moment for moment in watches.sent if moment > 0]
        assert probes == [5.0, 15.0, 35.0, 75.0, 135.0, 195.0, 255.0]


async def test_thousands_that_wait_have_one_timer_and_return_with_jitter() -> None:
    """A fleet of 50,000, with all that belongs to a mailbox, is in tests/soak."""
    many, rate = 3_000, 500.0
    door = ServerAdmission(rate, 8, Random(1), lambda: NOW)
    await close(door)
    loop, came = asyncio.get_running_loop(), []

    async def wait(name: int) -> None:
        visitor = here(name)
        await door.enter(visitor)
        came.append(clock())
        if visitor.probe:
            await asyncio.sleep(1)
            door.answered(visitor)
        door.leave(visitor)

    async with asyncio.TaskGroup() as tasks:
        for name in range(many):
            tasks.create_task(wait(name))
        await asyncio.sleep(1)
        assert door.waiting == many
        assert len(loop._scheduled) <= 2  # type: ignore[attr-defined]

    probe, first, *_ = came
    assert first - probe >= 1.0
    assert clock() == pytest.approx(first + many / rate, rel=0.05)
    assert max(Counter(int(moment) for moment in came).values()) <= rate * 1.05
    gaps = {round((after - before) * rate, 2) for before, after in pairwise(came[1:])}
    assert (min(gaps), max(gaps)) == pytest.approx((0.5, 1.5), abs=0.01)


async def test_all_return_at_the_rate_when_the_server_is_back() -> None:
    back = asyncio.Event()

    async def reach(_: ClientAdmission) -> None:
        if not back.is_set():
            raise AWAY
        await asyncio.sleep(0.01)

    watches = Watches(new_door(), reach)
    async with running(watches) as tasks:
        await asyncio.sleep(36)
        back.set()
        await asyncio.wait(tasks)
        assert watches.door.state == "serving"

    assert watches.done[0] == pytest.approx(75.01)
    assert min(after - before for before, after in pairwise(watches.done[1:])) >= 0.99 / RATE
    assert clock() == pytest.approx(75 + MANY / RATE, abs=0.5)


async def test_who_has_passed_since_sends_on_while_the_others_return() -> None:
    door, ann, early = new_door(), here("ann"), here("early")
    await door.enter(early)
    await close(door)
    await door.enter(ann)
    async with asyncio.TaskGroup() as tasks:
        for name in range(50):
            tasks.create_task(door.enter(here(name)))
        await asyncio.sleep(0)
        door.answered(ann)
        assert door.state == "returning"
        await door.enter(ann)
        assert clock() == 5.0
        assert door.expected_wait() == pytest.approx(49 / RATE)
        await door.enter(early)  # it has passed before the outage only
        assert clock() == pytest.approx(5 + 50 / RATE)


async def test_a_probe_that_is_stopped_makes_room_for_the_next() -> None:
    door = new_door()
    await close(door)
    probe = here("probe")
    await door.enter(probe)
    assert probe.probe
    second = asyncio.ensure_future(door.enter(here("second")))
    await asyncio.sleep(1)
    assert not second.done()

    door.leave(probe)
    await second

    assert clock() == 6.0


async def test_a_probe_over_a_stale_connection_tells_nothing_and_makes_room_for_the_next() -> None:
    door = new_door()
    await close(door)
    probe = here("probe")
    await door.enter(probe)
    stale = Unreachable("connection lost", stale=True)

    assert door.failed(probe, stale) is stale
    door.leave(probe)
    assert door.state == "away"
    await door.enter(here("second"))

    assert (clock(), door.state) == (5.0, "away")


async def test_a_probe_that_is_stopped_as_its_turn_comes_makes_room_for_the_next() -> None:
    door = new_door()
    await close(door)
    first = asyncio.ensure_future(door.enter(here("one")))
    second = asyncio.ensure_future(door.enter(here("two")))
    await asyncio.sleep(1)
    door._watches[0].add_done_callback(lambda _: None)
    asyncio.get_running_loop().call_at(5.0, first.cancel)
    await second

    assert (clock(), first.cancelled()) == (5.0, True)


async def test_who_is_stopped_in_the_queue_is_skipped() -> None:
    door = new_door()
    await close(door)
    first = asyncio.ensure_future(door.enter(here("one")))
    second = asyncio.ensure_future(door.enter(here("two")))
    await asyncio.sleep(1)
    first.cancel()
    await second

    assert (clock(), door.waiting) == (5.0, 0)


async def test_a_ping_that_is_held_is_a_good_probe() -> None:
    door, probe = new_door(), here("probe")
    await close(door)
    await door.enter(probe, holds=True)
    await asyncio.sleep(HELD - 1)
    assert door.state == "away"
    follower = asyncio.ensure_future(door.enter(here("two")))
    await follower

    assert (clock(), door.state) == (5.0 + HELD, "serving")


async def test_a_ping_that_fails_as_a_probe_opens_nothing() -> None:
    door, probe = new_door(), here("probe")
    await close(door)
    await door.enter(probe, holds=True)
    door.failed(probe, AWAY)
    door.leave(probe)
    await asyncio.sleep(HELD + 1)

    assert door.state == "away"


async def test_a_refusal_of_one_mailbox_is_an_answer_of_the_server() -> None:
    door, probe = new_door(), here("probe")
    await close(door)
    await door.enter(probe)

    door.failed(probe, AccessDenied("no", Reason.HTTP_403))

    assert door.state == "serving"


async def test_throttling_of_single_mailboxes_closes_nothing() -> None:
    door = new_door()
    for name in range(MANY):
        visitor = here(name)
        await door.enter(visitor)
        door.failed(visitor, ServerBusy("throttled", 600.0, reached=False))

    assert door.state == "serving"


async def test_a_time_told_to_several_mailboxes_keeps_all_waiting() -> None:
    door = new_door()
    for name in range(DISTINCT):
        visitor = here(name)
        await door.enter(visitor)
        door.failed(visitor, ServerBusy("busy", 600.0, reached=False, shared=True))

    await door.enter(here("late"))

    assert clock() == pytest.approx(630.0)


async def test_a_known_idle_timeout_is_no_outage() -> None:
    door = new_door()
    for name in range(20):
        await asyncio.sleep(5)
        visitor = here(name)
        await door.enter(visitor)
        door.cut(Heartbeat(225, cut_off=225), 300.0)
        if name >= DISTINCT:
            door.failed(visitor, Unreachable("connection lost", 300.0))

    assert door.state == "serving"
    assert door.path.cut_off is not None


async def refuse(door: ServerAdmission, visitor: ClientAdmission) -> Unauthorized:
    """Send with a credential that is refused, as a runner does."""
    await door.enter(visitor)
    error = door.failed(visitor, REFUSED)
    door.leave(visitor)
    visitor.refusals += 1
    assert isinstance(error, Unauthorized)
    return error


async def test_a_refusal_alone_is_its_users_matter() -> None:
    door = new_door()
    door.watched = 100

    assert not (await refuse(door, here("ann"))).shared


async def test_many_refusals_at_once_wait_for_one_confirmation_and_return_at_the_rate() -> None:
    door, tried = new_door(), []
    door.watched = 100
    visitors = [here(name) for name in range(100)]
    shared = [(await refuse(door, visitor)).shared for visitor in visitors]
    assert shared == [False] * 9 + [True] * 91

    async def confirm(visitor: ClientAdmission) -> None:
        await door.enter(visitor)
        tried.append(clock())
        if clock() < 1000:
            door.failed(visitor, REFUSED)
            visitor.refusals += 1
            door.leave(visitor)
            await confirm(visitor)
        else:
            door.answered(visitor)
            door.accepted(visitor)
            door.leave(visitor)

    async with asyncio.TaskGroup() as tasks:
        for visitor in visitors:
            tasks.create_task(confirm(visitor))
        await asyncio.sleep(1)
        assert door.held_back == 100

    assert tried[:3] == [60.0, 960.0, 1860.0]
    assert clock() == pytest.approx(1860 + 100 / RATE, abs=1)
    assert all(after - before >= 0.99 / RATE for before, after in pairwise(tried[3:]))


async def test_a_last_try_is_judged_as_its_users_matter() -> None:
    door = new_door()
    door.watched = 100
    for name in range(20):
        await refuse(door, here(name))
    ann = here("ann", refusals=2)

    error = await refuse(door, ann)

    assert clock() == 60.0
    assert not error.shared


async def test_those_with_more_than_their_last_try_left_confirm_first() -> None:
    door, tried = new_door(), []
    door.watched = 100
    for number in range(20):
        await refuse(door, here(number))

    async def confirm(visitor: ClientAdmission) -> None:
        await door.enter(visitor)
        tried.append(visitor.mailbox)

    async with asyncio.TaskGroup() as tasks:
        for name, refusals in (("last", 2), ("other", 1)):
            tasks.create_task(confirm(here(name, refusals)))
            await asyncio.sleep(1)

    assert tried == ["other", "last"]


async def suspect(door: ServerAdmission) -> list[asyncio.Task[None]]:
    """Have a server suspected, and two refused mailboxes wait to confirm."""
    door.watched = 100
    for number in range(20):
        await refuse(door, here(number))
    waiting = [asyncio.ensure_future(door.enter(here(name, refusals=1))) for name in ("first", "second")]
    await asyncio.sleep(1)
    assert door.held_back == 2
    return waiting


async def test_who_is_stopped_as_the_turn_to_confirm_comes_hands_it_on() -> None:
    door = new_door()
    first, second = await suspect(door)
    asyncio.get_running_loop().call_at(60.0, first.cancel)

    await second

    assert (clock(), first.cancelled()) == (60.0, True)


async def test_who_is_stopped_while_a_refusal_is_confirmed_hands_the_turn_on() -> None:
    door = new_door()
    door.watched = 100
    for number in range(20):
        await refuse(door, here(number))
    first = here("first", refusals=1)
    await door.enter(first)
    assert clock() == 60.0
    second = asyncio.ensure_future(door.enter(here("second", refusals=1)))
    await asyncio.sleep(1)
    assert not second.done()

    door.leave(first)
    await second

    assert clock() == 61.0


async def test_who_is_stopped_before_the_gate_with_the_turn_to_confirm_hands_it_on() -> None:
    door = new_door()
    first, second = await suspect(door)
    await asyncio.sleep(57)
    await close(door, here("away"))  # at 58 s: the gate lets its probe through at 63 s
    await asyncio.sleep(3)
    assert (door.waiting, first.done()) == (1, False)
    first.cancel()

    await second

    assert clock() == 63.0


async def test_a_turn_to_confirm_that_was_used_is_not_handed_on() -> None:
    door = new_door()
    first, second = await suspect(door)
    await first
    visitor = here("first", refusals=1)
    visitor.confirms = True
    door.failed(visitor, REFUSED)
    door.leave(visitor)

    await second

    assert clock() == 960.0


async def test_what_was_accepted_before_the_trouble_began_ends_no_suspicion() -> None:
    door, early = new_door(), here("early")
    door.watched = 10
    await door.enter(early)
    await asyncio.sleep(1)
    for name in range(5):
        await refuse(door, here(name))

    early.mailbox = 3  # refused meanwhile
    door.accepted(early)
    assert door.refusals.suspected

    await door.enter(early)
    door.accepted(early)
    assert not door.refusals.suspected


async def test_says_why_a_candidate_waits_as_long_as_others_find_out() -> None:
    door = new_door()
    assert door.obstacle == ""

    await close(door)
    assert door.obstacle == f"the server is away: {AWAY}"
    await asyncio.sleep(6)
    assert door.obstacle == ""
    probe = here("probe")
    await door.enter(probe)
    assert door.obstacle
    door.answered(probe)
    assert door.obstacle == ""

    door.watched = 10
    for name in range(5):
        await refuse(door, here(name))
    assert door.obstacle == "the server refuses many credentials at once"
    await asyncio.sleep(61)
    assert door.obstacle == ""


def candidate(mailbox: Hashable) -> ClientAdmission:
    return ClientAdmission(mailbox, candidate=True)


async def test_candidates_and_watches_pass_in_turns() -> None:
    door, came = new_door(), []

    async def pass_in(client: ClientAdmission) -> None:
        await door.enter(client)
        came.append(client.candidate)

    async with asyncio.TaskGroup() as tasks:
        for name in range(MANY):
            tasks.create_task(pass_in(ClientAdmission(name)))
        for name in range(20):
            tasks.create_task(pass_in(candidate(name)))

    assert came[:41] == [False, *[True, False] * 20]
    assert clock() == pytest.approx((MANY + 19) / RATE)


async def test_thousands_of_candidates_keep_no_watch_waiting() -> None:
    door = new_door()
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(door.enter(candidate(name))) for name in range(MANY)]
        await asyncio.sleep(1)
        assert door.waiting == MANY - 11
        began = clock()
        await door.enter(ClientAdmission("watch"))
        assert clock() - began <= 2 / RATE
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert door.waiting == 0


async def test_a_watch_probes_before_a_candidate_that_came_earlier() -> None:
    door, probe = new_door(), here("watch")
    await close(door)
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(door.enter(candidate("early")))
        await asyncio.sleep(1)
        await door.enter(probe)
        assert (clock(), probe.probe, first.done()) == (5.0, True, False)
        door.answered(probe)
        await first
        assert clock() == pytest.approx(5.0)


async def test_a_candidate_probes_when_no_watch_waits_and_its_refusal_is_an_answer() -> None:
    door, alone = new_door(), candidate("alone")
    await close(door)
    await door.enter(alone)
    assert (clock(), alone.probe) == (5.0, True)

    assert door.failed(alone, REFUSED) is REFUSED

    assert door.state == "serving"


async def test_a_candidate_that_is_withdrawn_leaves_the_queue_and_its_turn_to_others() -> None:
    door = new_door()
    await close(door)
    early, late = (asyncio.ensure_future(door.enter(candidate(name))) for name in ("early", "late"))
    await asyncio.sleep(1)
    early.cancel()
    await asyncio.wait([early])
    assert door.waiting == 1

    await late

    assert clock() == 5.0


async def test_refused_candidates_do_not_make_a_server_suspected() -> None:
    door = new_door()
    door.watched = 10
    for name in range(MANY):
        client = candidate(name)
        await door.enter(client)
        assert door.failed(client, REFUSED) is REFUSED
        door.leave(client)

    assert (door.refusals.suspected, len(door.refusals)) == (False, 0)


async def test_a_candidate_is_not_tried_while_many_are_refused_and_its_acceptance_ends_nothing() -> None:
    door, early = new_door(), candidate(3)
    door.watched = 10
    await door.enter(early)
    for name in range(5):
        await refuse(door, here(name))
    door.answered(early)
    early.began = clock() + 1
    door.accepted(early)
    assert door.refusals.suspected

    async with asyncio.TaskGroup() as tasks:
        candidates = [tasks.create_task(door.enter(candidate(f"c{number}"))) for number in range(20)]
        confirms = here(2, refusals=1)
        await door.enter(confirms)
        assert (clock(), door.held_back) == (60.0, 20)
        await asyncio.sleep(30)
        assert not any(task.done() for task in candidates)

        door.answered(confirms)
        door.accepted(confirms)
        door.leave(confirms)
        await asyncio.wait(candidates)

    assert door.held_back == 0
    assert clock() == pytest.approx(90 + 19 / RATE, abs=0.1)


async def test_candidates_go_at_the_rate_when_a_confirmation_is_due_and_no_refused_mailbox_waits() -> None:
    door = new_door()
    door.watched = 10
    for name in range(5):
        await refuse(door, here(name))
    async with asyncio.TaskGroup() as tasks:
        candidates = [tasks.create_task(door.enter(candidate(f"c{number}"))) for number in range(20)]
        await asyncio.sleep(59)
        assert door.held_back == 20
        await asyncio.wait(candidates)

    assert clock() == pytest.approx(60 + 19 / RATE, abs=0.1)
    await door.enter(candidate("late"))
    assert clock() == pytest.approx(60 + 20 / RATE, abs=0.1)


async def test_a_client_that_may_ask_elsewhere_does_not_wait_for_a_server_that_is_away() -> None:
    door, lookup = new_door(), ClientAdmission("lookup", waits=False)
    await close(door)

    with pytest.raises(Unreachable, match="the server is away: no connection") as caught:
        await door.enter(lookup)
    assert (clock(), caught.value.reached) == (0.0, False)

    await asyncio.sleep(5)
    await door.enter(lookup)
    assert (clock(), lookup.probe) == (5.0, True)
    with pytest.raises(Unreachable):
        await door.enter(ClientAdmission("other", waits=False))
    door.answered(lookup)
    door.leave(lookup)
    await door.enter(ClientAdmission("other", waits=False))
    assert clock() == 5.0


async def test_a_client_that_may_ask_elsewhere_leaves_the_queue_when_the_server_goes_away() -> None:
    door = new_door()
    first, second, third = (ClientAdmission(name, waits=False) for name in ("first", "second", "third"))
    await door.enter(first)
    queued = [asyncio.ensure_future(door.enter(client)) for client in (second, third)]
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(queued[1].cancel)
    door.failed(first, AWAY)
    await asyncio.wait(queued)

    assert isinstance(queued[0].exception(), Unreachable)
    assert queued[1].cancelled()
    assert (clock(), door.waiting) == (0.0, 0)
