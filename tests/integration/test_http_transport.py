"""The HTTP transport over real sockets and TLS: its answers, and its error for each failure."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from multidict import CIMultiDict

from eas_watcher.commands.request import LARGE, SMALL, HttpRequest
from eas_watcher.errors import ProtocolViolation, Unreachable
from eas_watcher.transport.connecting import TCP_IDLE, TCP_INTERVAL, TCP_PROBES, UNACKNOWLEDGED
from eas_watcher.transport.http import HttpTransport, open_transport
from eas_watcher.transport.http1 import STALE, Http1Connection
from eas_watcher.transport.tls_connection import Dialler
from relay.sandbox.eas.server import open_eas_simulator
from tests.fakes.tls import HOST, Authority, read_request, serving, talking
from tests.integration.eas_world import hurried, hurry
from tests.ports import free_port

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def transport(authority: Authority) -> AsyncIterator[HttpTransport]:
    async with open_transport(authority.client) as opened:
        yield opened


def post(url: str, body: bytes = b"\x03\x01", deadline: float = 30.0, **headers: str) -> HttpRequest:
    return HttpRequest("POST", url, headers, body, deadline)


async def test_returns_the_whole_answer_with_header_names_in_lower_case(
    authority: Authority, transport: HttpTransport
) -> None:
    async def answer(request: web.Request) -> web.Response:
        assert await request.read() == b"\x03\x01"
        return web.Response(status=507, headers={"Retry-After": "7", "X-MS-RP": "1"}, body=b"\x03full")

    async with serving(authority, answer) as url:
        reply = await transport.send(post(url))

    assert (reply.status, reply.body, reply.set_cookies) == (507, b"\x03full", ())
    assert (reply.headers["retry-after"], reply.headers["x-ms-rp"]) == ("7", "1")


async def test_asks_without_tls_where_the_url_says_so(transport: HttpTransport) -> None:
    async with open_eas_simulator(tls=None) as simulator:
        simulator.add_mailbox("ann@example.com", "secret")
        url = simulator.url.replace("/Microsoft-Server-ActiveSync", "/autodiscover/autodiscover.json")
        question = f"{url}?Email=ann%40example.com&Protocol=ActiveSync"
        reply = await transport.send(HttpRequest("GET", question, {}, b"", 30.0))

    assert reply.status == 200
    assert simulator.url.encode() in reply.body


async def test_sends_the_url_as_it_is_and_no_headers_of_its_own(authority: Authority, transport: HttpTransport) -> None:
    seen: list[tuple[str, set[str]]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.raw_path, {name.lower() for name in request.headers}))
        return web.Response()

    async with serving(authority, answer) as url:
        await transport.send(post(f"{url}/eas?User=EXAMPLE%5Cann%2Bb%20c&x=%41", Authorization="Basic eA=="))
        await transport.send(HttpRequest("OPTIONS", f"{url}/eas", {"User-Agent": "PushRelay/1"}, b"", 30.0))

    assert seen == [
        ("/eas?User=EXAMPLE%5Cann%2Bb%20c&x=%41", {"host", "authorization", "content-length"}),
        ("/eas", {"host", "user-agent"}),
    ]


async def test_a_header_that_comes_twice_is_one_list(authority: Authority, transport: HttpTransport) -> None:
    async def answer(_: web.Request) -> web.Response:
        versions = CIMultiDict([("MS-ASProtocolVersions", "2.5,14.0"), ("MS-ASProtocolVersions", "14.1,16.1")])
        commands = CIMultiDict([("MS-ASProtocolCommands", "Sync"), ("MS-ASProtocolCommands", "Ping")])
        return web.Response(headers=CIMultiDict([*versions.items(), *commands.items()]))

    async with serving(authority, answer) as url:
        reply = await transport.send(post(url))

    assert reply.headers["ms-asprotocolversions"] == "2.5,14.0,14.1,16.1"
    assert reply.headers["ms-asprotocolcommands"] == "Sync,Ping"


async def test_returns_cookies_and_keeps_none(authority: Authority, transport: HttpTransport) -> None:
    sent: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        sent.append(request.headers.get("Cookie"))
        return web.Response(headers=CIMultiDict([("Set-Cookie", "a=1; path=/"), ("Set-Cookie", "b=2; HttpOnly")]))

    async with serving(authority, answer) as url:
        first = await transport.send(post(url))
        await transport.send(post(url))

    assert first.set_cookies == ("a=1; path=/", "b=2; HttpOnly")
    assert sent == [None, None]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_follows_no_redirect(authority: Authority, transport: HttpTransport, status: int) -> None:
    paths: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.Response(status=status, headers={"Location": "/login"})

    async with serving(authority, answer) as url:
        reply = await transport.send(post(f"{url}/eas"))

    assert (reply.status, reply.headers["location"], paths) == (status, "/login", ["/eas"])


async def test_one_connection_carries_request_after_request(authority: Authority, transport: HttpTransport) -> None:
    connections: list[int] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(0)
        for _ in range(2):
            await read_request(reader)
            connections[-1] += 1
            writer.write(HELLO)
        await reader.read()

    async with talking(authority, talk) as url:
        assert (await transport.send(post(url))).body == b"hello"
        assert (await transport.send(post(url))).body == b"hello"

    assert connections == [2]


async def test_an_answer_that_takes_too_long_is_given_up(authority: Authority, transport: HttpTransport) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with talking(authority, talk) as url:
        with pytest.raises(Unreachable, match="in time") as caught:
            await transport.send(post(url, deadline=0.5))

    assert caught.value.reached
    assert 0.5 <= caught.value.survived < 10.0


async def test_a_body_that_takes_too_long_is_given_up(authority: Authority, transport: HttpTransport) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(HELLO[:-2])
        await reader.read()

    async with talking(authority, talk) as url:
        with pytest.raises(Unreachable, match="in time"):
            await transport.send(post(url, deadline=0.5))


async def test_a_refused_connection_is_certain_not_to_have_reached_the_server(transport: HttpTransport) -> None:
    with pytest.raises(Unreachable) as caught:
        await transport.send(post(f"https://{HOST}:{free_port()}"))

    assert (caught.value.reached, caught.value.survived) == (False, 0.0)


async def test_a_handshake_that_takes_too_long_has_not_reached_the_server(transport: HttpTransport) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with talking(None, accept) as url:
        with pytest.raises(Unreachable, match="no connection in time") as caught:
            await transport.send(post(url, deadline=0.2))

    assert not caught.value.reached


async def test_nothing_is_sent_after_the_deadline(
    authority: Authority, transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    dial, heard = Dialler.dial, list[bytes]()

    async def dial_late(self: Dialler, *args: Any, **options: Any) -> Http1Connection:
        carrier: Http1Connection = await dial(self, *args, **options)
        time.sleep(0.6)  # noqa: ASYNC251  # so that the loop cannot end the wait
        return carrier

    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())

    monkeypatch.setattr(Dialler, "dial", dial_late)
    async with talking(authority, talk) as url:
        with pytest.raises(Unreachable, match="no connection in time") as caught:
            await transport.send(post(url, deadline=0.5))

    assert not caught.value.reached
    assert not b"".join(heard)


@pytest.mark.parametrize("answered", [b"", HELLO[:20], HELLO[:-2]])
async def test_a_connection_cut_before_the_end_of_the_answer(
    authority: Authority, transport: HttpTransport, answered: bytes
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answered)
        await writer.drain()

    async with talking(authority, talk) as url:
        with pytest.raises(Unreachable, match="connection lost") as caught:
            await transport.send(post(url))

    assert caught.value.reached


async def test_the_error_says_how_long_a_request_was_held_before_the_cut(
    authority: Authority, transport: HttpTransport
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await asyncio.sleep(0.3)

    async with talking(authority, talk) as url:
        with pytest.raises(Unreachable) as caught:
            await transport.send(post(url))

    assert 0.29 <= caught.value.survived < 10.0


@pytest.mark.both_loops
@pytest.mark.parametrize("method", ["POST", "OPTIONS"])
async def test_a_request_is_not_repeated_when_a_kept_connection_turns_out_dead(
    authority: Authority, transport: HttpTransport, method: str
) -> None:
    requests: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await read_request(reader))
        writer.write(HELLO)
        requests.append(await read_request(reader))

    async with talking(authority, talk) as url:
        await transport.send(post(url))
        with pytest.raises(Unreachable) as caught:
            await transport.send(HttpRequest(method, url, {}, b"", 30.0))

    assert len(requests) == 2
    assert (caught.value.reached, caught.value.stale) == (True, True)


@pytest.mark.parametrize(
    ("earlier", "answer", "seconds"),
    [(0, b"", 0.0), (1, b"H", 0.0), (1, b"HTTP/1.1 200 OK\r\n", 0.0), (1, b"", STALE)],
    ids=["a fresh connection", "a byte", "half an answer", "a long hold"],
)
@hurried
async def test_a_lost_connection_is_stale_only_if_it_was_kept_and_closed_at_once_without_a_byte(
    authority: Authority, earlier: int, answer: bytes, seconds: float
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(earlier):
            await read_request(reader)
            writer.write(HELLO)
        await read_request(reader)
        hurry(seconds)
        writer.write(answer)

    async with open_transport(authority.client) as transport, talking(authority, talk) as url:
        for _ in range(earlier):
            await transport.send(post(url))
        with pytest.raises(Unreachable) as caught:
            await transport.send(post(url))

    assert not caught.value.stale


async def test_a_certificate_that_is_not_trusted_gets_no_request(authority: Authority) -> None:
    reached: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        reached.append(request)
        return web.Response()

    async with serving(authority, answer) as url, open_transport(Authority().client) as stranger:
        with pytest.raises(Unreachable, match="certificate not trusted") as caught:
            await stranger.send(post(url, Authorization="Basic eA=="))

    assert not caught.value.reached
    assert reached == []


async def test_without_an_authority_of_its_own_it_trusts_those_of_the_system(authority: Authority) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response()

    async with serving(authority, answer) as url, open_transport() as cautious:
        with pytest.raises(Unreachable, match="certificate not trusted"):
            await cautious.send(post(url))


async def test_speaks_tls_only_where_the_peer_does(transport: HttpTransport) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HELLO)
        await reader.read()

    async with talking(None, plain) as url:
        with pytest.raises(Unreachable) as caught:
            await transport.send(post(url))

    assert not caught.value.reached


async def test_reads_a_body_of_8_mib(authority: Authority, transport: HttpTransport) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=bytes(LARGE))

    async with serving(authority, answer) as url:
        assert len((await transport.send(replace(post(url), largest=LARGE))).body) == LARGE


async def test_refuses_a_larger_body_before_it_is_read(authority: Authority, transport: HttpTransport) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (SMALL + 1))
        await reader.read()

    async with talking(authority, talk) as url:
        with pytest.raises(ProtocolViolation, match="larger than 256 KiB"):
            await transport.send(post(url))


async def test_refuses_an_endless_body(authority: Authority, transport: HttpTransport) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
            await writer.drain()

    async with talking(authority, talk) as url:
        with pytest.raises(ProtocolViolation, match="larger than 256 KiB"):
            await transport.send(post(url))


@pytest.mark.parametrize("garbage", [b"220 mail.example.com ESMTP\r\n", b"\x00\xff" * 20 + b"\r\n\r\n", b"{}\r\n\r\n"])
async def test_bytes_that_are_no_http_break_the_protocol(
    authority: Authority, transport: HttpTransport, garbage: bytes
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(garbage)
        await reader.read()

    async with talking(authority, talk) as url:
        with pytest.raises(ProtocolViolation, match="not HTTP"):
            await transport.send(post(url))


async def test_an_invalid_url_breaks_the_protocol(transport: HttpTransport) -> None:
    with pytest.raises(ProtocolViolation):
        await transport.send(post("https://"))


async def test_a_held_connection_notices_a_peer_that_vanished(authority: Authority, transport: HttpTransport) -> None:
    arrived = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        arrived.set()
        await reader.read()

    async with talking(authority, talk) as url, asyncio.TaskGroup() as tasks:
        held = tasks.create_task(transport.send(post(url)))
        await arrived.wait()
        [carrier] = transport._all
        assert carrier._connection._transport is not None
        sock = carrier._connection._transport.get_extra_info("socket")
        options = [
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            *(
                sock.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            ),
        ]
        held.cancel()

    assert options == [1, TCP_IDLE, TCP_INTERVAL, TCP_PROBES, UNACKNOWLEDGED]


async def test_a_cancelled_request_closes_its_connection(authority: Authority, transport: HttpTransport) -> None:
    arrived, closed = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        arrived.set()
        try:
            await reader.read()
        finally:
            closed.set()

    async with talking(authority, talk) as url:
        async with asyncio.TaskGroup() as tasks:
            held = tasks.create_task(transport.send(post(url)))
            await arrived.wait()
            held.cancel()
        async with asyncio.timeout(10):
            await closed.wait()

    assert held.cancelled()


async def test_connections_come_from_the_source_addresses_in_turn(authority: Authority) -> None:
    peers: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        peers.append(request.remote)
        return web.Response()

    async with (
        serving(authority, answer) as url,
        open_transport(authority.client, reuse=False, sources=["127.0.0.2", "127.0.0.3"]) as transport,
    ):
        for _ in range(3):
            await transport.send(post(url))

    assert peers == ["127.0.0.2", "127.0.0.3", "127.0.0.2"]


async def test_the_error_names_a_source_address_of_another_host(authority: Authority) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response()

    async with (
        serving(authority, answer) as url,
        open_transport(authority.client, sources=["192.0.2.1"]) as transport,
    ):
        with pytest.raises(Unreachable, match=r"192\.0\.2\.1"):
            await transport.send(post(url))


@pytest.mark.both_loops
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 5000, "interim answers"),
        (b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\n" * 5000, "interim answers"),
        (b"HTTP/1.1 103 Early Hints\nLink: </x>\n\n" * 5000, "interim answers"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-More: of the same\r\n" * 5000, "head of the answer is larger"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "more than 128 lines"),
        (b"HTTP/1.1 200 OK\r\nSet-Cookie: " + b"\\" * 100_000, "head of the answer is larger"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 120_000,
            "too large|too many chunks",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 2_000_000, "not HTTP"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"T: x\r\n" * 500_000,
            "head of the answer is larger",
        ),
    ],
    ids=["100", "102", "103", "head", "lines", "cookie", "tiny chunks", "chunk extension", "trailers"],
)
async def test_an_answer_beyond_a_limit_breaks_the_protocol_and_the_connection(
    authority: Authority, transport: HttpTransport, answer: bytes, error: str
) -> None:
    ended = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        try:
            await reader.read()
        finally:
            ended.set()

    async with talking(authority, talk) as url:
        with pytest.raises(ProtocolViolation, match=error):
            await transport.send(post(url))
        async with asyncio.timeout(10):
            await ended.wait()


async def test_some_interim_answers_may_come_before_the_answer(authority: Authority, transport: HttpTransport) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await read_request(reader)
            for _ in range(3):
                writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" + HELLO)
        await reader.read()

    async with talking(authority, talk) as url:
        assert (await transport.send(post(url))).body == b"hello"
        assert (await transport.send(post(url))).body == b"hello"


@pytest.mark.both_loops
async def test_a_kept_connection_on_which_bytes_come_unasked_is_cut(
    authority: Authority, transport: HttpTransport
) -> None:
    cut = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(HELLO)
        await asyncio.sleep(0.1)
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            await reader.read()
        finally:
            cut.set()

    async with talking(authority, talk) as url:
        await transport.send(post(url))
        async with asyncio.timeout(10):
            await cut.wait()


async def test_the_body_of_an_error_that_is_too_large_is_left_out(
    authority: Authority, transport: HttpTransport
) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=503, headers={"Retry-After": "7"}, body=bytes(SMALL + 1))

    async with serving(authority, answer) as url:
        reply = await transport.send(post(url))

    assert (reply.status, reply.headers["retry-after"], reply.body) == (503, "7", b"")
