"""One mailbox's knowledge of its server serves all: outages, refusals and idle timeouts, over real sockets."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.machine.counters import HOUR
from eas_watcher.machine.memory import Change, Condition, WatchState
from eas_watcher.machine.state import LOCKOUT_WINDOW, Policy
from eas_watcher.names import CollectionClass, DeviceId, MailboxId
from eas_watcher.reasons import Reason
from eas_watcher.runtime.account import Account
from eas_watcher.runtime.context import WatchContext
from eas_watcher.runtime.fleet import Fleet
from eas_watcher.server.admission import ServerAdmission
from eas_watcher.server.admissions import Admissions
from eas_watcher.transport.holding import HoldsInTask
from eas_watcher.transport.http import HttpTransport, open_transport
from eas_watcher.transport.http1 import STALE
from relay.process.clock import now
from relay.sandbox.eas.failures import AnswerHttp, Cut, Failure, FailurePlan
from relay.sandbox.eas.families import FAMILIES
from relay.sandbox.eas.personality import SOGO
from relay.sandbox.eas.server import open_eas_simulator
from relay.sandbox.eas.simulator import EasSimulator
from tests.fakes.eas import MemoryJournals
from tests.fakes.tls import Authority
from tests.integration.eas_world import ANN, PASSWORD, hurried, hurry, world
from tests.waiting import until

ALWAYS: Final = 10**9
EMAIL: Final = frozenset({CollectionClass.EMAIL})
PATIENCE: Final = 100  # looks at requests under way, 2 ms or more apart
BUNCH = 5  # seconds over which a rate is measured
RATE: Final = 100.0


@dataclass
class Wire(HoldsInTask):
    """A transport to the server, or to a port on which no process listens."""

    transport: HttpTransport
    astray: bool = False
    short: int = 0
    """Requests under way that no server holds."""

    async def send(self, request: HttpRequest) -> HttpReply:
        if "Cmd=Ping" in request.url:
            return await self._send(request)
        self.short += 1
        try:
            return await self._send(request)
        finally:
            self.short -= 1

    async def settled(self) -> None:
        """Wait until these requests are answered, or a server keeps them waiting: time must not run ahead of them."""
        for _ in range(PATIENCE):
            await asyncio.sleep(0.002)
            if not self.short:
                return

    async def _send(self, request: HttpRequest) -> HttpReply:
        if self.astray:
            parts = urlsplit(request.url)
            request = replace(request, url=parts._replace(netloc=f"{parts.hostname}:9").geturl())  # 9: "discard"
        return await self.transport.send(request)


@dataclass
class Town:
    """Many mailboxes of one server."""

    simulator: EasSimulator
    fleet: Fleet
    journal: MemoryJournals
    context: WatchContext
    wire: Wire
    policy: Policy

    @property
    def door(self) -> ServerAdmission:
        return self.context.admissions.admission(self.simulator.url, self.policy.return_rate)

    def start(self, *names: str) -> None:
        for name in names:
            user = f"{name}@example.com"
            self.simulator.add_mailbox(user, PASSWORD)
            self.simulator.deliver(user, subject="Old")
            id_ = MailboxId(name)
            account = Account(id_, self.simulator.url, user, DeviceId(f"D{name}"), BasicCredential(user, PASSWORD))
            self.fleet.start(account, self.wire, self.journal.kept[id_].memory(EMAIL), self.policy)

    def fail(self, failure: Failure, user: str | None = None, command: str | None = None, times: int = ALWAYS) -> None:
        self.simulator.fail(user, FailurePlan(failure, command, times))

    async def held(self, pings: int) -> None:
        await until(lambda: self.simulator.held == pings)

    async def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Move the time forward in steps, and let all tasks run after each."""
        for _ in range(round(seconds / step)):
            hurry(step)
            await self.wire.settled()

    async def hurry_until(self, condition: Callable[[], bool], step: float = 1.0) -> None:
        for _ in range(20_000):
            if condition():
                return
            hurry(step)
            await self.wire.settled()
        raise AssertionError("nothing happened in time")

    def since(self, moment: float) -> list[tuple[float, str]]:
        """Return when each request since a moment came, and whose it was."""
        logs = ((entry.moment, user) for user in self.simulator.users for entry in self.simulator.log(user))
        return sorted(entry for entry in logs if entry[0] >= moment)

    def conditions(self) -> Counter[tuple[WatchState, Reason | None]]:
        """Count the last conditions of all mailboxes."""
        last = [kept.conditions[-1] for kept in self.journal.kept.values()]
        return Counter((condition.state, condition.reason) for condition in last)

    def ever(self) -> list[Condition]:
        return [condition for kept in self.journal.kept.values() for condition in kept.conditions]


