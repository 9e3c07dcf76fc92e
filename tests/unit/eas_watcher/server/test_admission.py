import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from itertools import pairwise
from random import Random

import pytest

from eas_watcher.errors import AccessDenied, ServerBusy, Unauthorized, Unreachable, in_doubt
from eas_watcher.heartbeat import HELD, Heartbeat
from eas_watcher.machine.state import Doubt
from eas_watcher.reasons import Reason
from eas_watcher.server.admission import ClientAdmission, ServerAdmission
from eas_watcher.server.breaker import DISTINCT
from eas_watcher.server.capacity import Hold, Poll
from eas_watcher.server.idle_timeout import Lesson
from eas_watcher.server.mass_refusals import REMEMBERED, SKEW
from eas_watcher.server.starts import CROWD
from tests.unit.eas_watcher.running import Middle
from tests.unit.eas_watcher.watching import NOW

pytestmark = pytest.mark.looptime

AWAY = Unreachable("no connection: Connection refused", reached=False)
LOST = Unreachable("connection lost: the server closed it", 300.0)
REFUSED = Unauthorized("the server refuses the credential (HTTP 401)")
RATE = 10.0
MANY = 200


def clock() -> float:
    return asyncio.get_running_loop().time()


def here(mailbox: Hashable, refusals: int = 0) -> ClientAdmission:
    """Return a client that has passed before, so that it need not start."""
    return ClientAdmission(mailbox, refusals, passed=0)


def new_admission() -> ServerAdmission:
    return ServerAdmission(RATE, 8, Middle(), lambda: NOW)


class Watches:
    """Clients that repeat their request until it is answered, as runners do; `reach` is the request."""

    def __init__(self, admission: ServerAdmission, reach: Callable[[ClientAdmission], Awaitable[None]]) -> None:
        self.admission = admission
        self.reach = reach
        self.sent: list[float] = []
        self.done: list[float] = []

    async def run(self, client: ClientAdmission) -> None:
        while True:
            await self.admission.enter(client)
            self.sent.append(clock())
            try:
                await self.reach(client)
            except (Unreachable, ServerBusy) as error:
                self.admission.failed(client, error)
            else:
                self.admission.answered(client)
                self.done.append(clock())
                return
            finally:
                self.admission.leave(client)


@asynccontextmanager
async def running(watches: Watches, number: int = MANY) -> AsyncIterator[list[asyncio.Task[None]]]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(watches.run(here(name))) for name in range(number)]
        yield tasks
        for task in tasks:
            task.cancel()


async def away(_: ClientAdmission) -> None:
    raise AWAY


async def go_away(admission: ServerAdmission, client: ClientAdmission | None = None) -> None:
    client = client or ClientAdmission("first")
    await admission.enter(client)
    admission.failed(client, AWAY)
    admission.leave(client)


async def test_a_server_that_serves_keeps_no_client_waiting() -> None:
    admission, clients = new_admission(), [ClientAdmission(name) for name in range(MANY)]
    for _ in range(2):
        began = clock()
        for client in clients:
            await admission.enter(client)

    assert clock() == began
    await asyncio.sleep(1 / RATE)
    assert (admission.state, admission.waiting, admission.expected_wait()) == ("serving", 0, None)


async def test_clients_that_start_at_once_pass_at_the_rate() -> None:
    admission, known, came = new_admission(), ClientAdmission("known"), []
    await admission.enter(known)
    await asyncio.sleep(1)
    assert admission.state == "serving"

    async def start(name: int) -> None:
        await admission.enter(ClientAdmission(name))
        came.append(clock())

    async with asyncio.TaskGroup() as tasks:
        for name in range(MANY):
            tasks.create_task(start(name))
        await asyncio.sleep(5)
        assert (admission.state, admission.waiting) == ("starting", MANY - 51)
        await admission.enter(known)
        assert clock() == 6.0  # a client that has started sends on meanwhile

    assert min(after - before for before, after in pairwise(came)) >= 0.99 / RATE
    assert clock() == pytest.approx(1 + MANY / RATE, abs=0.2)
    await asyncio.sleep(1 / RATE)
    assert admission.state == "serving"


