"""A server that agrees on HTTP/2 and is broken or hostile: it costs its own connection or request, and little time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from time import process_time

import pytest

from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import ProtocolViolation, Unreachable
from eas_watcher.transport.http import open_transport
from eas_watcher.transport.http2_pool import ALPN, VAIN
from relay.sandbox.certificates import ThrowAwayCa
from relay.sandbox.eas.server import open_eas_simulator
from tests.integration.test_http2_transport import Site
from tests.waiting import until

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED = 1, 4, 8
OK = b"\x88"  # :status 200, entry 8 of the static table
CPU = 2.0  # seconds; the floods take some hundredths
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def number(value: int) -> bytes:
    return value.to_bytes(4)


def setting(name: int, value: int) -> bytes:
    return name.to_bytes(2) + number(value)


def literal(name: bytes, value: bytes) -> bytes:
    """Return a header of a block, in the form that enters no table."""
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


def endless(piece: bytes) -> Iterator[bytes]:
    """Yield the same frames, many at a time, without end."""
    many = piece * (1 + 16_384 // len(piece))
    return (many for _ in count())


GREETING = frame(SETTINGS, 0, 0)
HEAD = frame(HEADERS, END_HEADERS, 1, OK)

BROKEN: dict[str, tuple[bytes, str]] = {
    "an oversized frame": (GREETING + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", "broke HTTP/2"),
    "a frame on an idle stream": (GREETING + frame(DATA, 0, 7, b"x"), "on a stream that we did not open"),
    "headers on an even stream": (GREETING + frame(HEADERS, END_HEADERS, 2, OK), "on a stream that we did not open"),
    "a push": (GREETING + frame(PUSH_PROMISE, END_HEADERS, 1, number(2) + OK), "a promise of a push"),
    "settings on a stream": (GREETING + frame(SETTINGS, 0, 1), "on stream 1"),
    "settings of five octets": (GREETING + frame(SETTINGS, 0, 0, bytes(5)), "settings of 5 octets"),
    "a window too large": (GREETING + frame(SETTINGS, 0, 0, setting(4, 1 << 31)), "a window larger"),
    "a window that grows by nothing": (GREETING + frame(WINDOW_UPDATE, 0, 0, number(0)), "grows by nothing"),
    "bad padding": (GREETING + HEAD + frame(DATA, PADDED, 1, b"\xffab"), "broke HTTP/2"),
    "a CONTINUATION of nothing": (GREETING + frame(CONTINUATION, END_HEADERS, 1, OK), "a CONTINUATION of nothing"),
    "a frame inside of a header block": (
        GREETING + frame(HEADERS, 0, 1, OK) + frame(PING, 0, 0, bytes(8)),
        "inside of a header block",
    ),
    "HPACK: a reference to an empty table": (GREETING + frame(HEADERS, END_HEADERS, 1, OK + b"\xbe"), "a table that"),
    "HPACK: a number without end": (GREETING + frame(HEADERS, END_HEADERS, 1, b"\xff" * 40), "a number without end"),
    "HPACK: a table where none may be": (GREETING + frame(HEADERS, END_HEADERS, 1, b"\x3f\xe1\x1f"), "a table where"),
    "a block cut short": (GREETING + frame(HEADERS, END_HEADERS, 1, OK + b"\x00\x05ab"), "ends early"),
    "a header list of megabytes": (
        GREETING
        + frame(HEADERS, 0, 1, OK)
        + b"".join(frame(CONTINUATION, 0, 1, literal(b"x", b"y" * 100) * 150) for _ in range(9)),
        "CONTINUATION",
    ),
    "a header list of many small ones": (
        GREETING + frame(HEADERS, END_HEADERS, 1, OK + b"\x90" * 16_000),  # 32 octets each, as HTTP/2 counts
        "longer than its limit",
    ),
}
"""What is sent once, and a part of the words for it. It ends the connection."""

FAULTY: dict[str, tuple[bytes, str]] = {
    "no status": (frame(HEADERS, 5, 1, literal(b"server", b"x")), "does not begin with its status"),
    "a status that is none": (frame(HEADERS, 5, 1, literal(b":status", b"2x0")), "status is no number"),
    "a header in capitals": (frame(HEADERS, 5, 1, OK + literal(b"Server", b"x")), "may not have"),
    "a header of the connection": (frame(HEADERS, 5, 1, OK + literal(b"connection", b"close")), "may not have"),
    "a line's end in a header": (frame(HEADERS, 5, 1, OK + literal(b"x", b"a\r\nb: c")), "a line's end"),
    "a body that is too short": (
        frame(HEADERS, END_HEADERS, 1, OK + literal(b"content-length", b"9")) + frame(DATA, END_STREAM, 1, b"8 octets"),
        "where 9 were announced",
    ),
    "a body without a head": (frame(DATA, 0, 1, b"x"), "a body without a head"),
    "a body beyond its limit": (HEAD + b"".join(frame(DATA, 0, 1, bytes(16_384)) for _ in range(17)), "limit"),
    "a switch of protocols": (frame(HEADERS, END_HEADERS, 1, literal(b":status", b"101")), "an interim answer"),
}
"""What ends only the request."""

FLOODS: dict[str, tuple[bytes, Iterator[bytes], str]] = {
    "rapid resets": (b"", endless(frame(RST_STREAM, 0, 1, number(8))), "RST_STREAM"),
    "PINGs": (b"", endless(frame(PING, 0, 0, bytes(8))), "PING"),
    "SETTINGS": (b"", endless(frame(SETTINGS, 0, 0, setting(3, 100))), "SETTINGS"),
    "windows": (b"", endless(frame(WINDOW_UPDATE, 0, 0, number(1))), "WINDOW_UPDATE"),
    "priorities": (b"", endless(frame(PRIORITY, 0, 1, bytes(5))), "PRIORITY"),
    "empty DATA": (HEAD, endless(frame(DATA, 0, 1)), "DATA"),
    "frames of an unknown kind": (b"", endless(frame(99, 0, 0, b"x")), "99"),
    "empty CONTINUATIONs": (frame(HEADERS, 0, 1, OK), endless(frame(CONTINUATION, 0, 1)), "CONTINUATION"),
    "interim answers": (b"", endless(frame(HEADERS, 4, 1, literal(b":status", b"102"))), "HEADERS"),
    "GOAWAYs": (b"", endless(frame(GOAWAY, 0, 0, number(2**31 - 1) + number(0))), "GOAWAY"),
    "DATA on a closed stream": (frame(HEADERS, 5, 1, OK), endless(frame(DATA, 0, 1, b"x" * 1000)), "DATA"),
}
"""What is sent first, then without end, and the kind of frames in the words for it."""


@pytest.fixture(scope="module")
def ca() -> ThrowAwayCa:
    return ThrowAwayCa("Test")


@asynccontextmanager
async def world(ca: ThrowAwayCa, talk: Talk) -> AsyncIterator[tuple[Site, HttpRequest]]:
    """Serve `talk` once the client's first request came; yield a good server's Site with a held Ping, and a request."""
    talks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            talks.add(task)
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client closed the connection
        finally:
            writer.transport.abort()

    served = ca.server_context(alpn=ALPN)
    async with (
        open_eas_simulator(tls=ca.server_context(alpn=ALPN)) as simulator,
        open_transport(ca.client_context(), http2=ca.client_context()) as transport,
        await asyncio.start_server(connected, "127.0.0.1", 0, ssl=served) as server,
    ):
        place = Site(simulator, transport)
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        try:
            yield place, HttpRequest("POST", url, {"Authorization": "Basic eA=="}, b"\x03\x01", 10.0)
        finally:
            for task in talks:
                task.cancel()
            await asyncio.gather(*talks, return_exceptions=True)


def says(data: bytes, more: Iterable[bytes] = ()) -> Talk:
    """Return a server that says this, then waits."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if data.startswith(GREETING):
            writer.write(GREETING)
            await read_request(reader)
        writer.write(data.removeprefix(GREETING))
        for piece in more:
            writer.write(piece)
            await writer.drain()
        while await reader.read(65_536):
            pass

    return talk


