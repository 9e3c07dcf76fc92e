"""HTTP/1.1 of the simulated EAS server, byte by byte."""

import asyncio
import gc
from collections.abc import AsyncIterator
from unittest.mock import create_autospec

import pytest

from relay.sandbox.eas.answers import EasAnswers
from relay.sandbox.eas.failures import AnswerHttp, FailurePlan
from relay.sandbox.eas.http1 import LARGEST_BODY, LARGEST_HEAD, Http1Connection, Http1Side
from relay.sandbox.eas.server import open_eas_simulator
from relay.sandbox.eas.simulator import EasSimulator

PATH = "/Microsoft-Server-ActiveSync"
ASK = f"POST {PATH}?Cmd=Ping HTTP/1.1\r\nHost: mail\r\n".encode()


@pytest.fixture
async def simulator() -> AsyncIterator[EasSimulator]:
    async with open_eas_simulator(tls=None) as simulator:
        yield simulator


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def status(self) -> int:
        """Read the head of an answer and skip its body, whose length it gives."""
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            length = [line for line in head.split("\r\n") if line.startswith("Content-Length: ")]
            await self.reader.readexactly(int(length[0].partition(" ")[2]) if length else 0)
        return int(head.split(" ")[1])


async def opened(simulator: EasSimulator, *sent: bytes) -> Client:
    """Send so many pieces, each by itself, on a new connection."""
    client = Client(*await asyncio.open_connection("127.0.0.1", simulator.port))
    for piece in sent:
        client.writer.write(piece)
        await client.writer.drain()
        await asyncio.sleep(0.01)
    return client


@pytest.mark.parametrize(
    "pieces",
    [
        (ASK + b"\r\n",),
        (ASK[:9], ASK[9:], b"\r", b"\n"),
        (ASK + b"Content-Length: 4\r\n\r\n", b"bo", b"dy"),
        (ASK + b"Transfer-Encoding: chunked\r\n\r\n", b"2;more=1\r\nbo\r", b"\n2\r\ndy\r\n0\r\n", b"\r\n"),
    ],
)
async def test_a_request_is_served_when_it_is_here_as_a_whole(
    simulator: EasSimulator, pieces: tuple[bytes, ...]
) -> None:
    client = await opened(simulator, *pieces, ASK + b"\r\n")

    assert [await client.status(), await client.status()] == [401, 401]
    assert simulator.records.requests == {"Ping": 2}
    client.writer.close()


async def test_requests_in_one_piece_are_answered_one_after_the_other(simulator: EasSimulator) -> None:
    client = await opened(simulator, (ASK + b"\r\n") * 3)

    assert [await client.status() for _ in range(3)] == [401] * 3
    client.writer.close()


async def test_a_client_that_asks_first_is_told_to_send_its_body(simulator: EasSimulator) -> None:
    client = await opened(simulator, ASK + b"Content-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    assert await client.status() == 100
    client.writer.write(b"body")

    assert await client.status() == 401
    client.writer.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (ASK + b"no colon\r\n\r\n", 400),
        (ASK + b"Content-Length: -1\r\n\r\n", 400),
        (ASK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (ASK + b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (ASK + f"Content-Length: {LARGEST_BODY + 1}\r\n\r\n".encode(), 413),
        (ASK + f"Transfer-Encoding: chunked\r\n\r\n{LARGEST_BODY + 1:x}\r\n".encode(), 413),
        (ASK + b"X: " + b"x" * LARGEST_HEAD, 431),
    ],
)
async def test_what_is_no_request_ends_its_connection(simulator: EasSimulator, sent: bytes, status: int) -> None:
    client = await opened(simulator, sent)

    assert await client.status() == status
    async with asyncio.timeout(10):
        assert await client.reader.read() == b""
    client.writer.close()


async def test_a_client_may_leave_before_the_answer_that_takes_time_is_begun(simulator: EasSimulator) -> None:
    """The task of such an answer is cancelled before its first step: nothing of it is left that was never awaited."""
    simulator.fail(None, FailurePlan(AnswerHttp(503)))
    connection = Http1Connection(Http1Side(EasAnswers(simulator)))
    connection.connection_made(create_autospec(asyncio.Transport, instance=True))

    connection.data_received(ASK + b"\r\n")
    connection.connection_lost(None)
    await asyncio.sleep(0)

    gc.collect()  # a warning of what was never awaited fails the test
    assert simulator.records.requests == {"Ping": 1}


@pytest.mark.parametrize("end", [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"])
async def test_a_client_that_wants_one_answer_gets_no_second_one(simulator: EasSimulator, end: bytes) -> None:
    client = await opened(simulator, end)

    assert await client.status() == 404
    async with asyncio.timeout(10):
        assert await client.reader.read() == b""
    client.writer.close()
