import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, web

from relay.http.listeners import open_listener

CANARY = "canary-hunter2"
POST = "POST / HTTP/1.1\r\nHost: relay\r\nContent-Type: application/json\r\n"
NO_HTTP = [
    f'{{"password": "{CANARY}"}}\r\n\r\n',  # a body longer than its Content-Length
    f"GET / HTTP/1.1\r\nHost: relay\r\nAuthorization {CANARY}\r\n\r\n",
    f"GET /{CANARY}\x1b[31m HTTP/1.1\r\nHost: relay\r\n\r\n",
    f"{POST}Transfer-Encoding: chunked\r\n\r\n{CANARY}\r\n",
    f"{POST}Transfer-Encoding: chunked, {CANARY}\r\nContent-Length: 2\r\n\r\n{{}}",
    f"GET / HTTP/1.1\r\nHost: relay\r\nX-Long: {CANARY * 1000}\r\n\r\n",
    f"{POST}Expect: {CANARY}\r\nContent-Length: 2\r\n\r\n{{}}",
    f"GET /nowhere HTTP/1.1\r\nHost: relay\r\nExpect: {CANARY}\r\n\r\n",
]


async def echo(request: web.Request) -> web.Response:
    return web.Response(text=f"{len(await request.read())} bytes")


async def break_down(_: web.Request) -> web.Response:
    raise ValueError(CANARY)


async def refuse(_: web.Request) -> web.Response:
    raise web.HTTPConflict(text='{"detail": "own words"}', content_type="application/problem+json")


def application() -> web.Application:
    app = web.Application()
    app.router.add_route("*", "/", echo)
    app.router.add_get("/broken", break_down)
    app.router.add_get("/refused", refuse)
    return app


async def talk(port: int, text: str) -> str:
    """Send raw bytes and return all bytes that come until the listener closes, within 5 seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text.encode("latin-1"))
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        body = await reader.readexactly(int(size.partition(b":")[2]))
    writer.close()
    await writer.wait_closed()
    return (head + body).decode("latin-1")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with open_listener(application(), "127.0.0.1", 0) as port:
        yield port


@pytest.mark.parametrize("text", NO_HTTP)
async def test_bytes_that_are_no_http_are_refused_and_repeated_neither_in_the_answer_nor_in_the_log(
    port: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    answer = await talk(port, text)

    assert answer.splitlines()[0].split()[1] == "400"
    assert "application/problem+json" in answer
    assert '"code": "bad-request"' in answer
    assert CANARY not in answer
    assert CANARY not in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_body_that_cannot_be_decoded_fills_the_log_with_no_traceback(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await talk(port, f"{POST}Content-Encoding: gzip\r\nContent-Length: {len(CANARY)}\r\n\r\n{CANARY}")

    assert answer.splitlines()[0].split()[1] in {"400", "500"}
    assert CANARY not in answer + caplog.text


async def test_an_error_of_the_relay_is_logged_with_its_place_and_without_its_text(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await talk(port, "GET /broken HTTP/1.1\r\nHost: relay\r\n\r\n")

    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (record.message, record.__dict__["error"]) == ("request failed", "ValueError")
    assert "break_down" in record.__dict__["frames"]
    assert '"code": "internal"' in answer
    assert CANARY not in answer + caplog.text + str(record.__dict__)


async def test_a_problem_document_of_the_application_goes_out_as_it_is(port: int) -> None:
    answer = await talk(port, "GET /refused HTTP/1.1\r\nHost: relay\r\n\r\n")

    assert answer.splitlines()[0].split()[1] == "409"
    assert "own words" in answer


@pytest.mark.parametrize("begun", ["", "GET / HTTP/1.1\r\nHost: re"])
async def test_a_connection_without_a_whole_request_is_cut(begun: str) -> None:
    async with open_listener(application(), "127.0.0.1", 0, first=0.2) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begun.encode())
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


async def test_a_request_may_take_longer_than_the_wait_for_the_first_one() -> None:
    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(0.3)
        return web.Response(text="at last")

    app = web.Application()
    app.router.add_get("/", slow)
    async with open_listener(app, "127.0.0.1", 0, first=0.1) as port, ClientSession() as client:
        for _ in range(2):
            async with client.get(f"http://127.0.0.1:{port}/") as response:
                assert await response.text() == "at last"


async def test_more_connections_than_allowed_are_cut_and_those_before_go_on() -> None:
    async with open_listener(application(), "127.0.0.1", 0, most=1) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n")
        async with asyncio.timeout(5):
            await reader.readuntil(b"0 bytes")
            more, unwelcome = await asyncio.open_connection("127.0.0.1", port)
            assert await more.read() == b""
            writer.write(b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n")
            await reader.readuntil(b"0 bytes")
        unwelcome.close()
        writer.close()
