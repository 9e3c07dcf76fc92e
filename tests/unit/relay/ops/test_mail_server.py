import asyncio
from datetime import timedelta
from random import Random

import pytest

from eas_watcher.errors import Unauthorized, Unreachable
from eas_watcher.reasons import Reason
from eas_watcher.server.admission import ClientAdmission, ServerAdmission
from relay.domain.reasons import REASONS
from relay.ops.health import OK, Finding, PartState
from relay.ops.mail_server import BRIEF, mail_server
from tests.fakes.metrics import cut_door
from tests.fakes.ops import HandClock

pytestmark = pytest.mark.looptime


class Yard:
    """Hold a server's door and what health says of it."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.door = ServerAdmission(10.0, 8, Random(1), self.clock)

    def check(self) -> Finding:
        part = mail_server("main", lambda: self.door, self.clock)
        assert part.name == "server main"
        return part.check()

    async def close(self) -> None:
        visitor = ClientAdmission("first")
        await self.door.enter(visitor)
        self.door.failed(visitor, Unreachable("no connection: Connection refused", reached=False))
        self.door.leave(visitor)


def test_nothing_is_said_of_a_server_that_was_never_asked() -> None:
    assert mail_server("main", lambda: None, HandClock()).check() == OK


async def test_a_server_that_is_away_fails_after_a_minute() -> None:
    yard = Yard()
    assert yard.check() == OK

    await yard.close()
    assert yard.check() == Finding(
        PartState.DEGRADED,
        "is away (no connection: Connection refused): one mailbox probes, 0 wait",
        REASONS[Reason.UNREACHABLE].remedy,
    )
    yard.clock.forward((BRIEF + timedelta(seconds=1)).total_seconds())
    assert yard.check().state is PartState.FAILED


async def test_a_server_that_is_back_is_degraded_until_all_have_returned() -> None:
    yard = Yard()
    yard.door.watched = 20
    await yard.close()
    visitors = [ClientAdmission(name) for name in range(20)]
    async with asyncio.TaskGroup() as tasks:
        for visitor in visitors:
            tasks.create_task(yard.door.enter(visitor))
        while not visitors[0].probe:  # noqa: ASYNC110 -- this time costs nothing
            await asyncio.sleep(0.1)
        yard.door.answered(visitors[0])
        finding = yard.check()

    assert finding.state is PartState.DEGRADED
    assert finding.reason == "is back: 18 of 20 mailboxes still wait for their turn"
    assert "servers.main.return_rate" in finding.remedy
    assert yard.check() == OK


async def test_a_start_of_many_mailboxes_is_no_fault_but_told() -> None:
    yard = Yard()
    yard.door.watched = 20
    async with asyncio.TaskGroup() as tasks:
        for name in range(20):
            tasks.create_task(yard.door.enter(ClientAdmission(name)))
        await asyncio.sleep(0.05)
        finding = yard.check()

    assert finding.state is PartState.OK
    assert finding.reason == "takes its mailboxes one after the other: 19 of 20 still wait for their turn"
    assert "servers.main.return_rate" in finding.remedy
    assert yard.check() == OK


async def test_a_server_that_refuses_many_has_failed_and_nobody_was_told() -> None:
    yard = Yard()
    yard.door.watched = 40
    for name in range(5):
        visitor = ClientAdmission(name)
        await yard.door.enter(visitor)
        yard.door.failed(visitor, Unauthorized("no"))

    assert yard.check() == Finding(
        PartState.FAILED,
        "refuses the credentials of 5 of 40 mailboxes at once: no user was told",
        REASONS[Reason.HTTP_401_MANY].remedy,
    )


async def test_an_idle_timeout_on_the_path_is_a_hint_and_no_fault() -> None:
    yard = Yard()
    yard.door = cut_door()

    finding = yard.check()

    assert finding.state is PartState.OK
    assert finding.reason == (
        "Pings to main are cut after 299\N{EN DASH}301 s: an idle timeout of 300 s lies on the path"
    )
    assert "idle connections" in finding.remedy
