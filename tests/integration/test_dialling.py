"""Connections through proxies that work and that fail, from chosen addresses."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from eas_watcher.proxy.faults import NotConnected
from eas_watcher.proxy.proxy import Proxy
from eas_watcher.transport.lookups import AddressInfo, look_up
from relay.network.dialling import Dialler
from relay.network.route import DIRECT, Route
from relay.push.failures import read_failure
from relay.sandbox.certificates import ThrowAwayCa
from tests.fakes.proxy import WANTS_BASIC, ConnectProxy, Talk, connect_proxy, never_ends, says
from tests.fakes.tls import talking
from tests.integration.push_world import failure, silent_server
from tests.ports import free_port
from tests.waiting import until

SOON = 20.0  # seconds; a limit, never a wait


class Greeted(asyncio.Protocol):
    """A client that keeps what the server sends, and can answer."""

    def __init__(self) -> None:
        self.greeting: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.BaseTransport | None = None
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert self.transport is None
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        self.greeting.set_result(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class Target:
    """A server that greets each client at once, and keeps the addresses of its clients."""

    def __init__(self, folder: Path) -> None:
        self.ca = ThrowAwayCa()
        self.ca.write_ca(folder / "ca.pem")
        self.trust = ssl.create_default_context(cafile=folder / "ca.pem")
        self.port = 0
        self.peers: list[str] = []

    async def serve(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peers.append(writer.get_extra_info("peername")[0])
        writer.write(b"hello")
        await writer.drain()
        writer.close()


@asynccontextmanager
async def target(folder: Path, host: str = "127.0.0.1") -> AsyncIterator[Target]:
    opened = Target(folder)
    server = await asyncio.start_server(opened.serve, host, 0, ssl=opened.ca.server_context())
    opened.port = int(server.sockets[0].getsockname()[1])
    try:
        yield opened
    finally:
        server.close()


async def greeting(dialler: Dialler, host: str, port: int, tls: ssl.SSLContext | None) -> bytes:
    async with asyncio.timeout(SOON):
        protocol = await dialler.connect(Greeted, host, port, tls)
        said = await protocol.greeting
        cast("asyncio.Transport", protocol.transport).abort()
        await protocol.lost.wait()
        return said


async def fails(dialler: Dialler, host: str, port: int, tls: ssl.SSLContext | None = None) -> NotConnected:
    async with asyncio.timeout(SOON):
        with pytest.raises(NotConnected) as caught:
            await dialler.connect(Greeted, host, port, tls)
        return caught.value


def through(proxy: ConnectProxy, limit: float = SOON, **options: str) -> Dialler:
    return Dialler(Route(Proxy("127.0.0.1", proxy.port, **options)), limit=limit)  # type: ignore[arg-type]


async def test_without_a_proxy_a_connection_is_direct(tmp_path: Path) -> None:
    async with target(tmp_path) as there:
        assert await greeting(Dialler(DIRECT), "localhost", there.port, there.trust) == b"hello"


@pytest.mark.parametrize(
    "opened",
    [
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nVia: tinyproxy\r\n\r\n",
        b"HTTP/1.1 299 \r\nContent-Length: 5\r\n\r\n",
    ],
)
@pytest.mark.both_loops
async def test_tls_goes_through_a_tunnel(tmp_path: Path, opened: bytes) -> None:
    async with target(tmp_path) as there, connect_proxy(ConnectProxy(opened=opened)) as proxy:
        # A name that only the proxy's resolver knows: the proxy gets the name, not an address.
        assert await greeting(through(proxy), "localhost", there.port, there.trust) == b"hello"
        assert proxy.targets == [f"localhost:{there.port}"]


async def test_plain_bytes_go_through_a_tunnel_too() -> None:
    async with connect_proxy(ConnectProxy(talk=says(b"HTTP/1.1 200 OK\r\n\r\n", then_hold=True))) as proxy:
        protocol = await through(proxy).connect(Greeted, "localhost", 1, None)
        assert protocol.transport is not None
        proxy.cut()
        async with asyncio.timeout(SOON):
            await protocol.lost.wait()


async def test_the_proxy_gets_user_and_password(tmp_path: Path) -> None:
    async with target(tmp_path) as there, connect_proxy(ConnectProxy(user="relay:hunter2")) as proxy:
        known = through(proxy, user="relay", password="hunter2")
        assert await greeting(known, "localhost", there.port, there.trust) == b"hello"

        for stranger in (through(proxy), through(proxy, user="relay", password="wrong")):
            fault = await fails(stranger, "localhost", there.port, there.trust)
            assert (fault.reason, fault.lasting) == ("proxy-authentication-required", True)
        assert len(there.peers) == 1


@pytest.mark.parametrize(("proxy_tls", "proxy_host"), [(True, "localhost"), (True, "127.0.0.1")])
@pytest.mark.both_loops
async def test_the_connection_to_a_proxy_may_use_tls(tmp_path: Path, proxy_tls: bool, proxy_host: str) -> None:
    ca = ThrowAwayCa("Of the proxy")
    ca.write_ca(tmp_path / "proxy-ca.pem")
    async with target(tmp_path) as there, connect_proxy(tls=ca.server_context()) as proxy:
        route = Route(Proxy(proxy_host, proxy.port, tls=proxy_tls, ca_file=tmp_path / "proxy-ca.pem"))
        assert await greeting(Dialler(route), "localhost", there.port, there.trust) == b"hello"
        assert proxy.targets == [f"localhost:{there.port}"]


async def test_a_proxy_with_an_untrusted_certificate_never_gets_the_password(tmp_path: Path) -> None:
    ThrowAwayCa("Another").write_ca(tmp_path / "other.pem")
    async with connect_proxy(tls=ThrowAwayCa().server_context()) as proxy:
        route = Route(Proxy("localhost", proxy.port, tls=True, ca_file=tmp_path / "other.pem", user="relay"))
        fault = await fails(Dialler(route), "localhost", 1)
        assert (fault.reason, fault.lasting) == ("proxy-certificate-not-trusted", True)
        assert proxy.heads == []


async def test_a_proxy_without_tls_has_a_reason_of_its_own() -> None:
    async def bad_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with talking(None, bad_request) as url:
        route = Route(Proxy("127.0.0.1", int(url.rpartition(":")[2]), tls=True))
        assert (await fails(Dialler(route), "localhost", 1)).reason == "proxy-tls-failed"


@pytest.mark.parametrize(
    ("talk", "reason"),
    [
        (says(b"HTTP/1.1 403 Filtered\r\n\r\n<html>"), "proxy-denied"),
        (says(b"HTTP/1.0 500 Unable to connect\r\nServer: tinyproxy\r\n\r\n"), "proxy-cannot-reach"),
        (says(b"HTTP/1.1 503 Service Unavailable\r\n\r\n", then_hold=True), "proxy-cannot-reach"),
        (says(WANTS_BASIC, then_hold=True), "proxy-authentication-required"),
        (says(b"SSH-2.0-OpenSSH_9.2p1\r\n", then_hold=True), "proxy-speaks-no-http"),
        (says(b"HTTP/1.1 2", b"00 OK\r", b"\n\r\nsurprise", then_hold=True), "proxy-speaks-no-http"),
        (says(), "proxy-hangs-up"),
        (says(b"HTTP/1.1 200 O"), "proxy-hangs-up"),
        (never_ends, "proxy-speaks-no-http"),
    ],
)
async def test_a_refusal_is_named_at_once(talk: Talk, reason: str) -> None:
    async with connect_proxy(ConnectProxy(talk=talk)) as proxy:
        # No limit helps here: it is longer than the test may take.
        fault = await fails(through(proxy, limit=1000.0), "api.push.apple.com", 443)
        assert fault.reason == reason
        assert f"127.0.0.1:{proxy.port}" in fault.remedy


@pytest.mark.parametrize(
    ("talk", "what"),
    [
        (says(then_hold=True), "answer to CONNECT"),
        (says(b"HTTP/1.1 200 OK\r\n\r\n", then_hold=True), "TLS through its tunnel"),
    ],
)
async def test_a_proxy_that_hangs_is_given_up_at_the_limit(tmp_path: Path, talk: Talk, what: str) -> None:
    async with target(tmp_path) as there, connect_proxy(ConnectProxy(talk=talk)) as proxy:
        fault = await fails(through(proxy, limit=1.5), "localhost", there.port, there.trust)
        assert (fault.reason, fault.lasting) == ("proxy-timed-out", False)
        assert what in fault.remedy
        proxy.talk = None
        assert await greeting(through(proxy), "localhost", there.port, there.trust) == b"hello"


async def test_a_proxy_that_reads_nothing_over_tls_is_given_up_at_the_limit() -> None:
    async with silent_server() as port:
        route = Route(Proxy("127.0.0.1", port, tls=True))
        fault = await fails(Dialler(route, limit=0.3), "localhost", 1)
        assert fault.reason == "proxy-timed-out"
        assert "no connection" in fault.remedy


async def test_a_tunnel_cut_during_the_handshake_is_a_lost_connection(tmp_path: Path) -> None:
    async with target(tmp_path) as there:
        proxy = ConnectProxy(talk=says(b"HTTP/1.1 200 OK\r\n\r\n"))
        async with connect_proxy(proxy), asyncio.timeout(SOON):
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await through(proxy).connect(Greeted, "localhost", there.port, there.trust)


async def test_a_tunnel_to_another_host_is_not_trusted(tmp_path: Path) -> None:
    ThrowAwayCa("Another").write_ca(tmp_path / "other.pem")
    async with target(tmp_path, "0.0.0.0") as there, connect_proxy() as proxy, asyncio.timeout(SOON):
        trust = ssl.create_default_context(cafile=tmp_path / "other.pem")
        with pytest.raises(ssl.SSLCertVerificationError):
            await through(proxy).connect(Greeted, "localhost", there.port, trust)
        with pytest.raises(ssl.SSLCertVerificationError):
            await through(proxy).connect(Greeted, "127.0.0.2", there.port, there.trust)


@pytest.mark.both_loops
async def test_cancelling_leaves_no_connection_to_the_proxy() -> None:
    gone = asyncio.Event()

    async def watch(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            gone.set()

    async with connect_proxy(ConnectProxy(talk=watch)) as proxy, asyncio.timeout(SOON):
        asking = asyncio.get_running_loop().create_task(through(proxy).connect(Greeted, "localhost", 1, None))
        await until(lambda: proxy.heads)
        asking.cancel()
        await gone.wait()


async def test_a_proxy_that_does_not_listen_has_a_reason_of_its_own() -> None:
    fault = await fails(Dialler(Route(Proxy("127.0.0.1", free_port()))), "localhost", 1)
    assert fault.reason == "proxy-refused"


@pytest.mark.parametrize("name", ["proxy.invalid", "x" * 70 + ".example.com"])
async def test_a_proxy_that_dns_does_not_know_has_a_reason_of_its_own(name: str) -> None:
    fault = await fails(Dialler(Route(Proxy(name, 3128))), "localhost", 1)
    assert fault.reason == "proxy-name-not-resolved"


@pytest.mark.parametrize("name", ["push.invalid", "x" * 70 + ".example.com"])
async def test_a_name_that_dns_does_not_know_fails_for_all_callers(name: str) -> None:
    dialler = Dialler(DIRECT)
    asking = [dialler.connect(Greeted, name, 443, None) for _ in range(20)]
    async with asyncio.timeout(SOON):
        answers = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(answer, socket.gaierror) for answer in answers)


@pytest.mark.parametrize("route", [DIRECT, Route(Proxy("proxy.example.com", 3128))])
async def test_name_servers_that_hang_are_asked_once_for_all_callers(route: Route) -> None:
    asked: list[str] = []

    async def hang(host: str, _: int) -> Sequence[AddressInfo]:
        asked.append(host)
        await asyncio.sleep(SOON)
        return []

    dialler = Dialler(route, limit=0.6, look_up=hang)
    for _ in range(2):
        assert (await fails(dialler, "push.example.com", 443)).reason == "name-lookup-timed-out"
    assert asked == ["push.example.com" if route is DIRECT else "proxy.example.com"]


async def test_callers_at_the_same_time_share_one_lookup(tmp_path: Path) -> None:
    async with target(tmp_path) as there:
        dialler = Dialler(DIRECT)
        await asyncio.gather(*(greeting(dialler, "localhost", there.port, there.trust) for _ in range(10)))
        assert len(there.peers) == 10


@pytest.mark.both_loops
async def test_a_connection_comes_from_the_source_address(tmp_path: Path) -> None:
    async with target(tmp_path) as there:
        await greeting(Dialler(Route(sources=("127.0.0.9",))), "127.0.0.1", there.port, there.trust)
        assert there.peers == ["127.0.0.9"]


async def test_the_proxy_too_is_reached_from_the_source_address(tmp_path: Path) -> None:
    peers: list[str] = []

    async def look(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer.get_extra_info("peername")[0])

    async with connect_proxy(ConnectProxy(talk=look)) as proxy:
        route = Route(Proxy("127.0.0.1", proxy.port), ("127.0.0.9",))
        assert (await fails(Dialler(route), "localhost", 1)).reason == "proxy-hangs-up"
    assert peers == ["127.0.0.9"]


@pytest.mark.parametrize(
    "route", [lambda port: Route(sources=("192.0.2.1",)), lambda port: Route(Proxy("127.0.0.1", port), ("192.0.2.1",))]
)
async def test_a_source_address_of_another_host_is_named(tmp_path: Path, route: Callable[[int], Route]) -> None:
    async with target(tmp_path) as there:
        fault = await fails(Dialler(route(there.port)), "127.0.0.1", there.port, there.trust)
        assert (fault.reason, fault.lasting) == ("source-address-unusable", True)
        assert "192.0.2.1" in fault.remedy


async def test_a_kind_of_address_without_a_source_is_not_used(tmp_path: Path) -> None:
    fault = await fails(Dialler(Route(sources=("127.0.0.9",))), "::1", 443)
    assert fault.reason == "source-address-of-another-kind"


@pytest.fixture
def ipv6() -> None:
    """Skip a test where the loopback has no IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 on the loopback")