async def test_a_mailbox_that_comes_alone_does_not_wait() -> None:
    admission = new_admission()
    for name in range(5):
        await admission.enter(ClientAdmission(name))
        await asyncio.sleep(2 / RATE)
        assert admission.state == "serving"

    assert clock() == pytest.approx(10 / RATE)


async def test_while_the_server_is_away_one_probes_and_the_rest_wait_without_timers() -> None:
    watches = Watches(new_admission(), away)
    async with running(watches):
        await asyncio.sleep(300)
        loop = asyncio.get_running_loop()
        timers = [timer for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        assert len(timers) <= 2
        assert watches.admission.waiting >= MANY - 2
        assert watches.admission.state == "away"
        assert watches.admission.detail == str(AWAY)
        probes = [moment for moment in watches.sent if moment > 0]
        assert probes == [2.0, 6.0, 14.0, 30.0, 62.0, 122.0, 182.0, 242.0]


async def test_thousands_that_wait_have_one_timer_and_return_with_jitter() -> None:
    """A fleet of 50,000, with all that belongs to a mailbox, is in tests/soak."""
    many, rate = 3_000, 500.0
    admission = ServerAdmission(rate, 8, Random(1), lambda: NOW)
    await go_away(admission)
    loop, came = asyncio.get_running_loop(), []

    async def wait(name: int) -> None:
        client = here(name)
        await admission.enter(client)
        came.append(clock())
        if client.probe:
            await asyncio.sleep(1)
            admission.answered(client)
        admission.leave(client)

    async with asyncio.TaskGroup() as tasks:
        for name in range(many):
            tasks.create_task(wait(name))
        await asyncio.sleep(1)
        assert admission.waiting == many
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

    watches = Watches(new_admission(), reach)
    async with running(watches) as tasks:
        await asyncio.sleep(36)
        back.set()
        await asyncio.wait(tasks)
        assert watches.admission.state == "serving"

    assert watches.done[0] == pytest.approx(62.01)
    assert min(after - before for before, after in pairwise(watches.done[1:])) >= 0.99 / RATE
    assert clock() == pytest.approx(62 + MANY / RATE, abs=0.5)


async def test_a_client_that_has_returned_sends_on_while_the_others_return() -> None:
    admission, ann, early = new_admission(), here("ann"), here("early")
    await admission.enter(early)
    await go_away(admission)
    await admission.enter(ann)
    async with asyncio.TaskGroup() as tasks:
        for name in range(50):
            tasks.create_task(admission.enter(here(name)))
        await asyncio.sleep(0)
        admission.answered(ann)
        assert admission.state == "returning"
        await admission.enter(ann)
        assert clock() == 2.0
        assert admission.expected_wait() == pytest.approx(49 / RATE)
        await admission.enter(early)  # it has passed before the outage, not since
        assert clock() == pytest.approx(2 + 50 / RATE)


async def test_requests_that_were_cut_before_the_server_returned_send_it_away_no_more() -> None:
    admission, probe, waits = new_admission(), here("probe"), here("waits")
    early = [here(number) for number in range(2 * DISTINCT)]
    for client in early:
        await admission.enter(client)
    for client in early[:DISTINCT]:
        admission.failed(client, LOST)
        admission.leave(client)
    await admission.enter(probe)
    queued = asyncio.ensure_future(admission.enter(waits))
    other = asyncio.ensure_future(admission.enter(here("other")))
    await asyncio.sleep(0)
    admission.answered(probe)
    assert admission.state == "returning"

    for client in early[DISTINCT:]:
        assert admission.failed(client, LOST) is LOST
        admission.leave(client)
    assert admission.state == "returning"

    await queued
    admission.failed(waits, AWAY)  # sent since, so the server is away again
    assert admission.detail == str(AWAY)
    other.cancel()


async def test_a_probe_that_is_stopped_hands_its_turn_on() -> None:
    admission = new_admission()
    await go_away(admission)
    probe = here("probe")
    await admission.enter(probe)
    assert probe.probe
    second = asyncio.ensure_future(admission.enter(here("second")))
    await asyncio.sleep(1)
    assert not second.done()

    admission.leave(probe)
    await second

    assert clock() == 3.0


async def test_a_probe_over_a_stale_connection_shows_nothing_and_hands_its_turn_on() -> None:
    admission = new_admission()
    await go_away(admission)
    probe = here("probe")
    await admission.enter(probe)
    stale = Unreachable("connection lost", stale=True)

    assert admission.failed(probe, stale) is stale
    admission.leave(probe)
    assert admission.state == "away"
    await admission.enter(here("second"))

    assert (clock(), admission.state) == (2.0, "away")


async def test_a_probe_that_is_stopped_as_its_turn_comes_hands_it_on() -> None:
    admission = new_admission()
    await go_away(admission)
    first = asyncio.ensure_future(admission.enter(here("one")))
    second = asyncio.ensure_future(admission.enter(here("two")))
    await asyncio.sleep(1)
    admission._queues._watches[0].add_done_callback(lambda _: None)
    asyncio.get_running_loop().call_at(2.0, first.cancel)
    await second

    assert (clock(), first.cancelled()) == (2.0, True)


async def test_a_client_that_is_stopped_in_the_queue_is_skipped() -> None:
    admission = new_admission()
    await go_away(admission)
    first = asyncio.ensure_future(admission.enter(here("one")))
    second = asyncio.ensure_future(admission.enter(here("two")))
    await asyncio.sleep(1)
    first.cancel()
    await second

    assert (clock(), admission.waiting) == (2.0, 0)


async def test_a_ping_that_is_held_is_a_good_probe() -> None:
    admission, probe = new_admission(), here("probe")
    await go_away(admission)
    await admission.enter(probe, holds=True)
    await asyncio.sleep(HELD - 1)
    assert admission.state == "away"
    follower = asyncio.ensure_future(admission.enter(here("two")))
    await follower

    assert (clock(), admission.state) == (2.0 + HELD, "serving")


async def test_a_ping_that_fails_as_a_probe_leaves_the_server_away() -> None:
    admission, probe = new_admission(), here("probe")
    await go_away(admission)
    await admission.enter(probe, holds=True)
    admission.failed(probe, AWAY)
    admission.leave(probe)
    await asyncio.sleep(HELD + 1)

    assert admission.state == "away"


async def test_a_refusal_of_one_mailbox_is_an_answer_of_the_server() -> None:
    admission, probe = new_admission(), here("probe")
    await go_away(admission)
    await admission.enter(probe)

    admission.failed(probe, AccessDenied("no", Reason.HTTP_403))

    assert admission.state == "serving"


async def test_throttling_of_single_mailboxes_makes_no_server_away() -> None:
    admission = new_admission()
    for name in range(MANY):
        client = here(name)
        await admission.enter(client)
        admission.failed(client, ServerBusy("throttled", 600.0, reached=False))

    assert admission.state == "serving"


async def test_a_wait_that_the_server_named_to_several_mailboxes_holds_for_all() -> None:
    admission = new_admission()
    for name in range(DISTINCT):
        client = here(name)
        await admission.enter(client)
        admission.failed(client, ServerBusy("busy", 600.0, reached=False, shared=True))

    await admission.enter(here("late"))

    assert clock() == pytest.approx(630.0)


async def test_a_known_idle_timeout_is_no_outage() -> None:
    admission = new_admission()
    for name in range(20):
        await asyncio.sleep(5)
        client = here(name)
        await admission.enter(client)
        admission.cut(Heartbeat(225, cut_off=225), 300.0)
        if name >= DISTINCT:
            admission.failed(client, Unreachable("connection lost", 300.0))

    assert admission.state == "serving"
    assert admission.path.cut_off is not None


async def refuse(admission: ServerAdmission, client: ClientAdmission) -> Unauthorized:
    """Send a request whose credential the server refuses, as a runner does."""
    await admission.enter(client)
    error = admission.failed(client, REFUSED)
    admission.leave(client)
    client.refusals += 1
    assert isinstance(error, Unauthorized)
    return error


async def test_a_single_refusal_concerns_its_user() -> None:
    admission = new_admission()
    admission.capacity.watched = 100

    assert not (await refuse(admission, here("ann"))).shared


async def test_many_refusals_at_once_wait_for_one_confirmation_and_return_at_the_rate() -> None:
    admission, tried = new_admission(), []
    admission.capacity.watched = 100
    clients = [here(name) for name in range(100)]
    shared = [(await refuse(admission, client)).shared for client in clients]
    assert shared == [False] * 9 + [True] * 91

    async def confirm(client: ClientAdmission) -> None:
        await admission.enter(client)
        tried.append(clock())
        if clock() < 1000:
            admission.failed(client, REFUSED)
            client.refusals += 1
            admission.leave(client)
            await confirm(client)
        else:
            admission.answered(client)
            admission.accepted(client)
            admission.leave(client)

    async with asyncio.TaskGroup() as tasks:
        for client in clients:
            tasks.create_task(confirm(client))
        await asyncio.sleep(1)
        assert admission.held_back == 100

    assert tried[:3] == [60.0, 960.0, 1860.0]
    assert clock() == pytest.approx(1860 + 100 / RATE, abs=1)
    assert all(after - before >= 0.99 / RATE for before, after in pairwise(tried[3:]))


async def test_a_last_try_is_one_of_many_if_the_mailbox_was_refused_with_many() -> None:
    admission = new_admission()
    admission.capacity.watched = 100
    for name in range(20):
        await refuse(admission, here(name))
    ann = here("ann", refusals=2)

    error = await refuse(admission, ann)

    assert clock() == 60.0
    assert (error.shared, error.others_accepted) == (True, False)


async def test_a_refusal_says_whether_another_mailbox_was_accepted_since_the_one_before() -> None:
    admission, ann, ben = new_admission(), here("ann"), here("ben")
    await refuse(admission, ann)
    assert not (await refuse(admission, ann)).others_accepted

    await asyncio.sleep(REMEMBERED + 1)
    await admission.enter(ben)
    admission.accepted(ben)
    assert (await refuse(admission, ann)).others_accepted
    assert not (await refuse(admission, ann)).others_accepted

    await asyncio.sleep(1)
    await admission.enter(ben, holds=True)
    await asyncio.sleep(HELD + 1)
    admission.leave(ben)
    assert (await refuse(admission, ann)).others_accepted

    admission.accepted_elsewhere(clock() + SKEW + 1)
    assert (await refuse(admission, ann)).others_accepted


async def test_a_mailbox_in_doubt_waits_for_no_confirmation_of_others() -> None:
    admission = new_admission()
    admission.capacity.watched = 10
    for name in range(5):
        await refuse(admission, here(name))
    assert admission.refusals.suspected

    await admission.enter(here("ann", refusals=3))

    assert clock() == 0.0


async def test_a_token_endpoint_that_is_away_makes_no_mail_server_away_nor_back() -> None:
    admission, probe = new_admission(), here("probe")
    elsewhere = Unreachable("the token endpoint: no connection", reached=False)
    elsewhere.elsewhere = True
    for name in range(MANY):
        client = here(name)
        await admission.enter(client)
        assert admission.failed(client, elsewhere) is elsewhere
        admission.leave(client)
    assert admission.state == "serving"

    await go_away(admission)
    await admission.enter(probe)
    admission.failed(probe, elsewhere)
    admission.leave(probe)

    assert (probe.probe, admission.state) == (False, "away")
    await admission.enter(here("next"))
    assert clock() == 2.0


async def test_a_server_that_comes_back_has_one_of_its_doubtful_mailboxes_asked() -> None:
    admission, probe = new_admission(), here("probe")
    doubt = Doubt(rest=10.0)

    async def nothing() -> None:
        return None

    waiting = [asyncio.ensure_future(admission.doubtful.wait(name, 3600.0, doubt, nothing)) for name in range(3)]
    await asyncio.sleep(20)
    await go_away(admission)
    await admission.enter(probe)
    admission.answered(probe)
    await asyncio.sleep(0)

    assert [task.done() for task in waiting] == [True, False, False]
    assert len(admission.doubtful) == 2
    for task in waiting:
        task.cancel()


async def test_those_with_more_than_their_last_try_left_confirm_first() -> None:
    admission, tried = new_admission(), []
    admission.capacity.watched = 100
    for number in range(20):
        await refuse(admission, here(number))

    async def confirm(client: ClientAdmission) -> None:
        await admission.enter(client)
        tried.append(client.mailbox)

    async with asyncio.TaskGroup() as tasks:
        for name, refusals in (("last", 2), ("other", 1)):
            tasks.create_task(confirm(here(name, refusals)))
            await asyncio.sleep(1)

    assert tried == ["other", "last"]


async def suspect(admission: ServerAdmission) -> list[asyncio.Task[None]]:
    """Let the server be suspected, and two refused mailboxes wait to confirm."""
    admission.capacity.watched = 100
    for number in range(20):
        await refuse(admission, here(number))
    waiting = [asyncio.ensure_future(admission.enter(here(name, refusals=1))) for name in ("first", "second")]
    await asyncio.sleep(1)
    assert admission.held_back == 2
    return waiting


async def test_a_client_that_is_stopped_as_its_turn_to_confirm_comes_hands_it_on() -> None:
    admission = new_admission()
    first, second = await suspect(admission)
    asyncio.get_running_loop().call_at(60.0, first.cancel)

    await second

    assert (clock(), first.cancelled()) == (60.0, True)


async def test_a_client_that_is_stopped_while_it_confirms_hands_its_turn_on() -> None:
    admission = new_admission()
    admission.capacity.watched = 100
    for number in range(20):
        await refuse(admission, here(number))
    first = here("first", refusals=1)
    await admission.enter(first)
    assert clock() == 60.0
    second = asyncio.ensure_future(admission.enter(here("second", refusals=1)))
    await asyncio.sleep(1)
    assert not second.done()

    admission.leave(first)
    await second

    assert clock() == 61.0


async def test_a_client_that_is_stopped_while_the_server_is_away_hands_its_turn_to_confirm_on() -> None:
    admission = new_admission()
    first, second = await suspect(admission)
    await asyncio.sleep(58.5)
    await go_away(admission, here("away"))  # at 59.5 s: the probe may go at 61.5 s
    await asyncio.sleep(1.5)
    assert (admission.waiting, first.done()) == (1, False)
    first.cancel()

    await second

    assert clock() == 61.5


async def test_a_turn_to_confirm_that_was_used_is_not_handed_on() -> None:
    admission = new_admission()
    first, second = await suspect(admission)
    await first
    client = here("first", refusals=1)
    client.confirms = True
    admission.failed(client, REFUSED)
    admission.leave(client)

    await second

    assert clock() == 960.0


async def test_an_acceptance_from_before_the_suspicion_does_not_end_it() -> None:
    admission, early = new_admission(), here("early")
    admission.capacity.watched = 10
    await admission.enter(early)
    await asyncio.sleep(1)
    for name in range(5):
        await refuse(admission, here(name))

    early.mailbox = 3  # refused meanwhile
    admission.accepted(early)
    assert admission.refusals.suspected

    await admission.enter(early)
    admission.accepted(early)
    assert not admission.refusals.suspected


async def test_says_why_a_candidate_waits_as_long_as_others_find_out() -> None:
    admission = new_admission()
    assert admission.obstacle == ""

    await go_away(admission)
    assert admission.obstacle == f"the server is away: {AWAY}"
    await asyncio.sleep(6)
    assert admission.obstacle == ""
    probe = here("probe")
    await admission.enter(probe)
    assert admission.obstacle
    admission.answered(probe)
    assert admission.obstacle == ""

    admission.capacity.watched = 10
    for name in range(5):
        await refuse(admission, here(name))
    assert admission.obstacle == "the server refuses many credentials at once"
    await asyncio.sleep(61)
    assert admission.obstacle == ""


def candidate(mailbox: Hashable) -> ClientAdmission:
    return ClientAdmission(mailbox, candidate=True)


async def test_candidates_and_watches_pass_in_turns() -> None:
    admission, came = new_admission(), []

    async def pass_in(client: ClientAdmission) -> None:
        await admission.enter(client)
        came.append(client.candidate)

    async with asyncio.TaskGroup() as tasks:
        for name in range(MANY):
            tasks.create_task(pass_in(ClientAdmission(name)))
        for name in range(20):
            tasks.create_task(pass_in(candidate(name)))

    assert came[:41] == [False, *[True, False] * 20]
    assert clock() == pytest.approx((MANY + 19) / RATE)


async def test_thousands_of_candidates_keep_no_watch_waiting() -> None:
    admission = new_admission()
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(admission.enter(candidate(name))) for name in range(MANY)]
        await asyncio.sleep(1)
        assert admission.waiting == MANY - 11
        began = clock()
        await admission.enter(ClientAdmission("watch"))
        assert clock() - began <= 2 / RATE
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert admission.waiting == 0