@asynccontextmanager
async def town(*names: str, rate: float = RATE, plain: bool = False) -> AsyncIterator[Town]:
    """Open a town whose mailboxes all have a held Ping; `plain`: without TLS, for thousands of them."""
    authority = Authority()
    served = None if plain else authority.server
    async with open_eas_simulator(tls=served) as simulator, open_transport(authority.client) as transport:
        journal = MemoryJournals()
        context = WatchContext(journal, Random(1), Admissions(64, Random(1), now))
        broken: list[MailboxId] = []
        fleet = Fleet(context, broken.append)
        place = Town(simulator, fleet, journal, context, Wire(transport), Policy(return_rate=rate))
        try:
            place.start(*names)
            await place.hurry_until(lambda: simulator.held == len(names), step=0.02)
            hurry(2 * STALE)  # a Ping that is cut as it begins would look like one on a stale connection
            yield place
        finally:
            await fleet.stop_all()
        assert not broken
        assert not simulator.records.overlaps


def time() -> float:
    return asyncio.get_running_loop().time()


def timers_of_watches() -> int:
    """Count the timers of the loop that belong to the watcher, or to a sleep."""
    scheduled: list[Any] = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    names = [timer._callback.__qualname__ for timer in scheduled if not timer.cancelled()]
    return sum(name.startswith(("ServerAdmission.", "Timers.", "Deadlines.", "_set_result")) for name in names)


