"""A connection that carries requests, with a fake one beneath it: what the sockets of other tests cannot time."""

import pytest

from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import Unreachable
from eas_watcher.transport.deadlines import Deadlines
from eas_watcher.transport.http1 import Http1Connection
from eas_watcher.transport.target import target_of
from eas_watcher.transport.tls_connection import Connection, Reading

REQUEST = HttpRequest("POST", "http://mail.example.com/", {}, b"", 30.0)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Wire(Connection):
    """A connection to nobody."""

    def __init__(self) -> None:
        super().__init__(Reading())
        self.written = b""
        self.full = 0

    def write(self, data: bytes) -> None:
        self.written += data

    @property
    def unsent(self) -> int:
        return self.full


class Pool:
    """Keep every connection."""

    def __init__(self) -> None:
        self.deadlines = Deadlines()
        self.free: list[Http1Connection] = []
        self.ended: list[Http1Connection] = []

    def unused(self, connection: Http1Connection) -> bool:
        self.free.append(connection)
        return True

    def gone(self, connection: Http1Connection) -> None:
        self.ended.append(connection)


def carrier() -> tuple[Http1Connection, Wire, Pool]:
    wire, pool = Wire(), Pool()
    made = Http1Connection(wire, pool)
    wire.begin(made)
    return made, wire, pool


async def test_a_connection_that_is_lost_before_the_request_says_why() -> None:
    made, wire, pool = carrier()
    reason = ConnectionResetError(104, "Connection reset by peer")
    wire.end(reason)

    with pytest.raises(Unreachable, match="connection lost: Connection reset by peer") as caught:
        made.carry(REQUEST, target_of(REQUEST), lambda _: None, 30.0)

    assert not caught.value.reached
    assert caught.value.__cause__ is reason
    assert pool.ended == [made]


async def test_a_request_that_ends_its_connection_as_it_is_written_is_not_held() -> None:
    class Deaf(Wire):
        def write(self, data: bytes) -> None:
            self.end(ConnectionAbortedError("the server reads nothing"))

    wire, pool = Deaf(), Pool()
    made = Http1Connection(wire, pool)
    wire.begin(made)
    reported: list[HttpReply | Exception] = []
    with pytest.raises(Unreachable, match="the server reads nothing") as caught:
        made.carry(REQUEST, target_of(REQUEST), reported.append, 30.0)

    assert caught.value.reached
    assert reported == []
    assert pool.ended == [made]
    assert pool.deadlines._slots == {}


async def test_a_connection_that_has_not_taken_the_whole_request_carries_no_other() -> None:
    made, wire, pool = carrier()
    reported: list[HttpReply | Exception] = []
    made.carry(REQUEST, target_of(REQUEST), reported.append, 30.0)
    wire.full = 1
    made.received(ANSWER)

    assert len(reported) == 1
    assert (pool.free, pool.ended) == ([], [made])
    assert not wire.open


async def test_the_answer_may_come_with_the_end_of_the_connection() -> None:
    made, wire, _ = carrier()
    reported: list[HttpReply | Exception] = []
    made.carry(REQUEST, target_of(REQUEST), reported.append, 30.0)
    made.received(b"HTTP/1.0 200 OK\r\n\r\nhello")
    assert reported == []
    wire.end(None)

    [reply] = reported
    assert isinstance(reply, HttpReply)
    assert reply.body == b"hello"


@pytest.mark.parametrize("coding", [b"", b"Content-Encoding: gzip\r\n"])
async def test_an_end_by_an_error_ends_no_answer(coding: bytes) -> None:
    made, wire, _ = carrier()
    reported: list[HttpReply | Exception] = []
    made.carry(REQUEST, target_of(REQUEST), reported.append, 30.0)
    made.received(b"HTTP/1.0 200 OK\r\n" + coding + b"\r\nhello")
    wire.end(None if coding else ConnectionResetError())

    assert [type(each) for each in reported] == [Unreachable]


async def test_waits_leave_the_wheel_with_the_connection() -> None:
    made, wire, pool = carrier()
    made.carry(REQUEST, target_of(REQUEST), lambda _: None, 30.0)
    made.received(ANSWER)
    assert pool.free == [made]
    assert len(pool.deadlines._slots) == 1
    wire.end(None)

    assert pool.deadlines._slots == {}