async def test_a_watch_probes_before_a_candidate_that_came_earlier() -> None:
    admission, probe = new_admission(), here("watch")
    await go_away(admission)
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(admission.enter(candidate("early")))
        await asyncio.sleep(1)
        await admission.enter(probe)
        assert (clock(), probe.probe, first.done()) == (2.0, True, False)
        admission.answered(probe)
        await first
        assert clock() == pytest.approx(2.0)


async def test_a_candidate_probes_when_no_watch_waits_and_its_refusal_is_an_answer() -> None:
    admission, alone = new_admission(), candidate("alone")
    await go_away(admission)
    await admission.enter(alone)
    assert (clock(), alone.probe) == (2.0, True)

    assert admission.failed(alone, REFUSED) is REFUSED

    assert admission.state == "serving"


async def test_a_candidate_that_is_withdrawn_leaves_the_queue_and_its_turn_to_others() -> None:
    admission = new_admission()
    await go_away(admission)
    early, late = (asyncio.ensure_future(admission.enter(candidate(name))) for name in ("early", "late"))
    await asyncio.sleep(1)
    early.cancel()
    await asyncio.wait([early])
    assert admission.waiting == 1

    await late

    assert clock() == 2.0


async def test_refused_candidates_do_not_make_a_server_suspected() -> None:
    admission = new_admission()
    admission.capacity.watched = 10
    for name in range(MANY):
        client = candidate(name)
        await admission.enter(client)
        assert admission.failed(client, REFUSED) is REFUSED
        admission.leave(client)

    assert (admission.refusals.suspected, len(admission.refusals)) == (False, 0)


