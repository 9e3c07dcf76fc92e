import asyncio
import logging
import os
import resource
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
import trustme
from aiohttp import ClientConnectorCertificateError, ClientSession, TCPConnector, web

from relay.http import listeners
from relay.http.admission import Admission, Pace, Refused
from relay.http.hosts import CannotListen, bind
from relay.http.listeners import Door, Turns, open_listener
from tests.integration.eas_world import hurried, hurry
from tests.ports import free_port
from tests.waiting import until

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


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def server_context(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost").configure_cert(context)
    return context


def client_context(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


async def talk(port: int, text: str, tls: ssl.SSLContext | None = None) -> str:
    """Send raw bytes and return the first answer, within 30 seconds."""
    name = None if tls is None else "localhost"
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
    writer.write(text.encode("latin-1"))
    async with asyncio.timeout(30):
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
    head = answer.partition("\r\n\r\n")[0].lower()
    assert "cache-control: no-store" in head
    assert "x-content-type-options: nosniff" in head
    assert "server:" not in head
    assert CANARY not in answer
    assert CANARY not in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("encoding", ["br", "zstd"])
async def test_an_encoding_whose_library_is_missing_is_answered_with_those_that_are_there(
    port: int, encoding: str
) -> None:
    answer = await talk(port, f"{POST}Content-Encoding: {encoding}\r\nContent-Length: 2\r\n\r\n{{}}")

    assert answer.splitlines()[0].split()[1] == "415"
    assert "Accept-Encoding: gzip, deflate\r\n" in answer
    assert '"code": "unknown-encoding"' in answer


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


@hurried
async def test_a_request_may_take_longer_than_the_wait_for_the_first_one() -> None:
    async def slow(_: web.Request) -> web.Response:
        hurry(30.0)
        await asyncio.sleep(0.01)  # what is due meanwhile comes first
        return web.Response(text="at last")

    app = web.Application()
    app.router.add_get("/", slow)
    async with open_listener(app, "127.0.0.1", 0, first=10.0) as port, ClientSession() as client:
        for _ in range(2):
            async with client.get(f"http://127.0.0.1:{port}/") as response:
                assert await response.text() == "at last"


async def test_more_connections_than_allowed_are_cut_and_those_before_go_on() -> None:
    async with open_listener(application(), "127.0.0.1", 0, admission=Admission(1)) as port:
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


# --- connections are counted, paced and limited when they are accepted


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.both_loops
async def test_a_connection_counts_before_its_handshake(ca: trustme.CA) -> None:
    door = Admission(1)
    async with open_listener(application(), "127.0.0.1", 0, server_context(ca), admission=door) as port:
        _, silent = await connect(port)
        await until(lambda: door.open == 1)
        reader, more = await connect(port)
        async with asyncio.timeout(30):
            assert await reader.read() == b""

        silent.close()
        more.close()
        await until(lambda: door.open == 0)
        assert door.refused == {Refused.FULL: 1, Refused.HANDSHAKE: 1}
        assert "0 bytes" in await talk(port, "GET / HTTP/1.1\r\nHost: relay\r\n\r\n", client_context(ca))
        await until(lambda: door.open == 0)


@pytest.mark.both_loops
async def test_a_handshake_that_takes_too_long_frees_its_place(ca: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "HANDSHAKE", 0.2)
    door = Admission()
    async with open_listener(application(), "127.0.0.1", 0, server_context(ca), admission=door) as port:
        reader, silent = await connect(port)
        async with asyncio.timeout(30):
            assert await reader.read() == b""
        silent.close()
        await until(lambda: door.open == 0)
        assert door.refused == {Refused.HANDSHAKE: 1}


async def test_a_silent_connection_frees_its_place() -> None:
    door = Admission()
    async with open_listener(application(), "127.0.0.1", 0, admission=door, first=0.1) as port:
        reader, silent = await connect(port)
        async with asyncio.timeout(30):
            assert await reader.read() == b""
        silent.close()
        await until(lambda: door.open == 0)
        assert door.refused == {Refused.SILENT: 1}


async def test_connections_begin_no_faster_than_the_pace() -> None:
    door, pace = Admission(), Pace(20, 1)
    async with open_listener(application(), "127.0.0.1", 0, admission=door, pace=pace) as port:
        clock = asyncio.get_running_loop().time
        began = clock()
        connections = [await connect(port) for _ in range(20)]  # each costs a quarter
        await until(lambda: door.open == 20)
        assert clock() - began >= (20 * 0.25 - 1 - 0.25) / 20 * 0.9
        for _, writer in connections:
            writer.close()


@pytest.mark.parametrize(
    ("head", "part"), [("Transfer-Encoding: chunked", "1\r\nx\r\n"), ("Content-Length: 100000000", "x" * 100)]
)
async def test_no_more_of_a_request_is_read_than_allowed(head: str, part: str) -> None:
    read: list[int] = []

    async def count(request: web.Request) -> web.Response:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while data := await request.content.readany():
                    read.append(len(data))
        return web.Response(text=f"{sum(read)} bytes")

    app = web.Application(client_max_size=10**9)
    app.router.add_post("/", count)
    async with open_listener(app, "127.0.0.1", 0, largest=1000) as port:
        answer = await talk(port, f"{POST}{head}\r\n\r\n" + part * 100_000)

    assert "Connection: close" in answer
    assert 0 < sum(read) < 1000


async def test_each_request_of_a_connection_may_be_as_large() -> None:
    async with open_listener(application(), "127.0.0.1", 0, largest=1000) as port, ClientSession() as client:
        for _ in range(5):
            async with client.post(f"http://127.0.0.1:{port}/", data=b"x" * 700) as response:
                assert await response.text() == "700 bytes"


@pytest.fixture
def no_file_left() -> Iterator[Callable[[], None]]:
    """Return what takes every file that the process may still open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []

    def take() -> None:
        if not taken:
            resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 50, hard))
        while True:
            try:
                taken.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                return

    yield take
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for each in taken:
        os.close(each)


def client_socket() -> socket.socket:
    made = socket.socket()
    made.settimeout(0)
    return made


async def test_without_a_file_the_listener_rests_and_goes_on_later(
    no_file_left: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    door = Admission()
    async with open_listener(application(), "127.0.0.1", 0, admission=door) as port:
        with client_socket() as client:
            no_file_left()
            client.connect_ex(("127.0.0.1", port))  # the kernel takes it
            await until(lambda: door.refused[Refused.FILES] == 1)
            for _ in range(1000):  # turns of the loop, in which it does not try again
                await asyncio.sleep(0)
            assert door.refused[Refused.FILES] == 1
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft + 10, hard))
            await until(lambda: door.open == 1)
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        "connections are refused"
    ]


async def test_with_spare_files_the_listener_answers_when_no_other_is_left(no_file_left: Callable[[], None]) -> None:
    door, loop = Admission(), asyncio.get_running_loop()
    async with open_listener(application(), "127.0.0.1", 0, admission=door, spare=1) as port:
        for _ in range(3):
            with client_socket() as client:
                no_file_left()
                client.connect_ex(("127.0.0.1", port))  # the kernel takes it
                async with asyncio.timeout(30):
                    await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n")
                    assert b"200 OK" in await loop.sock_recv(client, 4096)
            await until(lambda: door.open == 0)
    assert door.refused == {}


async def test_an_address_in_use_is_named() -> None:
    async with open_listener(application(), "127.0.0.1", 0) as port:
        with pytest.raises(OSError, match=f"127.0.0.1 port {port}: address already in use"):
            async with open_listener(application(), "127.0.0.1", port):
                pass


async def test_an_address_of_another_host_is_named() -> None:
    with pytest.raises(OSError, match=r"192\.0\.2\.1 port 0: cannot assign requested address"):
        async with open_listener(application(), "192.0.2.1", 0):
            pass


@pytest.mark.parametrize("hosts", ["*", ["127.0.0.1", "::1"], ["0.0.0.0", "::"], ["localhost", "127.0.0.1", "::1"]])
async def test_a_listener_answers_at_all_its_addresses_on_one_port(hosts: str | list[str]) -> None:
    async with open_listener(application(), hosts, 0) as port, ClientSession() as client:
        for host in ("127.0.0.1", "[::1]"):
            async with client.get(f"http://{host}:{port}/") as answer:
                assert answer.status == 200, host


async def test_one_address_of_several_that_is_missing_is_named() -> None:
    with pytest.raises(OSError, match=r"192\.0\.2\.1 port \d+: cannot assign requested address"):
        async with open_listener(application(), ["127.0.0.1", "192.0.2.1"], 0):
            pass


async def test_a_listener_on_ipv6_leaves_ipv4_to_others() -> None:
    port = free_port()
    async with open_listener(application(), "::", port), open_listener(application(), "0.0.0.0", port) as same:
        assert same == port


async def test_a_name_without_an_address_is_named() -> None:
    with pytest.raises(CannotListen, match=r"nowhere\.invalid: "):
        bind(["nowhere.invalid"], 0)


async def test_a_name_is_listened_to_at_each_of_its_addresses() -> None:
    async with open_listener(application(), "localhost", 0) as port:
        assert "0 bytes" in await talk(port, "GET / HTTP/1.1\r\nHost: relay\r\n\r\n")


# --- nobody learns what answers, and who hangs up is no fault of the relay


ANSWERS = [
    "GET / HTTP/1.1\r\nHost: relay\r\n\r\n",
    "GET /nowhere HTTP/1.1\r\nHost: relay\r\n\r\n",
    "DELETE /broken HTTP/1.1\r\nHost: relay\r\n\r\n",
    "GET /broken HTTP/1.1\r\nHost: relay\r\n\r\n",
    "GET /refused HTTP/1.1\r\nHost: relay\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "nonsense\r\n\r\n",
    f"{POST}Content-Length: 2\r\nContent-Encoding: gzip\r\n\r\n{{}}",
    *NO_HTTP,
]


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("text", ANSWERS)
async def test_no_answer_names_a_program(ca: trustme.CA, text: str, *, encrypted: bool) -> None:
    tls = server_context(ca) if encrypted else None
    async with open_listener(application(), "127.0.0.1", 0, tls) as port:
        answer = (await talk(port, text, client_context(ca) if encrypted else None)).lower()

    assert answer.startswith("http/1.")
    assert not [word for word in ("server:", "aiohttp", "python", "push-relay") if word in answer]


CLIENT_HELLO = bytes.fromhex("16 03 01 02 00 01 00 01 FC 03 03")
# 16 03 01 02 00: TLS record of a handshake, 512 bytes; 01 00 01 FC 03 03: ClientHello, TLS 1.2; then nothing more
GARBAGE = [b"", b"\x00" * 512, b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n", CLIENT_HELLO, b"\x15\x03\x03\x00\x02\x02\x28"]


def reset(client: socket.socket) -> None:
    """Hang up with a RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.both_loops
@pytest.mark.parametrize("rude", [False, True])
@pytest.mark.parametrize("garbage", GARBAGE)
async def test_who_ends_in_the_handshake_is_counted_and_no_error(
    ca: trustme.CA, garbage: bytes, caplog: pytest.LogCaptureFixture, *, rude: bool
) -> None:
    door, loop = Admission(), asyncio.get_running_loop()
    async with open_listener(application(), "127.0.0.1", 0, server_context(ca), admission=door) as port:
        client = client_socket()
        await loop.sock_connect(client, ("127.0.0.1", port))
        await until(lambda: door.open == 1)
        await loop.sock_sendall(client, garbage)
        reset(client) if rude else client.close()
        await until(lambda: door.open == 0)
        assert door.refused == {Refused.HANDSHAKE: 1}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def wait_for_ever(request: web.Request) -> web.Response:
    """Answer once the client is gone."""
    request.app[WAITS].set()
    transport = request.transport
    await until(lambda: transport is None or transport.is_closing())
    return web.Response(body=b"x" * 1_000_000)


async def stream(request: web.Request) -> web.StreamResponse:
    """Send for as long as somebody listens."""
    request.app[WAITS].set()
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 100_000)
        await asyncio.sleep(0)


WAITS = web.AppKey("WAITS", asyncio.Event)
IN_A_BODY = "POST / HTTP/1.1\r\nHost: relay\r\nContent-Length: 1000\r\n\r\n{"
HANGING = [
    IN_A_BODY,
    IN_A_BODY.replace("Content-Length: 1000", "Transfer-Encoding: chunked"),
    "GET / HTTP/1.1\r\nHost: rel",
    "GET /waits HTTP/1.1\r\nHost: relay\r\n\r\n",
    "GET /streams HTTP/1.1\r\nHost: relay\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: relay\r\n\r\n" * 50,
    "nonsense\r\n\r\n",
]


@pytest.mark.parametrize("way", ["closes", "resets", "resets below TLS", "sends garbage below TLS"])
@pytest.mark.parametrize("text", HANGING)
async def test_who_hangs_up_is_no_error(ca: trustme.CA, text: str, way: str, caplog: pytest.LogCaptureFixture) -> None:
    door, app = Admission(), application()
    app[WAITS] = asyncio.Event()
    app.router.add_get("/waits", wait_for_ever)
    app.router.add_get("/streams", stream)
    tls = server_context(ca) if "TLS" in way else None
    caplog.set_level(logging.INFO)
    async with open_listener(app, "127.0.0.1", 0, tls, admission=door) as port:
        await asyncio.to_thread(_hang_up, port, text, way, client_context(ca) if tls else None)
        await until(lambda: door.open == 0)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING or record.exc_info]