async def read_request(reader: asyncio.StreamReader) -> None:
    """Read until the end of the first request."""
    await reader.readexactly(24)  # the preface
    while True:
        head = await reader.readexactly(9)
        await reader.readexactly(int.from_bytes(head[:3]))
        if head[3] in {DATA, HEADERS} and head[4] & END_STREAM:
            return


@pytest.mark.parametrize(("data", "words"), BROKEN.values(), ids=BROKEN)
async def test_a_server_that_breaks_http_2_loses_its_connection(ca: ThrowAwayCa, data: bytes, words: str) -> None:
    async with world(ca, says(data)) as (place, request):
        result: list[HttpReply | Exception] = []
        began = process_time()
        try:
            await place.transport.hold(request, result.append)
        except Unreachable as error:
            result.append(error)
        await until(lambda: result)

        (broken,) = result
        assert isinstance(broken, Unreachable)
        assert "broke HTTP/2" in str(broken)
        assert words in str(broken)
        assert process_time() - began < CPU
        assert place.transport.used()["h2"] == (0, 0)


@pytest.mark.parametrize("goodbye", [frame(GOAWAY, 0, 0, bytes(8)), b""], ids=["GOAWAY", "the end of TLS"])
@pytest.mark.parametrize("turns", [0, 1], ids=["at once", "a moment later"])
async def test_a_server_that_ends_each_connection_fails_the_requests_that_wait(
    ca: ThrowAwayCa, goodbye: bytes, turns: int
) -> None:
    connections = 0

    async def leave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.write(GREETING)
        for _turn in range(turns):
            await asyncio.sleep(0)
        writer.write(goodbye)
        writer.close()
        await writer.wait_closed()

    async with world(ca, leave) as (place, request):
        failed = await asyncio.gather(*(place.transport.send(request) for _ in range(5)), return_exceptions=True)

    assert {type(error) for error in failed} == {Unreachable}
    assert connections <= VAIN + 1