async def test_a_candidate_is_not_tried_while_many_are_refused_and_its_acceptance_ends_nothing() -> None:
    admission, early = new_admission(), candidate(3)
    admission.capacity.watched = 10
    await admission.enter(early)
    for name in range(5):
        await refuse(admission, here(name))
    admission.answered(early)
    early.began = clock() + 1
    admission.accepted(early)
    assert admission.refusals.suspected

    async with asyncio.TaskGroup() as tasks:
        candidates = [tasks.create_task(admission.enter(candidate(f"c{number}"))) for number in range(20)]
        confirms = here(2, refusals=1)
        await admission.enter(confirms)
        assert (clock(), admission.held_back) == (60.0, 20)
        await asyncio.sleep(30)
        assert not any(task.done() for task in candidates)

        admission.answered(confirms)
        admission.accepted(confirms)
        admission.leave(confirms)
        await asyncio.wait(candidates)

    assert admission.held_back == 0
    assert clock() == pytest.approx(90 + 19 / RATE, abs=0.1)


async def test_candidates_go_at_the_rate_when_a_confirmation_is_due_and_no_refused_mailbox_waits() -> None:
    admission = new_admission()
    admission.capacity.watched = 10
    for name in range(5):
        await refuse(admission, here(name))
    async with asyncio.TaskGroup() as tasks:
        candidates = [tasks.create_task(admission.enter(candidate(f"c{number}"))) for number in range(20)]
        await asyncio.sleep(59)
        assert admission.held_back == 20
        await asyncio.wait(candidates)

    assert clock() == pytest.approx(60 + 19 / RATE, abs=0.1)
    await admission.enter(candidate("late"))
    assert clock() == pytest.approx(60 + 20 / RATE, abs=0.1)


