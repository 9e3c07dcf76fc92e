import asyncio
import logging

import pytest

from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import CredentialVoid, ServerBusy, Unreachable
from eas_watcher.machine.state import Policy
from eas_watcher.names import MailboxId
from eas_watcher.ports import Transport
from eas_watcher.reasons import Reason
from eas_watcher.runtime.fleet import Fleet
from eas_watcher.server.starts import CROWD
from tests.fakes.eas import HoldingTransport, ScriptedTransport
from tests.unit.eas_watcher.running import EMPTY, KNOWN, World, account, mails, pinged

pytestmark = pytest.mark.looptime

ANN, BEN = MailboxId("ann"), MailboxId("ben")


class Watched:
    """A fleet, and the watches that broke."""

    def __init__(self) -> None:
        self.world = World()
        self.broken: list[MailboxId] = []
        self.broke = asyncio.Event()
        self.fleet = Fleet(self.world.context, self.on_broken)

    def on_broken(self, mailbox: MailboxId) -> None:
        self.broken.append(mailbox)
        self.broke.set()

    def start(self, mailbox: MailboxId, transport: ScriptedTransport | None = None) -> ScriptedTransport:
        transport = transport or ScriptedTransport(EMPTY)
        self.fleet.start(account(mailbox), transport, KNOWN, Policy())
        return transport

    async def hold(self, transport: Transport, *mailboxes: MailboxId) -> None:
        """Start watches, and return when each holds a Ping."""
        for mailbox in mailboxes:
            self.fleet.start(account(mailbox), transport, KNOWN, Policy())
        await asyncio.sleep(1)
        assert self.world.context.stats.held.keys() == {*mailboxes}

    async def gone(self, mailbox: MailboxId) -> None:
        while mailbox in self.fleet:  # noqa: ASYNC110 -- a fleet does not report a quiet end, and this time costs nothing
            await asyncio.sleep(1)


def fail(_: HttpRequest) -> HttpReply:
    raise ZeroDivisionError


async def test_holds_one_watch_for_each_mailbox() -> None:
    here = Watched()
    ann, ben = here.start(ANN), here.start(BEN)
    await ann.held.wait()
    await ben.held.wait()

    assert len(here.fleet) == 2
    assert ANN in here.fleet
    assert here.world.context.stats.held.keys() == {ANN, BEN}
    with pytest.raises(ValueError, match="never two"):
        here.start(ANN)

    await here.fleet.stop_all()
    assert len(here.fleet) == 0


async def test_stops_one_watch_and_returns_when_its_request_is_closed() -> None:
    here = Watched()
    ann, ben = here.start(ANN), here.start(BEN)
    await ann.held.wait()
    await ben.held.wait()

    await here.fleet.stop(ANN)

    assert (ANN in here.fleet, BEN in here.fleet) == (False, True)
    assert here.world.context.stats.held.keys() == {BEN}
    assert here.broken == []
    await here.fleet.stop_all()


async def test_of_a_large_fleet_few_watches_start_at_a_time_and_all_are_held_in_the_end() -> None:
    here = Watched()
    before = asyncio.all_tasks()
    mailboxes = [MailboxId(f"m{number}") for number in range(2 * CROWD)]
    transport = HoldingTransport()
    for mailbox in mailboxes:
        here.fleet.start(account(mailbox), transport, KNOWN, Policy())
    [(_, admission)] = here.world.context.admissions.items()

    assert len(asyncio.all_tasks() - before) == CROWD
    assert admission.waiting_mailboxes == CROWD
    await asyncio.sleep(60)

    assert here.world.context.stats.held.keys() == {*mailboxes}
    assert admission.waiting_mailboxes == 0
    await here.fleet.stop_all()


async def test_a_watch_that_is_stopped_before_its_start_sends_nothing() -> None:
    here = Watched()
    for number in range(CROWD):
        here.start(MailboxId(f"m{number}"))
    ann, ben = here.start(ANN), here.start(BEN)

    await here.fleet.stop(ANN)
    assert ANN not in here.fleet
    await ben.held.wait()

    assert ann.requests == []
    await here.fleet.stop_all()
    assert len(here.fleet) == 0


async def test_a_stopped_mailbox_can_be_started_again() -> None:
    here = Watched()
    await here.start(ANN).held.wait()
    await here.fleet.stop(ANN)

    await here.start(ANN).held.wait()

    await here.fleet.stop_all()


async def test_stopping_what_does_not_run_does_nothing() -> None:
    here = Watched()

    await here.fleet.stop(ANN)
    await here.fleet.stop_all()


async def test_a_watch_that_ends_is_gone_and_not_broken() -> None:
    here = Watched()

    here.start(ANN, ScriptedTransport(CredentialVoid("gone", Reason.OAUTH_INVALID_GRANT)))
    await here.gone(ANN)

    assert here.broken == []


async def test_a_watch_that_breaks_ends_alone_and_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    here = Watched()
    ben = here.start(BEN)
    await ben.held.wait()

    here.start(ANN, ScriptedTransport(fail))
    await here.broke.wait()

    assert (here.broken, ANN in here.fleet, BEN in here.fleet) == ([ANN], False, True)
    [record] = caplog.records
    assert (record.levelno, record.message, record.__dict__["mailbox"]) == (logging.ERROR, "watch broke", ANN)
    await here.fleet.stop_all()