async def test_requests_that_wait_for_a_connection_end_with_the_transport(ca: ThrowAwayCa) -> None:
    asked = asyncio.Event()

    async def keep_silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read(24)
        asked.set()
        await reader.read()

    async with world(ca, keep_silent) as (place, request):
        sending = asyncio.ensure_future(place.transport.send(request))
        await asked.wait()
        await place.transport.close()
        with pytest.raises(Unreachable, match="the relay closes its connections"):
            await sending


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 400 Bad Request\r\n\r\n", frame(PING, 0, 0, bytes(8))], ids=["HTTP/1.1", "no settings"]
)
async def test_a_server_that_agrees_on_http_2_and_speaks_something_else_gets_http_1_1(
    ca: ThrowAwayCa, data: bytes
) -> None:
    connections = count()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not next(connections):
            writer.write(data)
            await reader.read()
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await reader.read()

    async with world(ca, talk) as (place, request):
        assert (await place.transport.send(request)).status == 204


@pytest.mark.parametrize(("data", "words"), FAULTY.values(), ids=FAULTY)
async def test_a_faulty_answer_ends_its_request_only(ca: ThrowAwayCa, data: bytes, words: str) -> None:
    async with world(ca, says(GREETING + data)) as (place, request):
        with pytest.raises(ProtocolViolation, match=words):
            await place.transport.send(request)

        assert place.transport.used()["h2"][0] == 1


@pytest.mark.parametrize(("first", "flood", "kind"), FLOODS.values(), ids=FLOODS)
async def test_a_flood_costs_its_own_connection(
    ca: ThrowAwayCa, first: bytes, flood: Iterator[bytes], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(ca, says(GREETING + first, flood)) as (place, request):
        began = process_time()
        result: list[HttpReply | Exception] = []
        await place.transport.hold(request, result.append)
        await until(lambda: result and place.transport.used()["h2"][0] == 0)

        assert process_time() - began < CPU
        (said,) = [record.__dict__["detail"] for record in caplog.records if "detail" in record.__dict__]
        assert "it broke HTTP/2: too many frames: " in said
        assert kind in said
        assert (await place.transport.send(place.request(1, "Sync"))).status == 200
        assert place.transport.used()["h2"][0] == 1


@pytest.mark.parametrize(
    "data",
    [
        frame(SETTINGS, 0, 0, setting(4, 0)),  # no window: the body never leaves
        pytest.param(GREETING + frame(HEADERS, 0, 1, OK), marks=pytest.mark.slow),
        pytest.param(GREETING + HEAD + frame(DATA, 0, 1, b"half of it"), marks=pytest.mark.slow),
        pytest.param(GREETING, marks=pytest.mark.slow),
    ],
    ids=["zero window", "headers without end", "half a body", "silence"],
)
async def test_an_answer_that_never_ends_is_given_up(ca: ThrowAwayCa, data: bytes) -> None:
    async with world(ca, says(data)) as (place, request):
        late = HttpRequest(request.method, request.url, request.headers, request.body, 0.1)
        with pytest.raises(Unreachable, match="no answer in time") as error:
            await place.transport.send(late)

        assert error.value.reached
        assert place.transport.used()["h2"] == (1, 0)