async def test_a_client_that_may_ask_elsewhere_does_not_wait_for_a_server_that_is_away() -> None:
    admission, lookup = new_admission(), ClientAdmission("lookup", waits=False)
    await go_away(admission)

    with pytest.raises(Unreachable, match="the server is away: no connection") as caught:
        await admission.enter(lookup)
    assert (clock(), caught.value.reached) == (0.0, False)

    await asyncio.sleep(2)
    await admission.enter(lookup)
    assert (clock(), lookup.probe) == (2.0, True)
    with pytest.raises(Unreachable):
        await admission.enter(ClientAdmission("other", waits=False))
    admission.answered(lookup)
    admission.leave(lookup)
    await admission.enter(ClientAdmission("other", waits=False))
    assert clock() == 2.0


async def test_a_client_that_may_ask_elsewhere_leaves_the_queue_when_the_server_goes_away() -> None:
    admission = new_admission()
    first, second, third = (ClientAdmission(name, waits=False) for name in ("first", "second", "third"))
    await admission.enter(first)
    queued = [asyncio.ensure_future(admission.enter(client)) for client in (second, third)]
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(queued[1].cancel)
    admission.failed(first, AWAY)
    await asyncio.wait(queued)

    assert isinstance(queued[0].exception(), Unreachable)
    assert queued[1].cancelled()
    assert (clock(), admission.waiting) == (0.0, 0)


