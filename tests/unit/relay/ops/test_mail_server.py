import asyncio
from datetime import timedelta
from random import Random

import pytest

from eas_watcher.errors import Unauthorized, Unreachable
from eas_watcher.machine.state import Doubt
from eas_watcher.reasons import Reason
from eas_watcher.server.admission import ClientAdmission, ServerAdmission
from relay.domain.reasons import REASONS
from relay.ops.health import OK, Finding, PartState
from relay.ops.mail_server import BRIEF, mail_server
from tests.fakes.metrics import cut_admission
from tests.fakes.ops import NOON, HandClock

pytestmark = pytest.mark.looptime


class Server:
    """The admission to a mail server, and its part of health."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.admission = ServerAdmission(10.0, 8, Random(1), self.clock)

    def check(self) -> Finding:
        part = mail_server("main", lambda: self.admission, self.clock)
        assert part.name == "server main"
        return part.check()

    async def fail_first_request(
        self, detail: str = "no connection: Connection refused", reason: Reason = Reason.UNREACHABLE
    ) -> None:
        client = ClientAdmission("first")
        await self.admission.enter(client)
        self.admission.failed(client, Unreachable(detail, reached=False, reason=reason))
        self.admission.leave(client)


def test_a_server_without_any_request_has_no_finding() -> None:
    assert mail_server("main", lambda: None, HandClock()).check() == OK


def test_a_server_in_maintenance_says_since_when_and_what_ends_it() -> None:
    part = mail_server("main", lambda: None, HandClock(), maintained={"main": NOON}.get)

    assert part.check() == Finding(
        PartState.DEGRADED,
        "is in maintenance since 2026-11-24 12:00 UTC: its mailboxes are not watched",
        "When it is over: `relay maintenance main off`.",
    )


async def test_a_server_that_is_away_fails_after_a_minute() -> None:
    server = Server()
    assert server.check() == OK

    await server.fail_first_request()
    assert server.check() == Finding(
        PartState.DEGRADED,
        "is away (no connection: Connection refused): one mailbox probes, 0 wait",
        REASONS[Reason.UNREACHABLE].remedy,
    )
    server.clock.forward((BRIEF + timedelta(seconds=1)).total_seconds())
    assert server.check().state is PartState.FAILED


async def test_a_proxy_that_is_away_is_named_and_not_the_server() -> None:
    server = Server()

    await server.fail_first_request("proxy-refused: nothing listens", Reason.PROXY_AWAY)

    assert server.check() == Finding(
        PartState.DEGRADED,
        "cannot be asked through its proxy (proxy-refused: nothing listens): one mailbox probes, 0 wait",
        REASONS[Reason.PROXY_AWAY].remedy,
    )


async def test_a_server_that_is_back_is_degraded_until_all_have_returned() -> None:
    server = Server()
    server.admission.capacity.watched = 20
    await server.fail_first_request()
    clients = [ClientAdmission(name) for name in range(20)]
    async with asyncio.TaskGroup() as tasks:
        for client in clients:
            tasks.create_task(server.admission.enter(client))
        while not clients[0].probe:  # noqa: ASYNC110 -- this time costs nothing
            await asyncio.sleep(0.1)
        server.admission.answered(clients[0])
        finding = server.check()

    assert finding.state is PartState.DEGRADED
    assert finding.reason == "is back: 18 of 20 mailboxes still wait for their turn"
    assert "servers.main.return_rate" in finding.remedy
    assert server.check() == OK


async def test_a_start_of_many_mailboxes_is_a_hint_and_no_fault() -> None:
    server = Server()
    server.admission.capacity.watched = 20
    async with asyncio.TaskGroup() as tasks:
        for name in range(20):
            tasks.create_task(server.admission.enter(ClientAdmission(name)))
        await asyncio.sleep(0.05)
        finding = server.check()

    assert finding.state is PartState.OK
    assert finding.reason == "takes its mailboxes one after the other: 19 of 20 still wait for their turn"
    assert "servers.main.return_rate" in finding.remedy
    assert server.check() == OK


async def test_a_server_that_refuses_many_has_failed_and_no_user_was_asked() -> None:
    server = Server()
    server.admission.capacity.watched = 40
    for name in range(5):
        client = ClientAdmission(name)
        await server.admission.enter(client)
        server.admission.failed(client, Unauthorized("no"))

    assert server.check() == Finding(
        PartState.FAILED,
        "refuses the credentials of 5 of 40 mailboxes at once: no user was told",
        REASONS[Reason.HTTP_401_MANY].remedy,
    )


async def test_a_server_with_doubtful_mailboxes_says_when_one_is_asked_again() -> None:
    server = Server()
    server.admission.capacity.watched = 3

    async def nothing() -> None:
        return None

    wait = server.admission.doubtful.wait
    waiting = [asyncio.ensure_future(wait(name, 3600.0, Doubt(1800.0), nothing)) for name in ("ann", "ben")]
    await asyncio.sleep(0)
    finding = server.check()

    assert finding == Finding(
        PartState.FAILED,
        "refused the credentials of 2 of 3 mailboxes three times or more, while it refused everyone who was asked: "
        "asked again at 2026-11-24 13:00 UTC, or when it accepts others or changes",
        REASONS[Reason.HTTP_401_DOUBTFUL].remedy,
    )
    server.admission.capacity.watched = 5
    assert server.check().state is PartState.DEGRADED
    waiting.append(asyncio.ensure_future(wait("cleo", 3600.0, Doubt(1800.0, others_accepted=True), nothing)))
    await asyncio.sleep(0)
    assert "mailboxes three times or more, though it accepted others" in server.check().reason
    for task in waiting:
        task.cancel()


async def test_a_server_that_holds_few_pings_is_degraded_and_the_remedy_is_more_workers() -> None:
    server = Server()
    server.admission.capacity.watched, server.admission.capacity.limit = 36, 5

    finding = server.check()

    assert (finding.state, finding.reason) == (
        PartState.DEGRADED,
        "main holds about 5 Pings at once: 31 mailboxes are polled every 90 s, in turns",
    )
    assert "WOWorkersCount" in finding.remedy
    assert 'servers.main.mode = "poll"' in finding.remedy


async def test_an_idle_timeout_on_the_path_is_a_hint_and_no_fault() -> None:
    server = Server()
    server.admission = cut_admission()

    finding = server.check()

    assert finding.state is PartState.OK
    assert finding.reason == (
        "Pings to main are cut after 299\N{EN DASH}301 s: an idle timeout of 300 s lies on the path"
    )
    assert "idle connections" in finding.remedy


async def test_a_server_without_trouble_shows_how_the_relay_speaks_to_it() -> None:
    server = Server()
    used = {"http/1.1": (0, 0), "h2": (3, 250)}
    part = mail_server("main", lambda: server.admission, server.clock, lambda: used)
    assert part.check() == Finding(PartState.OK, "250 requests on 3 connections over HTTP/2")
    used["http/1.1"] = 2, 1
    both = "1 request on 2 connections over HTTP/1.1 and 250 requests on 3 connections over HTTP/2"
    assert part.check().reason == both
    await server.fail_first_request()
    assert part.check().state is PartState.DEGRADED


def test_a_server_without_a_connection_has_nothing_to_show() -> None:
    unused = {"http/1.1": (0, 0), "h2": (0, 0)}
    assert mail_server("main", lambda: None, HandClock(), lambda: unused).check() == OK