def _hang_up(port: int, text: str, way: str, tls: ssl.SSLContext | None) -> None:
    client = socket.create_connection(("127.0.0.1", port))
    if tls is not None:
        below = socket.socket(fileno=os.dup(client.fileno()))
        client = tls.wrap_socket(client, server_hostname="localhost")
        client.sendall(text.encode())
        client.settimeout(0.1)
        if "garbage" in way:
            below.sendall(b"\x17\x03\x03\x00\x20" + b"garbage!" * 4)  # 17 03 03 00 20: a record of data, 32 bytes
            below.shutdown(socket.SHUT_WR)
        os.close(client.detach())
        reset(below)
        return
    client.sendall(text.encode())
    reset(client) if way == "resets" else client.close()


async def test_a_few_requests_begin_in_each_turn_of_the_loop() -> None:
    turns, loop = Turns(2), asyncio.get_running_loop()
    began: list[int] = []

    async def request(number: int) -> None:
        await turns.wait()
        began.append(number)

    tasks = [loop.create_task(request(number)) for number in range(7)]
    seen = []
    for _ in range(20):
        await asyncio.sleep(0)
        seen.append(len(began))
        if len(seen) == 2:
            tasks[4].cancel()

    assert began == [0, 1, 2, 3, 5, 6]
    assert max(later - before for before, later in pairwise([0, *seen])) == 2
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_door_shows_new_clients_another_certificate_and_sees_the_others_out() -> None:
    first, second = trustme.CA(), trustme.CA()
    door = Door(server_context(first))
    async with open_listener(application(), "127.0.0.1", 0, door) as port:
        url = f"https://localhost:{port}/"

        def client(ca: trustme.CA) -> ClientSession:
            return ClientSession(connector=TCPConnector(ssl=client_context(ca)))

        async with client(first) as old, client(second) as new:
            await (await old.get(url)).read()
            door.tls = server_context(second)
            await (await old.get(url)).read()  # over the connection that it has
            await (await new.get(url)).read()

            door.see_out()
            with pytest.raises(ClientConnectorCertificateError):
                await old.get(url)


async def test_a_listener_takes_sockets_that_listen_already() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        async with open_listener(application(), "192.0.2.1", 1, sockets=[listening.dup()]) as found:
            assert found == port
            async with ClientSession() as client:
                assert (await client.get(f"http://127.0.0.1:{port}/")).status == 200