async def test_requests_that_find_no_worker_are_no_sign_of_an_outage() -> None:
    admission, holder = new_admission(), here("holder")
    for name in ("holder", *"abcd"):
        admission.watch_begins(name, None)
    admission.sends(holder, ping=True)
    early = here("early")
    admission.sends(early, ping=False)
    admission.answered(early)
    await asyncio.sleep(1.0)
    clients = [here(name) for name in "abcd"]
    for client in clients:
        await admission.enter(client)
        admission.sends(client, ping=False)
    await asyncio.sleep(60.0)

    for client in clients:
        error = admission.failed(client, ServerBusy("the server cannot serve now (HTTP 504)", shared=True))
        assert isinstance(error, ServerBusy)
        assert error.full
        admission.leave(client)

    assert admission.state == "serving"
    assert admission.describe("mail.example.com").startswith("mail.example.com holds about 1 Pings at once")
    assert admission.lesson == Lesson(None, capacity=1)


async def test_checks_of_credentials_for_one_mailbox_are_one_mailbox_that_finds_no_worker() -> None:
    admission, holder = new_admission(), here("holder")
    for name in ("holder", "other"):
        admission.watch_begins(name, None)
    admission.sends(holder, ping=True)
    early = here("early")
    admission.sends(early, ping=False)
    admission.answered(early)
    for client in (here("ill"), candidate("ill"), candidate("ill")):
        await asyncio.sleep(1.0)
        await admission.enter(client)
        admission.sends(client, ping=False)
        admission.failed(client, ServerBusy("the server cannot serve now (HTTP 503)", reached=False, shared=True))
        admission.leave(client)

    assert admission.capacity.limit is None, "the store of one mailbox may be down"


