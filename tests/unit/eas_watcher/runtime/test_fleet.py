import asyncio
import logging

import pytest

from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.machine.state import Policy
from eas_watcher.names import MailboxId
from eas_watcher.runtime.fleet import Fleet
from tests.fakes.eas import ScriptedTransport
from tests.unit.eas_watcher.running import EMPTY, KNOWN, World, account, mails

pytestmark = pytest.mark.looptime

ANN, BEN = MailboxId("ann"), MailboxId("ben")


class Yard:
    """Hold a fleet and what it tells."""

    def __init__(self) -> None:
        self.world = World()
        self.broken: list[MailboxId] = []
        self.told = asyncio.Event()
        self.fleet = Fleet(self.world.context, self.on_broken)

    def on_broken(self, mailbox: MailboxId) -> None:
        self.broken.append(mailbox)
        self.told.set()

    def start(self, mailbox: MailboxId, transport: ScriptedTransport | None = None) -> ScriptedTransport:
        transport = transport or ScriptedTransport(EMPTY)
        self.fleet.start(account(mailbox), transport, KNOWN, Policy())
        return transport

    async def gone(self, mailbox: MailboxId) -> None:
        while mailbox in self.fleet:  # noqa: ASYNC110 -- a fleet does not tell of a quiet end, and this time costs nothing
            await asyncio.sleep(1)


def fail(_: HttpRequest) -> HttpReply:
    raise ZeroDivisionError


async def test_holds_one_watch_for_each_mailbox() -> None:
    yard = Yard()
    ann, ben = yard.start(ANN), yard.start(BEN)
    await ann.held.wait()
    await ben.held.wait()

    assert len(yard.fleet) == 2
    assert ANN in yard.fleet
    assert yard.world.context.stats.held == {ANN: 630, BEN: 630}
    with pytest.raises(ValueError, match="never two"):
        yard.start(ANN)

    await yard.fleet.stop_all()
    assert len(yard.fleet) == 0


async def test_stops_one_watch_and_returns_when_its_request_is_closed() -> None:
    yard = Yard()
    ann, ben = yard.start(ANN), yard.start(BEN)
    await ann.held.wait()
    await ben.held.wait()

    await yard.fleet.stop(ANN)

    assert (ANN in yard.fleet, BEN in yard.fleet) == (False, True)
    assert yard.world.context.stats.held == {BEN: 630}
    assert yard.broken == []
    await yard.fleet.stop_all()


async def test_a_stopped_mailbox_can_be_started_again() -> None:
    yard = Yard()
    await yard.start(ANN).held.wait()
    await yard.fleet.stop(ANN)

    await yard.start(ANN).held.wait()

    await yard.fleet.stop_all()


async def test_stopping_what_does_not_run_does_nothing() -> None:
    yard = Yard()

    await yard.fleet.stop(ANN)
    await yard.fleet.stop_all()


async def test_a_watch_that_ends_is_gone_and_not_broken() -> None:
    yard = Yard()
    refused = HttpReply(401, {}, b"")

    yard.start(ANN, ScriptedTransport(refused, refused, refused))
    await yard.gone(ANN)

    assert yard.broken == []


async def test_a_watch_that_breaks_ends_alone_and_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    yard = Yard()
    ben = yard.start(BEN)
    await ben.held.wait()

    yard.start(ANN, ScriptedTransport(fail))
    await yard.told.wait()

    assert (yard.broken, ANN in yard.fleet, BEN in yard.fleet) == ([ANN], False, True)
    [record] = caplog.records
    assert (record.levelno, record.message, record.__dict__["mailbox"]) == (logging.ERROR, "watch broke", ANN)
    await yard.fleet.stop_all()


async def test_a_broken_watch_can_be_started_again_at_once() -> None:
    yard = Yard()
    second = ScriptedTransport(EMPTY)
    yard.fleet = Fleet(yard.world.context, lambda mailbox: void(yard.start(mailbox, second)))

    yard.start(ANN, ScriptedTransport(fail))
    await second.held.wait()

    assert ANN in yard.fleet
    await yard.fleet.stop_all()


def void(_: object) -> None:
    return None


async def test_a_mailbox_of_another_process_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "eas_watcher")
    yard = Yard()
    yard.world.journal.fenced = True

    yard.start(ANN, ScriptedTransport(mails("k2", "5:1")))
    await yard.gone(ANN)

    assert yard.broken == []
    assert [record.message for record in caplog.records] == ["watch belongs to another process now"]
