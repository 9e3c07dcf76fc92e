"""Play odd servers to the POSTs of providers: plain sockets on loopback."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest

from relay.network.posting import LARGEST, Poster, Reply
from relay.network.route import DIRECT

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


class Server:
    """Count connections, keep requests, and give the answers in turn; the last one again and again."""

    def __init__(self, answers: tuple[Answer, ...]) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self._answers = answers

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
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
            writer.close()


@asynccontextmanager
async def world(*answers: Answer) -> AsyncIterator[tuple[Server, Poster, str]]:
    server = Server(answers)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    poster = Poster(None, 10, DIRECT)
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
async def test_what_is_no_answer_is_an_error_of_the_client_and_ends_the_connection(answer: Answer) -> None:
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
async def test_a_request_given_up_leaves_no_answer_for_the_next_one() -> None:
    async with world(parts(b""), parts(OK)) as (server, poster, url):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await poster.post(f"{url}/", {}, b"body")

        assert (await poster.post(f"{url}/", {}, b"body")).body == b"ok"
        assert server.connections == 2


@pytest.mark.parametrize("url", ["ftp://localhost/", "/no/host", "http://localhost/a b", "http://localhost/a\r\nX: y"])
async def test_a_url_that_is_none_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(aiohttp.InvalidURL):
        await Poster(None, 10, DIRECT).post(url, {}, b"")


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "\x00", "ü"])
async def test_a_header_that_would_be_two_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="header"):
        await Poster(None, 10, DIRECT).post("http://localhost/", {"X": value}, b"")