@pytest.mark.parametrize("reached", [False, True])
async def test_a_request_that_found_no_worker_is_in_doubt_only_if_a_gateway_answered_it(reached: bool) -> None:
    admission, holder, client = new_admission(), here("holder"), here("client")
    for name in ("holder", "client"):
        admission.watch_begins(name, None)
    admission.sends(holder, ping=True)
    early = here("early")
    admission.sends(early, ping=False)
    admission.answered(early)
    await asyncio.sleep(1.0)
    await admission.enter(client)
    admission.sends(client, ping=False)
    await asyncio.sleep(60.0)

    error = admission.failed(client, ServerBusy("the server cannot serve now", reached=reached, shared=True))

    assert isinstance(error, ServerBusy)
    assert error.full
    assert in_doubt(error) is reached


async def test_a_server_that_asks_to_be_left_alone_is_left_alone_although_it_holds_pings() -> None:
    admission, holder = new_admission(), here("holder")
    admission.sends(holder, ping=True)
    clients = [here(name) for name in "abc"]
    for client in clients:
        await admission.enter(client)
        admission.sends(client, ping=False)
    await asyncio.sleep(1.0)

    for client in clients:
        admission.failed(client, ServerBusy("HTTP 503", 30.0, reached=False, shared=True))
        admission.leave(client)

    assert admission.state == "away"
    assert admission.capacity.limit is None