@pytest.mark.usefixtures("ipv6")
async def test_ipv6_addresses_are_reached_directly_and_through_a_proxy(tmp_path: Path) -> None:
    async with target(tmp_path, "::1") as there, connect_proxy(host="::1") as proxy:
        route = Route(Proxy("::1", proxy.port))
        for dialler in (Dialler(DIRECT), Dialler(Route(sources=("127.0.0.9", "::1"))), Dialler(route)):
            assert await greeting(dialler, "::1", there.port, there.trust) == b"hello"
        assert proxy.targets == [f"[::1]:{there.port}"]
        assert set(there.peers) == {"::1"}


@pytest.mark.usefixtures("ipv6")
@pytest.mark.parametrize("works", ["127.0.0.1", "::1"])
async def test_a_host_with_both_kinds_is_reached_by_the_one_that_works(tmp_path: Path, works: str) -> None:
    async def both(_: str, port: int) -> Sequence[AddressInfo]:
        return [*await look_up("::1", port), *await look_up("127.0.0.1", port)]

    async with target(tmp_path, works) as there:
        dialler = Dialler(DIRECT, look_up=both)
        assert await greeting(dialler, "localhost", there.port, there.trust) == b"hello"
        assert there.peers == [works]


async def test_of_addresses_that_fail_in_different_ways_the_first_one_is_the_reason() -> None:
    async def two(_: str, port: int) -> Sequence[AddressInfo]:
        # One refuses; TCP to a broadcast address fails with ENETUNREACH on this host, before any packet leaves it.
        return [*await look_up("127.0.0.1", port), *await look_up("127.255.255.255", port)]

    async with asyncio.timeout(SOON):
        with pytest.raises(OSError, match="refused") as caught:
            await Dialler(DIRECT, look_up=two).connect(Greeted, "push.example.com", free_port(), None)
    assert failure(read_failure(caught.value, "apns.ca_file")) == "connection-refused"
