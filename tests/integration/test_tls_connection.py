"""Connections over real sockets: TLS through memory buffers, resumed sessions, several addresses, and every ending."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from eas_watcher.errors import Unreachable
from eas_watcher.transport import connecting
from eas_watcher.transport.connecting import LOOKUP, Connector
from eas_watcher.transport.lookups import AddressInfo
from eas_watcher.transport.sources import Sources
from eas_watcher.transport.target import Endpoint
from eas_watcher.transport.tls_connection import (
    CONNECT,
    UNPRODUCTIVE,
    UNSENT,
    Connection,
    Dialler,
    Dialling,
    Reading,
    TlsConnection,
)
from tests.fakes.tls import HOST, Authority, Talk, talking
from tests.ports import free_port
from tests.waiting import SOON, until

BOTH = pytest.mark.both_loops
VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


class Gathering:
    """Keep what a connection receives."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.came = bytearray()
        self.errors: list[Exception | None] = []
        self.changed = asyncio.Event()

    def received(self, data: bytes) -> None:
        self.came += data
        self.changed.set()

    def lost(self, error: Exception | None) -> None:
        self.errors.append(error)
        self.changed.set()

    async def until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not happened():
                self.changed.clear()
                await self.changed.wait()

    @property
    def tls(self) -> ssl.SSLObject:
        assert isinstance(self.connection, TlsConnection)
        assert self.connection._tls is not None
        return self.connection._tls


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def connector() -> AsyncIterator[Connector]:
    made = Connector(Sources([]))
    yield made
    await made.close()


@pytest.fixture
def dialler(authority: Authority, connector: Connector) -> Dialler:
    return Dialler(authority.client, connector, Reading())


def endpoint(url: str, host: str = HOST) -> Endpoint:
    return Endpoint(host, int(url.rpartition(":")[2]))


def v4(host: str, port: int) -> AddressInfo:
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@BOTH
@VERSIONS
async def test_what_is_written_arrives_and_what_comes_is_received(dialler: Dialler, version: ssl.TLSVersion) -> None:
    served = Authority()
    served.client.maximum_version = version
    sent = bytes(range(256)) * 2000
    async with talking(served, echo) as url:
        there = await dialler.with_tls(served.client).dial(endpoint(url), Gathering)
        there.connection.write(sent)
        await there.until(lambda: len(there.came) == len(sent))
        there.connection.close()

    assert there.came == sent
    assert there.errors == []


@BOTH
async def test_without_tls_the_bytes_are_those_on_the_wire(dialler: Dialler) -> None:
    async with talking(None, echo) as url:
        there = await dialler.dial(endpoint(url), Gathering, secure=False)
        there.connection.write(b"hello")
        await there.until(lambda: there.came == b"hello")
        there.connection.close()

    assert there.connection.alpn is None


@BOTH
@VERSIONS
async def test_the_second_connection_resumes_the_session_of_the_first(
    authority: Authority, connector: Connector, version: ssl.TLSVersion
) -> None:
    served = Authority()
    served.client.maximum_version = version
    dialler = Dialler(served.client, connector, Reading())
    async with talking(served, echo) as url:
        reused = []
        for _ in range(3):
            there = await dialler.dial(endpoint(url), Gathering)
            there.connection.write(b"x")
            await there.until(lambda there=there: there.came == b"x")  # type: ignore[misc] # a default is no capture
            reused.append(there.tls.session_reused)
            there.connection.close()

    assert reused == [False, True, True]


async def test_no_session_is_resumed_by_another_tls_identity(authority: Authority, dialler: Dialler) -> None:
    other = ssl.create_default_context()
    other.check_hostname, other.verify_mode = False, ssl.CERT_NONE
    async with talking(authority, echo) as url:
        reused = []
        for each in (dialler, dialler.with_tls(other), dialler.with_tls(authority.client)):
            there = await each.dial(endpoint(url), Gathering)
            there.connection.write(b"x")
            await there.until(lambda there=there: there.came == b"x")  # type: ignore[misc] # a default is no capture
            reused.append(there.tls.session_reused)
            there.connection.close()

    assert reused == [False, False, False]