async def test_one_that_polls_is_woken_when_it_is_its_turn() -> None:
    admission, first, second = new_admission(), here("first"), here("second")
    admission.capacity.limit = 1
    for client in (first, second):
        admission.watch_begins(client.mailbox, None)
    assert isinstance(admission.ask(first), Hold)
    admission.sends(first, ping=True)
    assert isinstance(admission.ask(second), Poll)

    turns: list[str] = []
    admission.polls(second, lambda: turns.append("second"))
    assert turns == []
    admission.answered(first)
    assert turns == ["second"]
    admission.answered(first)
    assert turns == ["second"]
    assert isinstance(admission.ask(second), Hold)


async def test_one_that_polls_no_more_is_not_woken() -> None:
    admission, first, second, third = new_admission(), here("first"), here("second"), here("third")
    admission.capacity.limit = 1
    for client in (first, second, third):
        admission.watch_begins(client.mailbox, None)
        admission.ask(client)
    admission.sends(first, ping=True)
    turns: list[str] = []
    admission.polls(second, lambda: turns.append("second"))
    admission.polls(third, lambda: turns.append("third"))

    admission.polls_no_more(second)
    admission.watch_ends(third)
    admission.answered(first)

    assert turns == []


async def test_mailboxes_whose_connection_was_lost_return_one_after_the_other() -> None:
    admission = new_admission()
    clients = [here(number) for number in range(20)]
    for client in clients:
        await admission.enter(client)
        admission.sends(client, ping=True)
    for client in clients:
        admission.failed(client, Unreachable("connection lost", 60.0, connection=1))
        admission.leave(client)
    assert admission.state == "serving"
    began = clock()

    async def returns(client: ClientAdmission) -> float:
        await admission.enter(client)
        admission.answered(client)
        admission.leave(client)
        return clock() - began

    moments = sorted(await asyncio.gather(*map(returns, clients)))
    assert moments[-1] == pytest.approx(19 / RATE)
    assert len(set(moments)) == len(clients)


async def test_one_lost_connection_of_many_mailboxes_is_no_idle_timeout_and_no_sign_of_full_workers() -> None:
    admission = new_admission()
    for number in range(50):
        client = here(number)
        await admission.enter(client)
        admission.sends(client, ping=True)
        lost = Unreachable("connection lost", 200.0, connection=1)
        assert admission.failed(client, lost) is lost
        admission.leave(client)

    assert admission.state == "serving"
    assert admission.describe("mail") == ""


async def test_no_watch_starts_while_many_wait_for_a_short_request() -> None:
    admission = new_admission()
    sending = [asyncio.ensure_future(admission.short.acquire()) for _ in range(8 + CROWD)]
    await asyncio.sleep(0)
    begun: list[int] = []

    start = admission.starts.begin(lambda: begun.append(1))
    await asyncio.sleep(10)
    assert (begun, start is None, admission.waiting_mailboxes, admission.waiting) == ([], False, 1, 1)
    admission.short.release()
    await asyncio.sleep(1)

    assert (begun, admission.waiting) == ([1], 0)
    for task in sending:
        task.cancel()
    await asyncio.wait(sending)


async def test_another_rate_holds_for_those_that_wait_already() -> None:
    admission = new_admission()
    passed: list[float] = []

    async def pass_in(number: int) -> None:
        await admission.enter(ClientAdmission(number))
        passed.append(clock())

    async with asyncio.TaskGroup() as tasks:
        for number in range(MANY):
            tasks.create_task(pass_in(number))
        await asyncio.sleep(1.0)
        before, at = len(passed), clock()
        admission.allow(100 * RATE)

    assert before < 3 * RATE
    assert passed[-1] - at < (MANY - before) / (50 * RATE)