async def test_a_broken_watch_can_be_started_again_at_once() -> None:
    here = Watched()
    second = ScriptedTransport(EMPTY)
    here.fleet = Fleet(here.world.context, lambda mailbox: void(here.start(mailbox, second)))

    here.start(ANN, ScriptedTransport(fail))
    await second.held.wait()

    assert ANN in here.fleet
    await here.fleet.stop_all()


def void(_: object) -> None:
    return None


async def test_a_mailbox_of_another_process_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "eas_watcher")
    here = Watched()
    here.world.journal.fenced = True

    here.start(ANN, ScriptedTransport(mails("k2", "5:1")))
    await here.gone(ANN)

    assert here.broken == []
    assert [record.message for record in caplog.records] == ["watch belongs to another process now"]


def tasks_and_timers() -> tuple[int, int]:
    """Count the tasks of the loop but this one, and its timers."""
    loop = asyncio.get_running_loop()
    timers = [timer for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
    return len(asyncio.all_tasks()) - 1, len(timers)


async def test_a_held_ping_is_no_task_and_no_timer() -> None:
    here, server = Watched(), HoldingTransport()

    await here.hold(server, ANN, BEN)
    assert (len(server.held), tasks_and_timers()) == (2, (0, 0))

    server.held[0].done(pinged(1))
    await asyncio.sleep(1)
    assert (len(server.held), tasks_and_timers()) == (3, (0, 0))
    await here.fleet.stop_all()
    assert [ping.given_up for ping in server.held] == [0, 1, 1]


async def test_a_pause_is_no_task_and_one_timer_for_all() -> None:
    here = Watched()
    for mailbox in (ANN, BEN):
        here.start(mailbox, ScriptedTransport(ServerBusy("busy"), EMPTY))
    await asyncio.sleep(1)

    assert tasks_and_timers() == (0, 1)
    await here.fleet.stop(ANN)
    assert (ANN in here.fleet, BEN in here.fleet) == (False, True)
    await here.fleet.stop_all()
    await asyncio.sleep(3600)
    assert (len(here.fleet), here.world.context.stats.held) == (0, {})


async def test_an_answer_that_came_as_the_watch_is_stopped_leaves_no_ping_behind() -> None:
    here, server = Watched(), HoldingTransport()
    await here.hold(server, ANN)

    server.held[0].done(pinged(1))
    await here.fleet.stop(ANN)

    assert (len(here.fleet), here.world.context.stats.held, len(server.held)) == (0, {}, 1)
    assert here.world.admission.watched == 0
    assert here.world.admission.capacity._held == {}
    assert here.broken == []


async def test_an_answer_that_comes_while_its_ping_is_given_up_is_left_alone() -> None:
    here, server = Watched(), HoldingTransport(goodbye=5.0)
    await here.hold(server, ANN)

    stopping = asyncio.ensure_future(here.fleet.stop(ANN))
    await asyncio.sleep(1)
    server.held[0].done(pinged(1))
    await stopping

    assert (len(here.fleet), len(server.held), server.held[0].given_up) == (0, 1, 1)


async def test_all_who_stop_a_watch_wait_until_its_ping_is_given_up_and_none_hurries_that() -> None:
    here, server = Watched(), HoldingTransport(goodbye=5.0)
    await here.hold(server, ANN)
    began = asyncio.get_running_loop().time()

    first = asyncio.ensure_future(here.fleet.stop(ANN))
    await asyncio.sleep(1)
    second, third = asyncio.ensure_future(here.fleet.stop(ANN)), asyncio.ensure_future(here.fleet.stop_all())
    await asyncio.sleep(1)
    first.cancel()
    await asyncio.sleep(1)
    assert ANN in here.fleet
    await asyncio.gather(second, third)

    assert asyncio.get_running_loop().time() == began + 5.0
    assert (len(here.fleet), server.held[0].given_up, here.world.context.stats.held) == (0, 1, {})


async def test_a_fault_instead_of_an_answer_breaks_the_watch_alone() -> None:
    here, server = Watched(), HoldingTransport()
    await here.hold(server, ANN, BEN)

    server.held[0].done(ZeroDivisionError())
    await here.broke.wait()

    assert here.broken == [ANN]
    assert here.world.context.stats.held.keys() == {BEN}
    assert len(here.world.admission.capacity._held) == 1
    await here.fleet.stop_all()


async def test_a_failure_of_a_held_ping_is_followed_by_a_pause_and_a_sync() -> None:
    here, server = Watched(), HoldingTransport()
    await here.hold(server, ANN)

    server.held[0].done(Unreachable("cut", 120.0))
    await asyncio.sleep(60)

    assert (server.sent, len(server.held)) == (2, 2)
    assert here.world.journal.pings == [630, 90]
    await here.fleet.stop_all()


async def test_a_watch_takes_another_policy_while_its_ping_is_held() -> None:
    here, transport = Watched(), HoldingTransport()
    await here.hold(transport, ANN)

    here.fleet.follow(ANN, Policy(hosts=frozenset({"mail2.example.com"}), lockout_window=600))
    here.fleet.follow(BEN, Policy())
    await asyncio.sleep(1)

    runner = here.fleet._watches[ANN]
    assert runner._state.watch.policy.hosts == {"mail2.example.com"}
    assert runner._state.watch.policy.lockout_window == 600
    assert here.world.context.stats.held.keys() == {ANN}
    assert here.fleet.url(ANN) == account(ANN).url
    assert here.fleet.url(BEN) is None
    await here.fleet.stop_all()