@pytest.mark.parametrize("many", [300, pytest.param(2000, marks=pytest.mark.slow)])
@hurried
async def test_many_mailboxes_wait_for_one_probe_and_return_at_the_rate(many: int) -> None:
    async with town(*(f"m{number}" for number in range(many)), plain=True) as place:
        place.fail(AnswerHttp(503))
        place.simulator.pings.close()  # every held Ping is cut, as by a restart
        await until(lambda: place.door.waiting >= many - 8, 60)
        began = time()
        await place.pass_time(300)

        during = place.since(began)
        assert 4 <= len(during) <= 14
        assert timers_of_watches() <= 4
        assert place.door.detail
        assert (
            sum(place.conditions()[WatchState.WAITING, reason] for reason in (Reason.UNREACHABLE, Reason.SERVER_BUSY))
            == many
        )

        place.simulator.failures.clear()
        returned = time()
        await place.hurry_until(lambda: place.simulator.held == many, step=0.02)

        came: dict[str, float] = {}
        for moment, user in place.since(returned):
            came.setdefault(user, moment)
        assert len(came) == many
        # On a busy machine requests arrive in bunches, so short intervals do not show the rate.
        bunches = Counter(int(moment) // BUNCH for moment in came.values())
        assert max(bunches.values()) <= RATE * BUNCH * 1.2
        assert place.door.state == "serving"
        assert place.conditions() == {(WatchState.WATCHING, None): many}


@hurried
async def test_a_connection_that_nobody_takes_is_tried_by_one_mailbox_only() -> None:
    async with town("ann", "ben", "cleo", "dora") as place:
        place.context.admissions.requests.clear()
        place.wire.astray = True
        place.simulator.pings.close()
        await place.pass_time(120)

        failures = place.context.admissions.requests
        assert failures["Ping", "Unreachable"] == 4
        assert 4 <= failures.total() - 4 <= 12  # one mailbox after the other, at 5, 15, 35 … seconds
        assert place.door.state == "away"
        assert "no connection" in place.door.detail

        place.wire.astray = False
        await place.hurry_until(lambda: place.simulator.held == 4)


@pytest.mark.slow
@hurried
async def test_a_wait_that_several_mailboxes_were_told_is_kept_by_all() -> None:
    async with town(*(f"m{number}" for number in range(20))) as place:
        place.fail(AnswerHttp(503, {"Retry-After": "600"}), times=3)
        began = time()
        place.simulator.pings.close()
        await place.pass_time(590)
        assert len(place.since(began)) <= 3 + 3

        await place.hurry_until(lambda: place.simulator.held == 20)
        assert time() - began >= 600


@hurried
async def test_a_mailbox_that_is_throttled_or_ill_delays_no_other() -> None:
    async with town("ann", "ben", "cleo") as place:
        place.fail(AnswerHttp(503, {"X-MS-ASThrottle": "CommandFrequency"}), ANN, times=2)
        place.fail(AnswerHttp(503), "ben@example.com", times=2)
        place.simulator.deliver(ANN)
        place.simulator.deliver("ben@example.com")
        await until(lambda: place.simulator.held == 1)

        place.simulator.deliver("cleo@example.com")
        await until(lambda: bool(place.journal.kept[MailboxId("cleo")].changes))

        assert place.door.state == "serving"
        await place.hurry_until(lambda: place.simulator.held == 3)
        assert all(place.journal.kept[MailboxId(name)].changes for name in ("ann", "ben", "cleo"))


@pytest.mark.slow
@hurried
async def test_when_all_are_refused_nobody_is_told_and_no_credential_is_tried_a_fourth_time() -> None:
    names = [f"m{number}" for number in range(60)]
    async with town(*names) as place:
        place.fail(AnswerHttp(401, {"WWW-Authenticate": "Basic"}))
        began = time()
        for name in names:
            place.simulator.deliver(f"{name}@example.com")
        await until(lambda: place.simulator.held == 0)
        await place.pass_time(4000, step=2.0)

        tried = Counter(user for _, user in place.since(began))
        assert max(tried.values()) <= 3
        assert tried.total() <= 60 + 12
        assert place.door.refusals.suspected
        assert all(condition.state is WatchState.WAITING for condition in place.ever() if condition.reason)
        assert place.conditions()[WatchState.WAITING, Reason.HTTP_401_MANY] >= 50

        place.simulator.failures.clear()
        await place.hurry_until(lambda: place.simulator.held == 60)

        assert not place.door.refusals.suspected
        assert {kept.refusals for kept in place.journal.kept.values()} == {0}
        assert all(kept.changes == [Change(CollectionClass.EMAIL, 1)] for kept in place.journal.kept.values())


def most_in_a_window(tries: list[tuple[float, str]]) -> int:
    """Return how many tries of one mailbox fell into one lock-out window of the directory at most."""
    by_user: dict[str, list[float]] = {}
    for moment, user in tries:
        by_user.setdefault(user, []).append(moment)
    return max(
        sum(first <= moment < first + LOCKOUT_WINDOW for moment in moments)
        for moments in by_user.values()
        for first in moments
    )


@pytest.mark.parametrize("names", [("ann",), ("ann", "ben"), ("ann", "ben", "cleo")])
@hurried
async def test_few_mailboxes_that_a_server_refuses_while_its_store_is_down_come_back_by_themselves(
    names: tuple[str, ...],
) -> None:
    async with town(*names) as place:
        place.fail(AnswerHttp(401, {"WWW-Authenticate": "Basic"}))
        began = time()
        for name in names:
            place.simulator.deliver(f"{name}@example.com")
        await until(lambda: place.simulator.held == 0)
        await place.pass_time(19 * 60, step=2.0)
        refused = place.since(began)
        assert place.conditions() == {(WatchState.WAITING, Reason.HTTP_401_DOUBTFUL): len(names)}

        place.simulator.failures.clear()
        await place.hurry_until(lambda: place.simulator.held == len(names), step=2.0)

        assert most_in_a_window(refused) == 3
        assert time() - began <= 16 * 60 + 1.1 * HOUR + 120
        kept = [place.journal.kept[MailboxId(name)] for name in names]
        assert all(each.changes == [Change(CollectionClass.EMAIL, 1)] for each in kept)
        attention = [[commit.in_doubt for commit in each.commits if commit.attention] for each in kept]
        assert attention == [[True]] * len(names)
        assert place.conditions() == {(WatchState.WATCHING, None): len(names)}


@hurried
async def test_of_many_mailboxes_the_one_with_a_changed_password_ends_and_is_never_asked_again() -> None:
    names = [f"m{number}" for number in range(20)]
    async with town(*names) as place:
        user = "m7@example.com"
        place.simulator.add_mailbox(user, "changed")
        place.simulator.deliver(user)
        gone = place.journal.kept[MailboxId("m7")]
        await place.hurry_until(lambda: len(place.fleet) == 19, step=2.0)

        assert gone.conditions[-1].state is WatchState.CREDENTIAL_REFUSED
        assert [commit.in_doubt for commit in gone.commits if commit.attention] == [False]
        assert place.simulator.records.refusals[user] == 3
        assert not place.door.doubtful

        place.fail(AnswerHttp(401, {"WWW-Authenticate": "Basic"}))  # an outage of all the others, later
        place.simulator.pings.close()
        await place.pass_time(20 * 60, step=2.0)
        place.simulator.failures.clear()
        await place.hurry_until(lambda: place.simulator.held == 19, step=2.0)
        assert place.simulator.records.refusals[user] == 3


@pytest.mark.slow
@hurried
async def test_a_password_that_changed_before_an_outage_ends_its_watch_after_it() -> None:
    async with town("ann", "ben") as place:
        place.fail(AnswerHttp(401, {"WWW-Authenticate": "Basic"}))
        began = time()
        place.simulator.add_mailbox(ANN, "changed")
        place.simulator.pings.close()
        await place.pass_time(20 * 60, step=2.0)
        assert place.conditions() == {(WatchState.WAITING, Reason.HTTP_401_DOUBTFUL): 2}

        place.simulator.failures.clear()
        await place.hurry_until(lambda: len(place.fleet) == 1, step=2.0)

        ann = place.journal.kept[MailboxId("ann")]
        assert ann.conditions[-1].state is WatchState.CREDENTIAL_REFUSED
        assert [commit.in_doubt for commit in ann.commits if commit.attention] == [True, False]
        await place.held(1)
        assert most_in_a_window([each for each in place.since(began) if each[1] == ANN]) == 3


@pytest.mark.slow
@hurried
async def test_an_idle_timeout_on_the_path_is_learnt_and_said_in_words() -> None:
    async with town() as place:
        names = ["ann", "ben", "cleo"]
        for name in names:
            place.start(name)
        held = place.context.stats.held
        await place.hurry_until(lambda: len(held) == 3 and min(held.values()) >= 600, step=2.0)
        await until(lambda: place.simulator.held == 3)
        place.fail(Cut(seconds=300.0), command="Ping", times=3)
        pings = place.simulator.records.requests["Ping"]
        for number, name in enumerate(names, start=pings + 1):
            place.simulator.deliver(f"{name}@example.com")
            await until(lambda expected=number: place.simulator.records.requests["Ping"] == expected)  # type: ignore[misc]
            hurry(20)
        await place.hurry_until(lambda: place.simulator.held == 3, step=0.2)

        said = place.journal.kept[MailboxId("cleo")].conditions
        assert any(condition.detail.startswith("Pings to 127.0.0.1 are cut after 300") for condition in said)
        assert "an idle timeout of 300 s lies on the path" in place.door.path.describe("main")

        place.start("dora")
        await place.held(4)
        await place.hurry_until(lambda: held.get(MailboxId("dora"), 0.0) > 130, step=2.0)
        assert held[MailboxId("dora")] == pytest.approx(225, abs=2)


@hurried
async def test_a_server_that_is_polled_holds_no_ping_and_its_news_come_all_the_same() -> None:
    async with world(Policy(poll_interval=120.0), FAMILIES[SOGO.name]) as watched:
        watched.simulator.deliver(ANN, subject="Old")
        watched.start()
        await until(lambda: bool(watched.ann.conditions))
        for _ in range(3):
            watched.simulator.deliver(ANN)
            before = len(watched.ann.changes)
            await watched.until_idle()
            hurry(133)
            await until(lambda expected=before: len(watched.ann.changes) > expected)  # type: ignore[misc]

        assert watched.ann.changes == [Change(CollectionClass.EMAIL, 1)] * 3
        assert watched.ann.conditions == [Condition(WatchState.WATCHING)]
        assert watched.sent("Ping") == 0
        folders = watched.sent("FolderSync")
        for _ in range(31):
            await watched.until_idle()
            syncs = watched.sent("Sync")
            hurry(133)
            await until(lambda expected=syncs: watched.sent("Sync") > expected)  # type: ignore[misc]
        assert watched.sent("FolderSync") == folders + 1
