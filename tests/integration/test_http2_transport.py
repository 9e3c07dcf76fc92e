"""HTTP/2 to mail servers over real sockets and TLS, against the simulated server."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from eas_watcher.auth.basic import BasicCredential
from eas_watcher.commands.request import LARGE, HttpReply, HttpRequest
from eas_watcher.errors import ProtocolViolation, Unreachable
from eas_watcher.ports import HeldRequest
from eas_watcher.transport.http import HttpTransport, open_transport
from eas_watcher.transport.http2 import STREAMS, TIMINGS
from eas_watcher.transport.http2_pool import ALPN, REMEMBERED
from eas_watcher.wbxml.encode import encode
from relay.sandbox.certificates import ThrowAwayCa
from relay.sandbox.eas.failures import AnswerHttp, Failure, FailurePlan, Reset, Stall
from relay.sandbox.eas.personality import EXCHANGE
from relay.sandbox.eas.rules import EasRules
from relay.sandbox.eas.server import open_eas_simulator
from relay.sandbox.eas.simulator import EasSimulator
from tests.integration.eas_world import hurried, hurry
from tests.integration.test_eas_simulator import INBOX, ping, sync
from tests.waiting import SOON, until

HTTP_1_1_REQUIRED, REFUSED_STREAM, INTERNAL_ERROR = 13, 7, 2
PASSWORD = "secret"


@pytest.fixture(scope="module")
def ca() -> ThrowAwayCa:
    return ThrowAwayCa("Test")


@dataclass
class Site:
    """A server with mailboxes, and a transport that may speak HTTP/2 to it."""

    simulator: EasSimulator
    transport: HttpTransport
    results: dict[int, HttpReply | Exception] = field(default_factory=dict)
    held: dict[int, HeldRequest] = field(default_factory=dict)

    def request(
        self, user: int = 0, command: str = "Ping", deadline: float = 60.0, largest: int = LARGE
    ) -> HttpRequest:
        name = f"user{user}"
        self.simulator.add_mailbox(name, PASSWORD)
        body = encode(ping(3000, INBOX)) if command == "Ping" else encode(sync("0"))
        headers = {
            "Authorization": BasicCredential(name, PASSWORD).authorization(),
            "MS-ASProtocolVersion": "14.1",
            "Content-Type": "application/vnd.ms-sync.wbxml",
        }
        query = f"Cmd={command}&User={name}&DeviceId=D1&DeviceType=PushRelay"
        return HttpRequest("POST", f"{self.simulator.url}?{query}", headers, body, deadline, largest)

    async def hold(self, *users: int, deadline: float = 60.0) -> None:
        """Let Pings of users be held, all at once."""

        async def one(user: int) -> None:
            def done(result: HttpReply | Exception) -> None:
                self.results[user] = result

            self.held[user] = await self.transport.hold(self.request(user, deadline=deadline), done)

        before = self.simulator.held
        await asyncio.gather(*map(one, users))
        await until(lambda: self.simulator.held == before + len(users))

    def errors(self) -> list[Unreachable]:
        return [result for result in self.results.values() if isinstance(result, Unreachable)]

    @property
    def http2(self) -> dict[str, int]:
        return self.simulator.connections.state()["h2"]


@asynccontextmanager
async def site(
    ca: ThrowAwayCa, *, server: tuple[str, ...] = ALPN, client: bool = True, reuse: bool = True
) -> AsyncIterator[Site]:
    # A server that is deaf holds the Ping of a folder that was never synced.
    rules = EasRules(policy=False, personality=replace(EXCHANGE, deaf=True, reports_folders=False))
    http2 = ca.client_context() if client else None
    async with AsyncExitStack() as stack:
        tls = ca.server_context(alpn=server)
        simulator = await stack.enter_async_context(open_eas_simulator(tls=tls, rules=rules))
        transport = await stack.enter_async_context(open_transport(ca.client_context(), http2=http2, reuse=reuse))
        yield Site(simulator, transport)


async def test_a_hundred_pings_share_a_connection_and_the_next_gets_another(ca: ThrowAwayCa) -> None:
    async with site(ca) as place:
        await place.hold(*range(2 * STREAMS + 1))

        assert place.transport.used() == {"http/1.1": (0, 0), "h2": (3, 2 * STREAMS + 1)}
        assert sorted(place.simulator.connections.http2.shares) == [1, 100, 100]
        place.simulator.block("user7")
        await until(lambda: 7 in place.results)
        answered = place.results[7]
        assert isinstance(answered, HttpReply)
        assert (answered.status, answered.headers["content-type"]) == (200, "application/vnd.ms-sync.wbxml")
        assert answered.set_cookies == (
            "X-BackEndCookie=mailbox-server-1; HttpOnly; Path=/Microsoft-Server-ActiveSync; Secure",
        )
        place.simulator.block("user7", blocked=False)
        await place.transport.send(place.request(7, "Sync"))
        await place.hold(7)
        assert place.http2["accepted"] == 3
        assert place.http2["violations"] == 0


async def test_the_servers_limit_of_streams_is_kept(ca: ThrowAwayCa) -> None:
    async with site(ca) as place:
        place.simulator.connections.http2.streams = 10
        await place.hold(*range(35))

        assert place.transport.used()["h2"] == (4, 35)
        assert place.http2["violations"] == 0


async def test_a_server_that_allows_no_stream_gets_http_1_1(ca: ThrowAwayCa) -> None:
    async with site(ca) as place:
        place.simulator.connections.http2.streams = 0
        reply = await place.transport.send(place.request(0, "Sync"))

        assert reply.status == 200
        assert place.transport.used()["http/1.1"][0] == 1


async def test_a_request_given_up_is_held_no_longer_and_its_neighbours_are(
    ca: ThrowAwayCa, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eas_watcher.transport.http2.GOODBYE", SOON)
    async with site(ca) as place:
        await place.hold(1, 2)
        await place.held[1].give_up()

        assert place.simulator.held == 1
        await place.held[1].give_up()
        assert place.results == {}
        assert (place.http2["connections"], place.http2["resets"]) == (1, 1)


async def test_a_cancelled_request_resets_its_stream(ca: ThrowAwayCa) -> None:
    async with site(ca) as place:
        await place.hold(1)
        place.simulator.fail("user2", FailurePlan(Stall()))
        sending = asyncio.get_running_loop().create_task(place.transport.send(place.request(2, "Sync")))
        await until(lambda: place.simulator.records.requests["Sync"] == 1)
        sending.cancel()
        await until(lambda: place.http2["resets"] == 1)

        assert place.transport.used()["h2"] == (1, 1)


async def test_an_answer_that_is_late_ends_its_stream_only(ca: ThrowAwayCa) -> None:
    async with site(ca) as place:
        await place.hold(1)
        place.simulator.fail("user2", FailurePlan(Stall()))
        with pytest.raises(Unreachable, match="no answer in time") as late:
            await place.transport.send(place.request(2, "Sync", deadline=0.1))

        assert (late.value.reached, late.value.connection) == (True, 0)
        await until(lambda: place.http2["resets"] == 1)
        assert place.simulator.held == 1


async def test_a_graceful_goaway_moves_new_requests_and_lets_the_old_ones_end(ca: ThrowAwayCa) -> None:
    async with site(ca) as place:
        await place.hold(1, 2)
        place.simulator.connections.http2.go_away()
        await place.hold(3)
        assert sorted(place.simulator.connections.http2.shares) == [1, 2]
        for user in (1, 2):
            place.simulator.block(f"user{user}")
        await until(lambda: place.http2["connections"] == 1)

        assert all(isinstance(result, HttpReply) for result in place.results.values())


async def test_requests_that_goaway_leaves_out_were_not_processed(ca: ThrowAwayCa) -> None:
    async with site(ca) as place:
        await place.hold(1, 2, 3)
        place.simulator.connections.http2.go_away(graceful=False)
        await until(lambda: len(place.results) == 3)

        assert {(error.reached, error.stale, error.connection > 0) for error in place.errors()} == {
            (False, False, True)
        }
        assert len({error.connection for error in place.errors()}) == 1
        await until(lambda: place.transport.used()["h2"] == (0, 0))


async def test_a_lost_connection_is_one_connection_to_all_its_requests(ca: ThrowAwayCa) -> None:
    async with site(ca) as place:
        await place.hold(*range(STREAMS + 5))
        place.simulator.connections.drop()
        await until(lambda: len(place.results) == STREAMS + 5)

        errors = place.errors()
        assert {(error.reached, error.stale) for error in errors} == {(True, False)}
        counted = sorted([error.connection for error in errors].count(number) for number in (1, 2))
        assert counted == [5, STREAMS]
        assert place.transport.used() == {"http/1.1": (0, 0), "h2": (0, 0)}


async def test_a_connection_that_rested_and_is_lost_at_once_is_stale(ca: ThrowAwayCa) -> None:
    async with site(ca) as place:
        await place.transport.send(place.request(1, "Sync"))
        place.simulator.fail("user1", FailurePlan(Stall()))
        sending = asyncio.get_running_loop().create_task(place.transport.send(place.request(1, "Sync")))
        await until(lambda: place.simulator.records.requests["Sync"] == 2)
        place.simulator.connections.drop()
        with pytest.raises(Unreachable, match="connection lost") as lost:
            await sending

        assert (lost.value.stale, lost.value.connection) == (True, 0)


async def test_a_reset_stream_is_one_lost_request(ca: ThrowAwayCa) -> None:
    async with site(ca) as place:
        await place.hold(1)
        place.simulator.fail("user2", FailurePlan(Reset(INTERNAL_ERROR)))
        with pytest.raises(Unreachable, match="the server reset the request: INTERNAL_ERROR") as lost:
            await place.transport.send(place.request(2, "Sync"))

        assert (lost.value.reached, lost.value.connection) == (True, 0)
        assert place.simulator.held == 1


async def test_a_refused_stream_was_not_processed_and_is_not_repeated(ca: ThrowAwayCa) -> None:
    async with site(ca) as place:
        place.simulator.fail("user2", FailurePlan(Reset(REFUSED_STREAM)))
        with pytest.raises(Unreachable, match="did not take the request") as refused:
            await place.transport.send(place.request(2, "Sync"))

        assert not refused.value.reached
        assert refused.value.connection > 0
        assert place.simulator.records.requests["Sync"] == 1


WANTING: list[Failure] = [Reset(HTTP_1_1_REQUIRED), AnswerHttp(421)]


async def test_a_connection_that_does_not_speak_http_2_and_that_nobody_uses_ends(ca: ThrowAwayCa) -> None:
    async with site(ca, server=("http/1.1",)) as place:
        sending = asyncio.ensure_future(place.transport.send(place.request(1, "Sync")))
        await asyncio.sleep(0)
        sending.cancel()
        await until(lambda: place.transport.used()["http/1.1"][0] == 1)

        [carrier] = place.transport._all
        [waits] = place.transport._deadlines._slots.values()
        assert waits == {carrier}


@pytest.mark.parametrize("failure", WANTING, ids=["required", "421"])
async def test_a_request_for_which_the_server_wants_http_1_1_goes_out_so_and_so_do_the_next(
    ca: ThrowAwayCa, failure: Failure, caplog: pytest.LogCaptureFixture
) -> None:
    async with site(ca) as place:
        place.simulator.fail(None, FailurePlan(failure))
        with caplog.at_level(logging.WARNING):
            reply = await place.transport.send(place.request(1, "Sync"))
        assert reply.status == 200
        assert [record.message for record in caplog.records] == ["mail server gets HTTP/1.1 for an hour"]

        await place.hold(2)
        assert place.transport.used()["http/1.1"][1] == 1
        assert place.simulator.connections.state()["http/1.1"]["held"] == 1


@pytest.mark.parametrize("failure", WANTING, ids=["required", "421"])
async def test_a_held_request_for_which_the_server_wants_http_1_1_was_not_processed(
    ca: ThrowAwayCa, failure: Failure
) -> None:
    async with site(ca) as place:
        place.simulator.fail(None, FailurePlan(failure))
        await place.transport.hold(place.request(1), lambda result: place.results.update({1: result}))
        await until(lambda: place.results)

        (error,) = place.errors()
        assert (error.reached, error.connection > 0) == (False, True)


async def test_a_goaway_can_ask_for_http_1_1(ca: ThrowAwayCa) -> None:
    async with site(ca) as place:
        await place.hold(1)
        place.simulator.connections.http2.go_away(error=HTTP_1_1_REQUIRED, graceful=False)
        await until(lambda: place.results and place.simulator.held == 0)
        await place.hold(2)

        assert place.simulator.connections.state()["http/1.1"]["held"] == 1


@hurried
async def test_a_server_gets_another_chance_of_http_2_after_an_hour(ca: ThrowAwayCa) -> None:
    async with site(ca) as place:
        place.simulator.fail(None, FailurePlan(Reset(HTTP_1_1_REQUIRED)))
        await place.transport.send(place.request(1, "Sync"))
        assert place.transport.used()["h2"][1] == 0
        hurry(REMEMBERED + 1.0)
        await place.hold(2)

        assert place.transport.used()["h2"][1] == 1


CHOICES: list[tuple[tuple[str, ...], bool, bool]] = [
    (("http/1.1",), True, True),
    ((), True, True),
    (ALPN, False, True),
    (ALPN, True, False),
]


@pytest.mark.parametrize(
    ("server", "client", "reuse"), CHOICES, ids=["refused", "unknown", "not offered", "single use"]
)
async def test_http_1_1_is_spoken_where_one_side_does_not_choose_http_2(
    ca: ThrowAwayCa, server: tuple[str, ...], *, client: bool, reuse: bool
) -> None:
    async with site(ca, server=server, client=client, reuse=reuse) as place:
        await place.hold(1, 2, 3)

        assert place.simulator.connections.state()["http/1.1"] == {"connections": 3, "held": 3}
        assert place.http2["accepted"] == 0


async def test_another_tls_identity_shares_no_connection_and_speaks_http_1_1(ca: ThrowAwayCa) -> None:
    async with site(ca) as place:
        await place.hold(1)
        identified = ca.client_context()
        other = place.transport.with_tls(identified)
        assert (await other.send(place.request(2, "Sync"))).status == 200

        assert place.simulator.connections.state()["http/1.1"]["connections"] == 1
        assert place.http2["connections"] == 1


@hurried
async def test_a_server_that_falls_silent_is_found_dead_by_pings(ca: ThrowAwayCa) -> None:
    async with site(ca) as place:
        await place.hold(1, 2, deadline=10_000.0)
        for _ in range(20):
            hurry(TIMINGS.tick)
            await asyncio.sleep(0.01)
        assert place.http2["pings"] >= 1
        assert place.results == {}
        place.simulator.connections.http2.freeze()
        began = asyncio.get_running_loop().time()
        for _ in range(40):
            hurry(TIMINGS.tick)
            await asyncio.sleep(0.01)
            if place.results:
                break

        assert {str(error) for error in place.errors()} == {"connection lost: the server answers no PING"}
        silent = asyncio.get_running_loop().time() - began
        assert silent < TIMINGS.waiting + TIMINGS.pong + 4 * TIMINGS.tick


@hurried
async def test_a_connection_that_nobody_uses_is_closed(ca: ThrowAwayCa) -> None:
    async with site(ca) as place:
        await place.transport.send(place.request(1, "Sync"))
        assert place.http2["connections"] == 1
        for _ in range(20):
            hurry(TIMINGS.tick)
            await asyncio.sleep(0.01)

        assert place.http2["connections"] == 0
        assert place.transport.used()["h2"] == (0, 0)


async def test_bodies_have_limits_and_large_ones_pass_the_windows(ca: ThrowAwayCa) -> None:
    async with site(ca) as place:
        big = "x" * 1_500_000

        def plan(status: int) -> FailurePlan:
            return FailurePlan(AnswerHttp(status, {"X": "y"}, big))

        place.simulator.fail(None, plan(200))
        assert len((await place.transport.send(place.request(1, "Sync"))).body) == len(big)
        place.simulator.fail(None, plan(200))
        with pytest.raises(ProtocolViolation, match="longer than its limit"):
            await place.transport.send(place.request(1, "Sync", largest=100_000))
        place.simulator.fail(None, plan(503))
        reply = await place.transport.send(place.request(1, "Sync", largest=100_000))

        assert (reply.status, reply.body) == (503, b"")
        assert place.http2["accepted"] == 1


async def test_the_end_of_the_transport_ends_everything(ca: ThrowAwayCa) -> None:
    async with site(ca) as place:
        await place.hold(1)
        await place.transport.close()

        await until(lambda: place.simulator.held == 0)
        assert [str(error) for error in place.errors()] == ["connection closed"]
