import asyncio
import logging

import pytest

from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import CredentialVoid
from eas_watcher.machine.state import Policy
from eas_watcher.names import MailboxId
from eas_watcher.reasons import Reason
from eas_watcher.runtime.fleet import Fleet
from tests.fakes.eas import ScriptedTransport
from tests.unit.eas_watcher.running import EMPTY, KNOWN, World, account, mails

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
