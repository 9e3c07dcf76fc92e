"""The whole watcher against the simulated server, over TLS: what reaches the journal is what arrived."""

import asyncio
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import wraps
from random import Random
from typing import ParamSpec

import pytest
import trustme

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.fleet import Fleet
from eas_watcher.names import CollectionClass, CollectionId, DeviceId, MailboxId, ProtocolVersion
from eas_watcher.progress import Change, Collection, Condition, Memory, Partnership, Progress, WatchState
from eas_watcher.runner import Surroundings
from eas_watcher.states import Policy
from eas_watcher.transport.http import HttpTransport, open_transport
from eas_watcher.wire import Account
from relay.sandbox.clock import now
from relay.sandbox.eas import (
    AnswerHttp,
    AnswerStatus,
    Cut,
    Delay,
    EasRules,
    EasSimulator,
    FailurePlan,
    Garble,
    Stall,
    open_eas_simulator,
)
from relay.sandbox.eas.failures import Failure

P = ParamSpec("P")
ANN = "ann@example.com"
PASSWORD = "secret"
LIMIT = 20.0  # seconds until a test that waits gives up
ONE_MAIL = [Change(CollectionClass.EMAIL, 1)]


class HurriedLoop(asyncio.SelectorEventLoop):
    """An event loop whose time a test can put forward, so that a wait of minutes ends at once over real sockets."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


def hurried(test: Callable[P, Coroutine[None, None, None]]) -> Callable[P, None]:
    """Run a test on a loop whose time can be put forward."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=HurriedLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def hurry(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, HurriedLoop)
    loop.ahead += seconds


