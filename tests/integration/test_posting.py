"""POSTs to servers that answer in odd ways: plain sockets on loopback."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import aiohttp
import pytest

from eas_watcher.peer_clocks import PeerClocks
from relay.network.posting import LARGEST, Poster, Reply
from relay.network.route import DIRECT
from tests.waiting import until

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def parts(*answer: bytes) -> Answer:
    async def write(writer: asyncio.StreamWriter) -> None:
        for part in answer:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)

    return write


async def for_ever(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(10_000):
        writer.write(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
        await writer.drain()


async def ok_and_more(writer: asyncio.StreamWriter) -> None:
    writer.write(OK)
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.write(OK)


async def ok_and_goodbye(writer: asyncio.StreamWriter) -> None:
    writer.write(OK)
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.close()


async def nothing(_: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60.0)


class Server:
    """A server that keeps the requests and gives the answers in turn, then the last one again and again."""

    def __init__(self, answers: tuple[Answer, ...]) -> None:
        self.connections = 0
        self.open = 0
        self.requests: list[bytes] = []
        self._answers = answers

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head + await reader.readexactly(4))
                answer = self._answers[min(len(self.requests), len(self._answers)) - 1]
                await answer(writer)
                if b"Connection: close" in head:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def world(*answers: Answer, in_flight: int = 10, kept: float = 60.0) -> AsyncIterator[tuple[Server, Poster, str]]:
    server = Server(answers)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    poster = Poster(None, in_flight, DIRECT, kept=kept)
    try:
        yield server, poster, f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        await poster.close()
        listening.close()


async def test_a_request_is_written_as_http_wants_it() -> None:
    async with world(parts(OK)) as (server, poster, url):
        reply = await poster.post(f"{url}/a%20b/c:d?e=%2F", {"X-One": "1", "X-Two": "two words"}, b"body")

        assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"ok", "2")
        host = url.removeprefix("http://")
        assert server.requests == [
            f"POST /a%20b/c:d?e=%2F HTTP/1.1\r\nHost: {host}\r\nUser-Agent: push-relay\r\n"
            "X-One: 1\r\nX-Two: two words\r\nContent-Length: 4\r\n\r\nbody".encode()
        ]


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (
            parts(b"HTTP/1.1 200 OK\r\nTransfer-Enc", b"oding: chunked\r\n\r\n2\r\na", b"b\r\n1\r\nc\r\n0\r\n\r\n"),
            200,
            b"abc",
        ),
        (parts(b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK), 200, b"ok"),
        (parts(b"HTTP/1.1 204 No Content\r\n\r\n"), 204, b""),
        (parts(b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n"), 302, b""),
        (parts(b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 1\r\n\r\n!"), 503, b"!"),
    ],
)
async def test_answers_of_any_form_are_read_and_the_connection_is_used_again(
    answer: Answer, status: int, body: bytes
) -> None:
    async with world(answer, parts(OK)) as (server, poster, url):
        first = await poster.post(f"{url}/", {}, b"body")
        second = await poster.post(f"{url}/", {}, b"body")

        assert (first.status, first.body) == (status, body)
        assert (second.status, second.body) == (200, b"ok")
        assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        parts(b"SSH-2.0-OpenSSH_9.2\r\n"),
        parts(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"),
        parts(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        parts(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n"),
        parts(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"),
    ],
)
async def test_bytes_that_are_no_answer_raise_a_client_error_and_end_the_connection(answer: Answer) -> None:
    async with world(answer, parts(OK)) as (server, poster, url):
        with pytest.raises(aiohttp.ClientError):
            await poster.post(f"{url}/", {}, b"body")

        assert await poster.post(f"{url}/", {}, b"body") == Reply(200, {"Content-Length": "2"}, b"ok")
        assert server.connections == 2


async def test_an_answer_without_end_is_read_up_to_the_limit() -> None:
    async with world(for_ever, parts(OK)) as (server, poster, url):
        reply = await poster.post(f"{url}/", {}, b"body")

        assert LARGEST < len(reply.body) < 20 * LARGEST
        assert (await poster.post(f"{url}/", {}, b"body")).body == b"ok"
        assert server.connections == 2


@pytest.mark.both_loops
async def test_a_cancelled_request_leaves_no_answer_for_the_next_one() -> None:
    async with world(parts(b""), parts(OK)) as (server, poster, url):
        cancelled = asyncio.ensure_future(poster.post(f"{url}/", {}, b"body"))
        await until(lambda: len(server.requests) == 1)
        cancelled.cancel()
        await asyncio.wait([cancelled])

        assert (await poster.post(f"{url}/", {}, b"body")).body == b"ok"
        assert server.connections == 2


@pytest.mark.parametrize("url", ["ftp://localhost/", "/no/host", "http://localhost/a b", "http://localhost/a\r\nX: y"])
async def test_an_invalid_url_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(aiohttp.InvalidURL):
        await Poster(None, 10, DIRECT).post(url, {}, b"")


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "\x00", "ü"])
async def test_a_header_that_would_become_two_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="header"):
        await Poster(None, 10, DIRECT).post("http://localhost/", {"X": value}, b"")


async def test_no_more_connections_are_open_at_once_than_allowed_and_requests_wait_for_one() -> None:
    async with world(parts(b"HTTP/1.1 200 OK\r\n", OK.partition(b"\r\n")[2]), in_flight=3) as (server, poster, url):
        replies = await asyncio.gather(*(poster.post(f"{url}/", {}, b"body") for _ in range(12)))

        assert [reply.status for reply in replies] == [200] * 12
        assert server.connections == 3


async def test_a_cancelled_request_that_waits_for_a_connection_leaves_it_to_the_next() -> None:
    async with world(parts(OK), in_flight=1) as (server, poster, url):
        tasks = [asyncio.ensure_future(poster.post(f"{url}/", {}, b"body")) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()

        assert (await tasks[2]).body == b"ok"
        assert server.connections == 1


@pytest.mark.parametrize("answer", [ok_and_more, ok_and_goodbye])
async def test_a_kept_connection_that_the_server_closed_or_spoke_on_unasked_is_not_used_again(answer: Answer) -> None:
    async with world(answer, parts(OK)) as (server, poster, url):
        await poster.post(f"{url}/", {}, b"body")
        (pool,) = poster._pools.values()
        ((kept, _),) = pool.idle
        await until(lambda: kept.should_close)

        assert (await poster.post(f"{url}/", {}, b"body")).body == b"ok"
        assert server.connections == 2


async def test_a_connection_is_closed_after_its_time_without_traffic_and_the_host_forgotten() -> None:
    async with world(parts(OK), kept=0.05) as (server, poster, url):
        await poster.post(f"{url}/", {}, b"body")
        assert (server.open, len(poster._pools)) == (1, 1)

        await until(lambda: server.open == 0)
        assert not poster._pools

        assert (await poster.post(f"{url}/", {}, b"body")).body == b"ok"
        assert server.connections == 2


async def test_a_host_that_cannot_be_reached_is_forgotten() -> None:
    async with world(parts(OK)) as (_, poster, _):
        with pytest.raises(OSError, match=r".+"):
            await poster.post("http://127.0.0.1:1/", {}, b"body")

        assert not poster._pools


async def test_closing_ends_the_requests_in_flight_and_those_that_wait() -> None:
    async with world(nothing, in_flight=2) as (server, poster, url):
        requests = [asyncio.ensure_future(poster.post(f"{url}/", {}, b"body")) for _ in range(4)]
        await until(lambda: len(server.requests) == 2)
        await poster.close()

        ends = await asyncio.gather(*requests, return_exceptions=True)
        assert all(isinstance(end, aiohttp.ClientConnectionError) for end in ends)
        with pytest.raises(aiohttp.ClientConnectionError):
            await poster.post(f"{url}/", {}, b"body")
        assert not poster._pools


async def test_the_date_of_an_answer_shows_how_far_the_clock_of_this_host_is_off() -> None:
    clocks = PeerClocks(lambda: datetime(2026, 11, 28, 12, 30, tzinfo=UTC))
    dated = b"HTTP/1.1 200 OK\r\nDate: Sat, 28 Nov 2026 12:00:00 GMT\r\nContent-Length: 4\r\n\r\nokok"
    async with world(parts(dated)) as (_, _, url):
        poster = Poster(None, 1, DIRECT, clocks=clocks)
        await poster.post(url, {}, b"body")
        await poster.close()

    assert clocks.differences() == {"127.0.0.1": 1800.0}
