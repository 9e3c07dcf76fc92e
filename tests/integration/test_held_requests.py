"""Held requests over real sockets: state that waits, without a task, until an answer, a deadline or an end comes."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator

import pytest

from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import EasError, ProtocolViolation, Unreachable
from eas_watcher.transport.http import HttpTransport, open_transport
from tests.fakes.tls import Authority, read_request, talking
from tests.integration.test_http_transport import HELLO, post
from tests.waiting import SOON, until

pytestmark = pytest.mark.both_loops


class Server:
    """Answer each request when told, and note how connections end."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer = asyncio.Event()
        self.bytes = HELLO
        self.ends = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await read_request(reader)
                self.asked += 1
                await self.answer.wait()
                writer.write(self.bytes)
                await writer.drain()
        except asyncio.IncompleteReadError:
            self.ends += 1


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def transport(authority: Authority) -> AsyncIterator[HttpTransport]:
    async with open_transport(authority.client) as opened:
        yield opened


async def test_no_task_waits_and_the_answer_is_reported_once(authority: Authority, transport: HttpTransport) -> None:
    server, reported = Server(), list[HttpReply | Exception]()
    async with talking(authority, server.talk) as url:
        held = [await transport.hold(post(url), reported.append) for _ in range(3)]
        await until(lambda: server.asked == 3)
        clients = {task for task in asyncio.all_tasks() if "connected" not in repr(task.get_coro())}
        server.answer.set()
        await until(lambda: len(reported) == 3)
        for each in held:
            await each.give_up()

    assert clients == {asyncio.current_task()}
    assert [reply.body for reply in reported if isinstance(reply, HttpReply)] == [b"hello"] * 3


async def test_the_server_sees_at_once_that_a_request_is_given_up(
    authority: Authority, transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eas_watcher.transport.tls_connection.GOODBYE", SOON)
    reported = list[HttpReply | Exception]()
    ended = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        arrived.set()
        await reader.read()
        ended.set()

    arrived = asyncio.Event()
    async with talking(authority, talk) as url:
        held = await transport.hold(post(url), reported.append)
        await arrived.wait()
        await held.give_up()
        assert ended.is_set()
        await held.give_up()

    assert reported == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [(b"", Unreachable), (HELLO[:-1], Unreachable), (b"hello\r\n\r\n", ProtocolViolation)],
    ids=["nothing", "half", "garbage"],
)
async def test_the_failure_of_a_held_request_is_reported_once(
    authority: Authority, transport: HttpTransport, answer: bytes, error: type[EasError]
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await writer.drain()

    reported = list[HttpReply | Exception]()
    async with talking(authority, talk) as url:
        held = await transport.hold(post(url), reported.append)
        await until(lambda: bool(reported))
        await held.give_up()

    assert [type(each) for each in reported] == [error]


async def test_a_deadline_ends_a_held_request(authority: Authority, transport: HttpTransport) -> None:
    server, reported = Server(), list[HttpReply | Exception]()
    async with talking(authority, server.talk) as url:
        await transport.hold(post(url, deadline=0.5), reported.append)
        await until(lambda: bool(reported))
        await until(lambda: server.asked == 1)
        server.answer.set()

    assert isinstance(reported[0], Unreachable)
    assert "no answer in time" in str(reported[0])
    assert transport._all == set()


async def test_a_request_that_cannot_be_sent_is_reported_by_an_exception_alone(transport: HttpTransport) -> None:
    reported = list[HttpReply | Exception]()
    with pytest.raises(ProtocolViolation):
        await transport.hold(HttpRequest("POST", "https://", {}, b"", 30.0), reported.append)
    with pytest.raises(Unreachable):
        await transport.hold(post("https://127.0.0.1:1"), reported.append)

    assert reported == []


async def test_an_unused_connection_ends_by_itself(
    authority: Authority, transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eas_watcher.transport.http1.KEEP_IDLE", 0.1)
    server = Server()
    server.answer.set()
    async with talking(authority, server.talk) as url:
        await transport.send(post(url))
        assert len(transport._all) == 1
        await until(lambda: server.ends == 1)

    assert transport._all == set()


async def test_the_deadline_of_an_unused_connection_does_not_end_its_next_request(
    authority: Authority, transport: HttpTransport
) -> None:
    server, reported = Server(), list[HttpReply | Exception]()
    server.answer.set()
    async with talking(authority, server.talk) as url:
        await transport.send(post(url))
        [carrier] = transport._all
        unused = carrier._slot
        server.answer.clear()
        await transport.hold(post(url), reported.append)
        carrier.expire(unused)  # the wheel had turned before the request began
        server.answer.set()
        await until(lambda: bool(reported))

    assert isinstance(reported[0], HttpReply)


async def test_what_is_held_when_the_transport_closes_is_lost(authority: Authority) -> None:
    server, reported = Server(), list[HttpReply | Exception]()
    async with talking(authority, server.talk) as url:
        async with open_transport(authority.client) as transport:
            await transport.hold(post(url), reported.append)
            await until(lambda: server.asked == 1)
        assert transport._all == set()

    assert [str(each) for each in reported] == ["connection lost: the relay closed it"]


async def test_nothing_of_a_connection_waits_for_the_garbage_collector(
    authority: Authority, transport: HttpTransport
) -> None:
    server, reported = Server(), list[HttpReply | Exception]()
    gc.disable()
    try:
        async with talking(authority, server.talk) as url:
            held = await transport.hold(post(url), reported.append)
            [carrier] = transport._all
            tls = weakref.ref(carrier._connection._tls)  # type: ignore[attr-defined]  # it has TLS
            del carrier
            await until(lambda: server.asked == 1)
            await held.give_up()
            del held
            assert tls() is None
    finally:
        gc.enable()