async def until(condition: Callable[[], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + LIMIT
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "nothing happened in time"
        await asyncio.sleep(0.01)


@dataclass
class Kept:
    """What is kept of one mailbox."""

    partnership: Partnership = field(default_factory=Partnership)
    collections: dict[CollectionId, Collection] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    refusals: int = 0

    def memory(self, classes: frozenset[CollectionClass]) -> Memory:
        return Memory(self.partnership, tuple(self.collections.values()), classes, refusals=self.refusals)


class MemoryJournal:
    """Keeps what is committed, as a store would."""

    def __init__(self) -> None:
        self.kept: defaultdict[MailboxId, Kept] = defaultdict(Kept)

    async def commit(self, mailbox: MailboxId, progress: Progress) -> None:
        kept = self.kept[mailbox]
        kept.partnership = progress.partnership or kept.partnership
        kept.collections |= {collection.id: collection for collection in progress.collections}
        for dropped in progress.dropped:
            kept.collections.pop(dropped, None)
        kept.changes += progress.changes
        if progress.condition is not None:
            kept.conditions.append(progress.condition)
        if progress.refusals is not None:
            kept.refusals = progress.refusals

    def pinged(self, mailbox: MailboxId, heartbeat: float) -> None:
        pass


@dataclass
class World:
    """A server, a fleet, and what was committed."""

    simulator: EasSimulator
    journal: MemoryJournal
    fleet: Fleet
    transport: HttpTransport
    policy: Policy
    classes: frozenset[CollectionClass]

    def start(self, user: str = ANN, password: str = PASSWORD) -> None:
        name = user.partition("@")[0]
        mailbox = MailboxId(name)
        account = Account(mailbox, self.simulator.url, user, DeviceId(f"D{name}"), BasicCredential(user, password))
        self.fleet.start(account, self.transport, self.journal.kept[mailbox].memory(self.classes), self.policy)

    async def stop(self) -> None:
        await self.fleet.stop(MailboxId("ann"))

    @property
    def ann(self) -> Kept:
        return self.journal.kept[MailboxId("ann")]

    def sent(self, command: str) -> int:
        return self.simulator.records.requests[command]

    async def until_held(self, pings: int = 1) -> None:
        """Wait until a Ping is held, and at least so many were sent."""
        await until(lambda: self.simulator.held == 1 and self.sent("Ping") >= pings)

    async def until_changed(self) -> None:
        """Wait until a change is committed and the next Ping held, putting the time forward over every wait."""

        def changed() -> bool:
            return bool(self.ann.changes) and self.simulator.held == 1

        for _ in range(400):
            if changed():
                return
            await asyncio.sleep(0.01)
            if self.simulator.held == 0:
                hurry(1.0)
        raise AssertionError("no change was committed")


@asynccontextmanager
async def world(
    policy: Policy | None = None,
    rules: EasRules | None = None,
    classes: frozenset[CollectionClass] = frozenset({CollectionClass.EMAIL}),
    *,
    faults: bool = False,
) -> AsyncIterator[World]:
    """Open a world; unless `faults` are part of the test, the server must have found none with the watcher."""
    authority = trustme.CA()
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(served)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    broken: list[MailboxId] = []
    async with open_eas_simulator(tls=served, rules=rules) as simulator, open_transport(trusting) as transport:
        simulator.add_mailbox(ANN, PASSWORD)
        journal = MemoryJournal()
        fleet = Fleet(Surroundings(journal, Random(1), now, 4), broken.append)
        try:
            yield World(simulator, journal, fleet, transport, policy or Policy(), classes)
        finally:
            await fleet.stop_all()
        assert not broken
        assert not simulator.records.overlaps
        assert faults or not simulator.complaints


@pytest.mark.parametrize("version", list(ProtocolVersion))
@hurried
async def test_a_delivered_mail_is_one_committed_change(version: ProtocolVersion) -> None:
    async with world(Policy(versions=(version,))) as watched:
        watched.start()
        await watched.until_held()
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL
        assert watched.ann.conditions[-1].state is WatchState.WATCHING
        assert watched.ann.partnership.version is version


@hurried
async def test_the_highest_version_that_both_speak_is_taken() -> None:
    rules = EasRules(versions=(ProtocolVersion.V12_1, ProtocolVersion.V14_1))
    async with world(rules=rules) as watched:
        watched.start()
        await watched.until_held()

        assert watched.ann.partnership.version is ProtocolVersion.V14_1


@hurried
async def test_a_backlog_of_several_windows_is_not_news() -> None:
    async with world() as watched:
        for number in range(250):
            watched.simulator.deliver(ANN, subject=f"Old {number}")
        watched.start()
        await watched.until_held()
        assert watched.sent("Sync") >= 4
        watched.simulator.deliver(ANN)
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == [Change(CollectionClass.EMAIL, 2)]


@pytest.mark.parametrize("any_change_wakes", [False, True])
@hurried
async def test_read_flags_and_deletes_are_no_news(any_change_wakes: bool) -> None:
    async with world(rules=EasRules(any_change_wakes=any_change_wakes)) as watched:
        first, second = watched.simulator.deliver(ANN), watched.simulator.deliver(ANN)
        watched.start()
        await watched.until_held()
        watched.simulator.mark_read(ANN, first)
        if any_change_wakes:
            await watched.until_held(pings=2)
        watched.simulator.delete(ANN, second)
        if any_change_wakes:
            await watched.until_held(pings=3)
        else:
            assert watched.sent("Ping") == 1
        assert watched.ann.changes == []
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL


@hurried
async def test_a_mail_that_was_read_elsewhere_already_is_no_news() -> None:
    async with world() as watched:
        watched.start()
        await watched.until_held()
        watched.simulator.deliver(ANN, read=True)
        await watched.until_held(pings=2)

        assert watched.ann.changes == []


@pytest.mark.parametrize(
    "failure",
    [
        Cut(),
        Cut(applied=True),
        Garble(),
        Delay(3.0),
        AnswerHttp(503, {"Retry-After": "1.5"}),
        AnswerHttp(500),
        AnswerHttp(200),
        AnswerHttp(200, {"Content-Type": "text/html"}, "<html>Sign in</html>"),
        AnswerHttp(449),
        AnswerHttp(401, {"WWW-Authenticate": "Basic"}),
        AnswerStatus(5),
        AnswerStatus(16),
        AnswerStatus(111),
        AnswerStatus(142),
    ],
    ids=repr,
)
@hurried
async def test_a_mail_survives_whatever_happens_to_the_sync_that_fetches_it(failure: Failure) -> None:
    async with world() as watched:
        watched.start()
        await watched.until_held()
        watched.simulator.fail(ANN, FailurePlan(failure, "Sync"))
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL


@pytest.mark.parametrize(
    "failure",
    [
        Cut(applied=True),
        Garble(),
        AnswerHttp(200),
        AnswerHttp(502, {"Content-Type": "text/html"}, "<html>Bad gateway</html>"),
        AnswerStatus(1),
        AnswerStatus(2),
        AnswerStatus(3),
        AnswerStatus(7),
        AnswerStatus(8),
        AnswerStatus(111),
    ],
    ids=repr,
)
@hurried
async def test_a_mail_survives_whatever_happens_to_the_ping(failure: Failure) -> None:
    async with world() as watched:
        watched.simulator.fail(ANN, FailurePlan(failure, "Ping"))
        watched.start()
        await until(lambda: watched.sent("Ping") >= 1)
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL


@hurried
async def test_a_ping_that_was_lost_without_a_word_is_given_up() -> None:
    async with world() as watched:
        watched.simulator.fail(ANN, FailurePlan(Stall(), "Ping"))
        watched.start()
        await until(lambda: watched.sent("Ping") == 1)
        watched.simulator.deliver(ANN)
        hurry(600 * 1.1 + 31)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL


@hurried
async def test_mail_that_came_while_nobody_watched_is_told_after_the_restart() -> None:
    async with world() as watched:
        watched.start()
        await watched.until_held()
        await watched.stop()
        await until(lambda: watched.simulator.held == 0)
        watched.simulator.deliver(ANN)
        watched.start()
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL
        assert watched.sent("OPTIONS") == 1


@hurried
async def test_lost_sync_keys_lose_no_mail_and_repeat_none() -> None:
    async with world() as watched:
        watched.simulator.deliver(ANN, subject="Old")
        watched.start()
        await watched.until_held()
        watched.simulator.lose_state(ANN)
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL


@hurried
async def test_a_lost_hierarchy_key_loses_no_mail_and_repeats_none() -> None:
    async with world() as watched:
        watched.simulator.deliver(ANN, subject="Old")
        watched.start()
        await watched.until_held()
        before = watched.sent("FolderSync")
        watched.simulator.lose_state(ANN)
        watched.simulator.add_folder(ANN, "Projects")
        await watched.until_held(pings=2)
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL
        assert watched.sent("FolderSync") == before + 2  # status 9, then key 0


@hurried
async def test_a_new_folder_is_read_and_changes_nothing_else() -> None:
    async with world() as watched:
        watched.start()
        await watched.until_held()
        folder = watched.simulator.add_folder(ANN, "Projects")
        await watched.until_held(pings=2)
        watched.simulator.deliver(ANN, folder=folder)
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL
        assert watched.sent("FolderSync") == 2


@pytest.mark.parametrize("version", [ProtocolVersion.V12_1, ProtocolVersion.V14_1, ProtocolVersion.V16_1])
@pytest.mark.parametrize("order", [EasSimulator.refresh_policy, EasSimulator.forget_policy])
@hurried
async def test_a_new_policy_is_acknowledged_and_the_mail_arrives(
    version: ProtocolVersion, order: Callable[[EasSimulator, str], None]
) -> None:
    async with world(Policy(versions=(version,))) as watched:
        watched.start()
        await watched.until_held()
        provisions = watched.sent("Provision")
        order(watched.simulator, ANN)
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL
        assert watched.sent("Provision") == provisions + 2


@hurried
async def test_a_server_without_a_policy_is_watched_without_a_key() -> None:
    async with world(rules=EasRules(policy=False)) as watched:
        watched.start()
        await watched.until_held()

        assert watched.sent("Provision") == 1
        assert watched.ann.partnership.policy_key is None


@hurried
async def test_a_wipe_ends_the_watch_for_good() -> None:
    async with world() as watched:
        watched.start()
        await watched.until_held()
        watched.simulator.wipe(ANN)
        watched.simulator.deliver(ANN)
        await until(lambda: not watched.fleet)

        assert watched.ann.conditions[-1].state is WatchState.WIPED
        assert watched.ann.changes == []
        (device,) = watched.simulator.devices(ANN)
        assert device.wipe is None


@hurried
async def test_a_blocked_device_asks_hourly_and_no_more() -> None:
    async with world() as watched:
        watched.start()
        await watched.until_held()
        watched.simulator.block(ANN)
        await until(lambda: watched.ann.conditions[-1].state is WatchState.BLOCKED)
        asked = len(watched.simulator.log(ANN))
        hurry(3000)
        await asyncio.sleep(0.05)
        assert len(watched.simulator.log(ANN)) == asked
        watched.simulator.block(ANN, blocked=False)
        watched.simulator.deliver(ANN)
        hurry(3000)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL


@hurried
async def test_the_heartbeat_that_the_server_allows_is_adopted() -> None:
    async with world(rules=EasRules(heartbeat_maximum=300)) as watched:
        watched.start()
        await watched.until_held(pings=2)
        hurry(301)
        await watched.until_held(pings=3)

        assert watched.sent("Ping") == 3
        assert watched.ann.changes == []


@pytest.mark.parametrize("failure", [Cut(seconds=100.0), AnswerHttp(504, seconds=100.0)], ids=["cut", "504"])
@hurried
async def test_an_idle_timeout_on_the_way_shortens_the_heartbeat(failure: Failure) -> None:
    async with world() as watched:
        watched.simulator.fail(ANN, FailurePlan(failure, "Ping"))
        watched.start()
        await until(lambda: watched.sent("Ping") == 1)
        hurry(100.0)
        watched.simulator.deliver(ANN)
        await watched.until_changed()
        (device,) = watched.simulator.devices(ANN)

        assert device.ping is not None
        assert 60 <= device.ping.heartbeat <= 76
        assert watched.ann.changes == ONE_MAIL


@hurried
async def test_a_server_that_tells_its_limit_late_is_believed() -> None:
    async with world() as watched:
        watched.simulator.fail(ANN, FailurePlan(AnswerStatus(5, seconds=300.0, heartbeat=300), "Ping"))
        watched.start()
        await until(lambda: watched.sent("Ping") == 1)
        watched.simulator.deliver(ANN)
        hurry(300.0)
        await watched.until_changed()
        (device,) = watched.simulator.devices(ANN)

        assert device.ping is not None
        assert device.ping.heartbeat == 300
        assert watched.ann.changes == ONE_MAIL


@hurried
async def test_all_classes_are_watched_in_one_ping() -> None:
    async with world(classes=frozenset(CollectionClass)) as watched:
        watched.start()
        await watched.until_held()
        for cls in CollectionClass:
            watched.simulator.deliver(ANN, cls)
        await until(lambda: len(watched.ann.changes) == len(CollectionClass))

        assert {change.cls for change in watched.ann.changes} == set(CollectionClass)


@hurried
async def test_a_ping_with_too_many_folders_keeps_the_inbox() -> None:
    async with world(rules=EasRules(max_folders=2), classes=frozenset(CollectionClass)) as watched:
        watched.start()
        await watched.until_held(pings=2)
        watched.simulator.deliver(ANN)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL


@hurried
async def test_a_wrong_password_is_tried_once_and_confirmed_sparingly() -> None:
    async with world() as watched:
        watched.start(password="wrong")
        for requests, wait in ((1, 60.0), (2, 900.0)):
            await until(lambda requests=requests: len(watched.ann.conditions) == requests)  # type: ignore[misc]
            assert len(watched.simulator.log(ANN)) == requests
            hurry(wait - 1.0)
            await asyncio.sleep(0.05)
            assert len(watched.simulator.log(ANN)) == requests
            hurry(2.0 + wait * 0.1)
        await until(lambda: not watched.fleet)

        first, second, third = (logged.moment for logged in watched.simulator.log(ANN))
        assert 60.0 <= second - first <= 70.0
        assert 900.0 <= third - second <= 1000.0
        assert watched.simulator.records.refusals == {ANN: 3}
        assert watched.ann.conditions[-1].state is WatchState.CREDENTIAL_REFUSED


@hurried
async def test_a_password_changed_on_the_server_stops_the_watch_until_it_is_confirmed() -> None:
    async with world() as watched:
        watched.start()
        await watched.until_held()
        watched.simulator.add_mailbox(ANN, "changed")
        watched.simulator.deliver(ANN)
        await until(lambda: watched.simulator.records.refusals[ANN] == 1)
        await asyncio.sleep(0.05)
        assert watched.simulator.records.refusals[ANN] == 1
        watched.simulator.add_mailbox(ANN, PASSWORD)
        hurry(67.0)
        await watched.until_changed()

        assert watched.ann.changes == ONE_MAIL


@hurried
async def test_a_hundred_mailboxes_hold_one_ping_each_and_lose_nothing() -> None:
    users = [f"user{number}@example.com" for number in range(100)]
    async with world(rules=EasRules(any_password=PASSWORD)) as watched:
        for user in users:
            watched.start(user)
        await until(lambda: watched.simulator.held == len(users))
        for user in users:
            watched.simulator.deliver(user)
        kept = watched.journal.kept
        await until(lambda: sum(len(each.changes) for each in kept.values()) == len(users))
        await until(lambda: watched.simulator.held == len(users))

        assert all(each.changes == ONE_MAIL for each in kept.values())
        assert watched.simulator.records.max_held == len(users)
        assert set(watched.simulator.ping_answered_at) == set(users)
