"""What every transport must do, shown for the one that speaks HTTP and for the scripted one that tests use."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from aiohttp import web
from multidict import CIMultiDict

from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import ProtocolViolation, Unreachable
from eas_watcher.ports import Transport
from eas_watcher.transport.http import open_transport
from tests.fakes.eas import ScriptedTransport
from tests.fakes.tls import Authority, read_request, serving, talking
from tests.waiting import until

ANSWERS = [
    HttpReply(200, {"content-type": "application/vnd.ms-sync.wbxml"}, b"\x03\x01"),
    HttpReply(200, {}, b""),
    HttpReply(401, {"www-authenticate": "Basic"}, b"", ("a=1; path=/", "b=2")),
    HttpReply(302, {"location": "/login"}, b""),
    HttpReply(503, {"retry-after": "60"}, b"busy"),
]


class Scripted:
    """Bring each situation about with a script."""

    @asynccontextmanager
    async def answering(self, reply: HttpReply) -> AsyncIterator[tuple[Transport, str]]:
        yield ScriptedTransport(reply), "https://mail.example.com"

    @asynccontextmanager
    async def cutting(self) -> AsyncIterator[tuple[Transport, str]]:
        yield ScriptedTransport(Unreachable("x")), "https://mail.example.com"

    @asynccontextmanager
    async def babbling(self) -> AsyncIterator[tuple[Transport, str]]:
        yield ScriptedTransport(ProtocolViolation("x")), "https://mail.example.com"

    @asynccontextmanager
    async def holding(self) -> AsyncIterator[tuple[Transport, str, asyncio.Event]]:
        transport = ScriptedTransport()
        yield transport, "https://mail.example.com", transport.held


class Http:
    """Bring each situation about with a server on loopback."""

    reuse = True

    def __init__(self) -> None:
        self._authority = Authority()

    def _open(self) -> AbstractAsyncContextManager[Transport]:
        return open_transport(self._authority.client, reuse=self.reuse)

    @asynccontextmanager
    async def answering(self, reply: HttpReply) -> AsyncIterator[tuple[Transport, str]]:
        async def answer(_: web.Request) -> web.Response:
            headers = CIMultiDict(reply.headers)
            for cookie in reply.set_cookies:
                headers.add("Set-Cookie", cookie)
            return web.Response(status=reply.status, headers=headers, body=reply.body)

        async with serving(self._authority, answer) as url, self._open() as transport:
            yield transport, url

    @asynccontextmanager
    async def cutting(self) -> AsyncIterator[tuple[Transport, str]]:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)

        async with talking(self._authority, talk) as url, self._open() as transport:
            yield transport, url

    @asynccontextmanager
    async def babbling(self) -> AsyncIterator[tuple[Transport, str]]:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(b"hello\r\n\r\n")
            await reader.read()

        async with talking(self._authority, talk) as url, self._open() as transport:
            yield transport, url

    @asynccontextmanager
    async def holding(self) -> AsyncIterator[tuple[Transport, str, asyncio.Event]]:
        held = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            held.set()
            await reader.read()

        async with talking(self._authority, talk) as url, self._open() as transport:
            yield transport, url, held


class SingleUseHttp(Http):
    """The same with a connection for each request."""

    reuse = False


@pytest.fixture(params=[Scripted, Http, SingleUseHttp])
def situations(request: pytest.FixtureRequest) -> Scripted | Http:
    made: Scripted | Http = request.param()
    return made


def post(url: str) -> HttpRequest:
    return HttpRequest("POST", url, {"User-Agent": "PushRelay/1"}, b"\x03\x01", 30.0)


@pytest.mark.parametrize("reply", ANSWERS)
async def test_any_answer_is_returned_whole(situations: Scripted | Http, reply: HttpReply) -> None:
    async with situations.answering(reply) as (transport, url):
        got = await transport.send(post(url))

    assert (got.status, got.body, got.set_cookies) == (reply.status, reply.body, reply.set_cookies)
    assert reply.headers.items() <= got.headers.items()


async def test_a_cut_is_unreachable_and_may_have_reached_the_server(situations: Scripted | Http) -> None:
    async with situations.cutting() as (transport, url):
        with pytest.raises(Unreachable) as caught:
            await transport.send(post(url))

    assert caught.value.reached


async def test_what_is_no_answer_breaks_the_protocol(situations: Scripted | Http) -> None:
    async with situations.babbling() as (transport, url):
        with pytest.raises(ProtocolViolation):
            await transport.send(post(url))


async def test_a_held_request_ends_when_it_is_cancelled(situations: Scripted | Http) -> None:
    async with situations.holding() as (transport, url, held), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(transport.send(post(url)))
        async with asyncio.timeout(10):
            await held.wait()
        task.cancel()

    assert task.cancelled()


@pytest.mark.parametrize("reply", ANSWERS[:2])
async def test_the_answer_to_a_held_request_is_reported_once(situations: Scripted | Http, reply: HttpReply) -> None:
    reported: list[HttpReply | Exception] = []
    async with situations.answering(reply) as (transport, url):
        held = await transport.hold(post(url), reported.append)
        await until(lambda: bool(reported))
        await held.give_up()

    [got] = reported
    assert isinstance(got, HttpReply)
    assert (got.status, got.body) == (reply.status, reply.body)


async def test_the_failure_of_a_held_request_is_reported(situations: Scripted | Http) -> None:
    reported: list[HttpReply | Exception] = []
    async with situations.cutting() as (transport, url):
        await transport.hold(post(url), reported.append)
        await until(lambda: bool(reported))

    assert isinstance(reported[0], Unreachable)


async def test_a_held_request_that_is_given_up_reports_nothing(situations: Scripted | Http) -> None:
    reported: list[HttpReply | Exception] = []
    async with situations.holding() as (transport, url, held):
        request = await transport.hold(post(url), reported.append)
        async with asyncio.timeout(10):
            await held.wait()
        await request.give_up()

    assert reported == []