@pytest.mark.parametrize(("offered", "agreed"), [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), ([], None)])
async def test_alpn_is_known_before_the_first_byte(dialler: Dialler, offered: list[str], agreed: str | None) -> None:
    served = Authority()
    served.server.set_alpn_protocols(["h2", "http/1.1"])
    if offered:
        served.client.set_alpn_protocols(offered)
    seen: list[str | None] = []

    def make(connection: Connection) -> Gathering:
        seen.append(connection.alpn)
        return Gathering(connection)

    async with talking(served, echo) as url:
        there = await dialler.with_tls(served.client).dial(endpoint(url), make)
        there.connection.abort()

    assert seen == [agreed]


@BOTH
async def test_bytes_that_come_with_the_handshake_are_received(authority: Authority, dialler: Dialler) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"welcome")
        await reader.read()

    async with talking(authority, greet) as url:
        there = await dialler.dial(endpoint(url), Gathering)
        await there.until(lambda: there.came == b"welcome")
        there.connection.close()


class Wire(asyncio.Transport):
    """Keep what a connection sends, piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.pieces.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 0


@pytest.mark.parametrize("request_", [b"GET / HTTP/1.1", b""])
async def test_the_end_of_the_handshake_leaves_with_the_first_request_or_at_once_without_one(request_: bytes) -> None:
    served, wire, reading = Authority(), Wire(), Reading()
    made: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
    dialling = Dialling(made.set_result, made.set_exception, lambda _: None)
    connection = TlsConnection(reading, served.client, HOST, None, dialling)
    came, answer = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = served.server.wrap_bio(came, answer, server_side=True)

    async def send_first() -> None:
        gathering = Gathering(await made)
        connection.begin(gathering)
        if request_:
            connection.write(request_)

    sending = asyncio.ensure_future(send_first())
    await asyncio.sleep(0)
    connection.connection_made(wire)
    taken = 0
    while not made.done():
        came.write(b"".join(wire.pieces[taken:]))
        taken = len(wire.pieces)
        with suppress(ssl.SSLWantReadError):
            server.do_handshake()
        said = answer.read()
        reading.view[: len(said)] = said
        connection.buffer_updated(len(said))
    assert len(wire.pieces) == taken
    await sending
    await asyncio.sleep(0)

    assert len(wire.pieces) == taken + 1
    came.write(wire.pieces[-1])
    server.do_handshake()
    if request_:
        assert server.read() == request_


@BOTH
async def test_the_name_in_the_certificate_must_be_that_of_the_server(authority: Authority, dialler: Dialler) -> None:
    async with talking(authority, echo) as url:
        with pytest.raises(Unreachable, match="certificate not trusted: Hostname mismatch") as caught:
            await dialler.dial(endpoint(url, "localhost"), Gathering)

    assert not caught.value.reached


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)


async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example.com ESMTP\r\n")
    await reader.read()


@BOTH
@pytest.mark.parametrize(
    ("talk", "words"),
    [(hang_up, "closes during the handshake|Connection reset"), (babble, "speaks no TLS: check the port")],
)
async def test_a_failed_handshake_is_explained(dialler: Dialler, talk: Talk, words: str) -> None:
    async with talking(None, talk) as url:
        with pytest.raises(Unreachable, match=words) as caught:
            await dialler.dial(endpoint(url), Gathering)

    assert not caught.value.reached


async def test_a_handshake_that_takes_too_long_is_given_up(dialler: Dialler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eas_watcher.transport.tls_connection.CONNECT", 0.1)
    gone = asyncio.Event()

    async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        gone.set()

    async with talking(None, keep_silent) as url:
        with pytest.raises(Unreachable, match="no connection in time"):
            await dialler.dial(endpoint(url), Gathering)
        async with asyncio.timeout(10):
            await gone.wait()


@BOTH
@pytest.mark.parametrize("secure", [True, False])
async def test_the_end_is_told_once(authority: Authority, dialler: Dialler, secure: bool) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with talking(authority if secure else None, greet) as url:
        there = await dialler.dial(endpoint(url), Gathering, secure=secure)
        await there.until(lambda: bool(there.errors))

    assert bytes(there.came) == b"bye"
    assert there.errors == [None]
    assert not there.connection.open


@BOTH
@pytest.mark.parametrize("secure", [True, False])
async def test_the_server_sees_at_once_that_a_connection_is_left(
    authority: Authority, dialler: Dialler, monkeypatch: pytest.MonkeyPatch, secure: bool
) -> None:
    monkeypatch.setattr("eas_watcher.transport.tls_connection.GOODBYE", SOON)
    ends: list[bytes] = []

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.append(await reader.read())

    async with talking(authority if secure else None, wait) as url:
        there = await dialler.dial(endpoint(url), Gathering, secure=secure)
        await there.connection.leave()
        assert ends == [b""]
        await there.connection.leave()

    assert there.errors == []


async def test_a_server_that_does_not_read_is_given_up(authority: Authority, dialler: Dialler) -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with talking(authority, wait) as url:
        there = await dialler.dial(endpoint(url), Gathering)
        for _ in range(2 * UNSENT // 65536 + 100):
            there.connection.write(bytes(65536))
            await asyncio.sleep(0)
        assert [str(error) for error in there.errors] == ["the server reads nothing"]


@BOTH
@pytest.mark.parametrize("secure", [True, False])
async def test_a_server_that_ends_a_connection_and_does_not_read_does_not_keep_its_socket(
    authority: Authority, dialler: Dialler, monkeypatch: pytest.MonkeyPatch, secure: bool
) -> None:
    monkeypatch.setattr("eas_watcher.transport.tls_connection.LINGER", 0.01)
    full, gone = asyncio.Event(), asyncio.Event()

    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport of a socket
        await full.wait()
        with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as sock:
            sock.shutdown(socket.SHUT_WR)
        await gone.wait()

    async with talking(authority if secure else None, end) as url:
        there = await dialler.dial(endpoint(url), Gathering, secure=secure)
        while there.connection.unsent < 65536:
            there.connection.write(bytes(65536))
            await asyncio.sleep(0)
        full.set()
        await there.until(lambda: bool(there.errors))
        await until(lambda: there.connection._transport is None)
        gone.set()

    assert there.errors == [None]


async def test_a_server_that_sends_tls_without_data_is_given_up(authority: Authority, dialler: Dialler) -> None:
    served = Authority()
    served.server.num_tickets = 2000

    async def tickets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with talking(served, tickets) as url:
        there = await dialler.with_tls(served.client).dial(endpoint(url), Gathering)
        await there.until(lambda: bool(there.errors))

    assert [str(error) for error in there.errors] == ["the server sends TLS without data"]
    assert UNPRODUCTIVE > 2 * 20_000


async def test_the_buffer_of_an_answer_to_a_ticket_is_freed(dialler: Dialler) -> None:
    """OpenSSL keeps its 16 KiB until the next write, and a held Ping writes nothing more."""
    sizes: list[int] = []

    class Noting(ssl.SSLObject):
        def write(self, data: Any) -> int:
            sizes.append(len(data))
            return super().write(data)

    served = Authority()
    served.client.sslobject_class = Noting
    ticketed = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4)  # the tickets have left before
        ticketed.set()
        await reader.read()

    async with talking(served, wait) as url:
        there = await dialler.with_tls(served.client).dial(endpoint(url), Gathering)
        there.connection.write(b"ping")
        await until(lambda: ticketed.is_set() and sizes[-1] == 0)
        there.connection.close()

    assert set(sizes) == {4, 0}
    assert there.errors == []


async def test_a_record_is_read_once(dialler: Dialler) -> None:
    """A read of nothing raises an error, which would take longer than the record."""
    reads: list[int] = []

    class Noting(ssl.SSLObject):
        def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002 -- its name in SSLObject
            reads.append(0)
            data = super().read(len, buffer)
            reads[-1] = 1
            return data

    served = Authority()
    served.client.sslobject_class = Noting

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            writer.write(await reader.readexactly(4))
        await reader.read()

    async with talking(served, answer) as url:
        there = await dialler.with_tls(served.client).dial(endpoint(url), Gathering)
        for _ in range(3):
            before = len(there.came)
            there.connection.write(b"ping")
            await there.until(partial(lambda wanted: len(there.came) == wanted, before + 4))
        there.connection.close()

    assert sum(reads) == 3
    assert len(reads) - sum(reads) <= 2  # those of TLS' own records, the tickets


async def test_the_next_address_is_tried_when_one_refuses_or_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connecting, "STAGGER", 0.05)
    port = free_port()
    with socket.create_server(("127.0.0.3", port), backlog=0):  # its queue is full: a third SYN gets no answer
        fillers = [socket.socket() for _ in range(4)]
        for each in fillers:
            each.settimeout(0.0)
            each.connect_ex(("127.0.0.3", port))
        asked: list[str] = []

        async def resolve(name: str, _: int) -> list[AddressInfo]:
            asked.append(name)
            return [v4(host, port) for host in ("127.0.0.3", "127.0.0.2", "127.0.0.1")]

        connector = Connector(Sources([]), resolve)
        with socket.create_server(("127.0.0.1", port)):
            peers = []
            for _ in range(3):
                with await connector.connect(Endpoint("mail.example.com", port)) as sock:
                    peers.append(sock.getpeername()[0])
        for each in fillers:
            each.close()

    assert peers == ["127.0.0.1"] * 3
    assert asked == ["mail.example.com"]


async def test_the_error_is_that_of_the_first_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def resolve(_host: str, _port: int) -> list[AddressInfo]:
        return [v4("127.0.0.1", port), v4("127.0.0.2", port)]

    with pytest.raises(ConnectionRefusedError):
        await Connector(Sources([]), resolve).connect(Endpoint("mail.example.com", port))


@BOTH
async def test_an_address_that_refuses_is_said_as_the_system_says_it(dialler: Dialler) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    with pytest.raises(Unreachable, match="no connection: Connection refused"):
        await dialler.dial(Endpoint("127.0.0.1", port), Gathering)


@BOTH
async def test_a_connection_that_is_not_wanted_any_more_leaves_nothing_behind(connector: Connector) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:  # its queue is full: a third SYN gets no answer
        fillers = [socket.socket() for _ in range(4)]
        for each in fillers:
            each.settimeout(0.0)
            each.connect_ex(full.getsockname())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connector.connect(Endpoint(*full.getsockname())), 0.1)
        with socket.socket() as sock:
            sock.setblocking(False)  # noqa: FBT003 -- the socket module's signature
            attempt = asyncio.ensure_future(connecting.connect_socket(sock, full.getsockname()))
            await asyncio.wait({attempt}, timeout=0.01)
            attempt.cancel()
            await asyncio.wait({attempt})
            assert attempt.cancelled()
            assert not asyncio.get_running_loop().remove_writer(sock)
        for each in fillers:
            each.close()


@pytest.mark.looptime
async def test_name_servers_that_are_silent_are_named(authority: Authority) -> None:
    async def hang(_host: str, _port: int) -> list[AddressInfo]:
        await asyncio.Event().wait()
        return []

    connector = Connector(Sources([]), hang)
    dialler = Dialler(authority.client, connector, Reading())

    with pytest.raises(
        Unreachable, match=r"no connection: no name server answers for mail\.example\.com: check"
    ) as caught:
        await dialler.dial(Endpoint("mail.example.com", 443), Gathering)

    assert not caught.value.reached
    assert asyncio.get_running_loop().time() == LOOKUP < CONNECT
    await connector.close()


async def test_a_name_that_does_not_exist_is_unreachable(dialler: Dialler) -> None:
    with pytest.raises(Unreachable, match="no connection: ") as caught:
        await dialler.dial(Endpoint("mail.invalid", 443), Gathering)

    assert not caught.value.reached


async def test_so_many_connections_are_made_at_once_and_no_more(
    authority: Authority, connector: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "AT_ONCE", 2)
    accepted: list[int] = []
    go_on = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(0)
        await go_on.wait()

    dialler = Dialler(authority.client, connector, Reading())
    async with talking(None, slow) as url:
        dials = [asyncio.ensure_future(dialler.dial(endpoint(url), Gathering)) for _ in range(5)]
        await until(lambda: len(accepted) == 2)
        await asyncio.sleep(0.1)
        assert len(accepted) == 2
        go_on.set()
        failures = await asyncio.gather(*dials, return_exceptions=True)

    assert len(accepted) == 5
    assert all(isinstance(error, Unreachable) for error in failures)
