"""Requests to mail servers through proxies that work and that fail; whose fault it is, and what the proxy learns."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from eas_watcher.auth.bearer import OAuthCredential
from eas_watcher.auth.grant import OAuthClient
from eas_watcher.commands.request import SMALL, HttpRequest
from eas_watcher.errors import Unreachable
from eas_watcher.machine.state import Policy
from eas_watcher.proxy.faults import NotConnected
from eas_watcher.proxy.proxy import Proxy, Speaks
from eas_watcher.reasons import Reason
from eas_watcher.server.admissions import Admissions
from eas_watcher.transport.connecting import Connector
from eas_watcher.transport.http import HttpTransport, open_transport
from eas_watcher.transport.sources import Sources
from eas_watcher.transport.tls import client_context
from eas_watcher.transport.tunnel import tunnels_over
from relay.compose.servers import MailServers
from relay.domain.model import AUTODISCOVER
from relay.process.clock import now
from relay.sandbox.certificates import ThrowAwayCa
from relay.settings.values import AutodiscoverSettings, OAuthSettings, ServerSettings
from tests.fakes.proxy import ConnectProxy, connect_proxy, never_ends, says
from tests.fakes.socks import SocksProxy, socks_proxy
from tests.fakes.tls import HOST, Authority, read_request, talking
from tests.integration.eas_world import ANN, OVER_HTTP_2, PASSWORD, hurried, hurry, world
from tests.waiting import SOON, until

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
LOGIN = "relay:hunter2"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await read_request(reader)
        writer.write(HELLO)


def post(url: str) -> HttpRequest:
    return HttpRequest("POST", url, {"Authorization": "Basic YW5uOnNlY3JldA=="}, b"\x03\x01", 30.0, SMALL)


def at(proxy: ConnectProxy | SocksProxy, speaks: Speaks = "http", login: str = "") -> Proxy:
    user, _, password = login.partition(":")
    return Proxy(HOST, proxy.port, "servers.main.proxy", user, password, speaks=speaks)


@asynccontextmanager
async def through(authority: Authority, proxy: Proxy) -> AsyncIterator[HttpTransport]:
    async with asyncio.timeout(SOON), open_transport(authority.client, proxy=proxy) as transport:
        yield transport


async def refusal(transport: HttpTransport, url: str) -> Unreachable:
    with pytest.raises(Unreachable) as caught:
        await transport.send(post(url))
    assert not caught.value.reached
    assert "hunter2" not in str(caught.value)
    return caught.value


@pytest.mark.both_loops
async def test_a_request_goes_through_a_tunnel_and_the_proxy_gets_no_password_of_a_user(authority: Authority) -> None:
    async with talking(authority, hello) as url, connect_proxy(ConnectProxy(user=LOGIN)) as proxy:
        async with through(authority, at(proxy, login=LOGIN)) as transport:
            replies = [await transport.send(post(url)) for _ in range(2)]
        heads = b"".join(proxy.heads)

    assert [reply.body for reply in replies] == [b"hello", b"hello"]
    assert proxy.targets == [url.removeprefix("https://")]
    assert b"YW5uOnNlY3JldA==" not in heads
    assert b"\r\nAuthorization" not in heads


async def test_the_mail_server_gets_nothing_of_the_proxys_credential(authority: Authority) -> None:
    heads: list[bytes] = []

    async def notes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(HELLO)
        await writer.drain()

    async with (
        talking(authority, notes) as url,
        connect_proxy(ConnectProxy(user=LOGIN)) as proxy,
        through(authority, at(proxy, login=LOGIN)) as transport,
    ):
        await transport.send(post(url))

    assert b"proxy" not in heads[0].lower()


@pytest.mark.parametrize(("speaks", "host"), [("socks5", "127.0.0.1"), ("socks5h", "localhost")])
@pytest.mark.both_loops
async def test_a_socks_proxy_gets_the_address_or_the_name(authority: Authority, speaks: Speaks, host: str) -> None:
    async with socks_proxy(SocksProxy(user=LOGIN)) as proxy, talking(None, hello) as url:
        target = url.replace("https://127.0.0.1", "http://localhost")
        async with through(authority, at(proxy, speaks, LOGIN)) as transport:
            reply = await transport.send(post(target))

    assert reply.body == b"hello"
    assert proxy.targets[-1] == f"{host}:{target.rpartition(':')[2]}"
    assert proxy.logins[-1] == LOGIN


async def test_each_address_of_a_name_that_the_relay_looks_up_is_tried(authority: Authority) -> None:
    async with socks_proxy(SocksProxy(reply=4)) as proxy, through(authority, at(proxy, "socks5")) as transport:
        error = await refusal(transport, "https://localhost:1")

    assert error.reason is Reason.UNREACHABLE
    assert "the host cannot be reached" in str(error)
    assert len(set(proxy.targets)) == len(proxy.targets)


@pytest.mark.both_loops
async def test_tls_to_the_proxy_and_tls_to_the_server_within(authority: Authority, tmp_path: Path) -> None:
    ca = ThrowAwayCa("Of the proxy")
    ca.write_ca(tmp_path / "ca.pem")
    async with talking(authority, hello) as url, connect_proxy(tls=ca.server_context()) as proxy:
        secure = replace(at(proxy), tls=True, ca_file=tmp_path / "ca.pem")
        async with through(authority, secure) as transport:
            assert (await transport.send(post(url))).body == b"hello"
        stranger = replace(at(proxy, login=LOGIN), tls=True)
        async with through(authority, stranger) as transport:
            error = await refusal(transport, url)

    assert error.reason is Reason.PROXY_REFUSES
    assert "proxy-certificate-not-trusted" in str(error)
    assert len(proxy.heads) == 1


@pytest.mark.parametrize(
    ("answer", "reason", "code"),
    [
        (says(b"HTTP/1.1 403 No\r\n\r\n"), Reason.PROXY_REFUSES, "proxy-denied"),
        (says(b"HTTP/1.1 502 No\r\n\r\n"), Reason.UNREACHABLE, "proxy-cannot-reach"),
        (says(b"HTTP/1.1 407 No\r\n\r\n"), Reason.PROXY_REFUSES, "proxy-authentication-required"),
        (says(b"SSH-2.0-OpenSSH\r\n"), Reason.PROXY_AWAY, "proxy-speaks-no-http"),
        (says(b"HTTP/1.1 200 OK\r\n\r\nearly"), Reason.PROXY_AWAY, "proxy-speaks-no-http"),
        (says(b"HTTP/1.1 20"), Reason.PROXY_AWAY, "proxy-hangs-up"),
        (never_ends, Reason.PROXY_AWAY, "proxy-speaks-no-http"),
    ],
)
async def test_the_fault_of_a_proxy_is_told_as_its_own(
    authority: Authority, answer: object, reason: Reason, code: str
) -> None:
    async with (
        connect_proxy(ConnectProxy(talk=answer)) as proxy,  # type: ignore[arg-type]  # one of several functions
        through(authority, at(proxy)) as transport,
    ):
        error = await refusal(transport, "https://mail.example.com")

    assert error.reason is reason
    assert str(error).startswith(code)


@pytest.mark.parametrize("speaks", ["http", "socks5h"])
async def test_a_proxy_that_is_away_is_not_taken_for_the_mail_server(authority: Authority, speaks: Speaks) -> None:
    async with socks_proxy() as proxy:
        gone = at(proxy, speaks)
    async with through(authority, gone) as transport:
        error = await refusal(transport, "https://mail.example.com")

    assert error.reason is Reason.PROXY_AWAY
    assert "servers.main.proxy" in str(error)


@pytest.mark.parametrize("speaks", ["http", "socks5h"])
async def test_a_proxy_that_hangs_is_named_with_what_it_owes(speaks: Speaks) -> None:
    half = says(b"HTTP/1.1 200 OK\r\n" if speaks == "http" else b"\x05", then_hold=True)
    async with AsyncExitStack() as stack:
        proxy: ConnectProxy | SocksProxy
        if speaks == "http":
            proxy = await stack.enter_async_context(connect_proxy(ConnectProxy(talk=half)))
        else:
            proxy = await stack.enter_async_context(socks_proxy(SocksProxy(talk=half)))
        tunnels = tunnels_over(at(proxy, speaks), Connector(Sources(())))
        with pytest.raises(NotConnected) as caught:
            await tunnels.open("mail.example.com", 443, asyncio.get_running_loop().time() + 0.3)

    assert caught.value.reason == "proxy-timed-out"
    assert ("answer to CONNECT" if speaks == "http" else "answer to SOCKS5") in caught.value.remedy


async def test_a_hostile_socks_proxy_gets_no_further_than_its_message(authority: Authority) -> None:
    for answer in (b"HTTP/1.1 400 Bad\r\n\r\n", b"\x05", b"\x05\x00\x05\x00", b"\x05\x07", b"\xff" * 70_000):
        async with (
            socks_proxy(SocksProxy(talk=says(answer))) as proxy,
            through(authority, at(proxy, "socks5h")) as transport,
        ):
            error = await refusal(transport, "https://mail.example.com")
        assert error.reason is Reason.PROXY_AWAY


async def test_a_refused_password_is_shown_once_however_many_ask(authority: Authority) -> None:
    async with connect_proxy(ConnectProxy(user=LOGIN)) as proxy:
        wrong = at(proxy, login="relay:wrong")
        async with through(authority, wrong) as transport, through(authority, wrong) as other:
            asking = [each.send(post("https://mail.example.com")) for each in [transport, other] * 10]
            failures = await asyncio.gather(*asking, return_exceptions=True)

    assert all(isinstance(failure, Unreachable) for failure in failures)
    assert {failure.reason for failure in failures if isinstance(failure, Unreachable)} == {Reason.PROXY_REFUSES}
    assert len(proxy.heads) == 1
    assert "not shown for" in str(failures[-1])


async def test_a_connection_that_gives_up_lets_the_next_one_try_the_credential(authority: Authority) -> None:
    silent = ConnectProxy(user=LOGIN, talk=says(then_hold=True))
    async with (
        talking(authority, hello) as url,
        connect_proxy(silent) as proxy,
        through(authority, at(proxy, login=LOGIN)) as transport,
    ):
        first = asyncio.ensure_future(transport.send(post(url)))
        await until(lambda: len(proxy.heads) == 1)
        second = asyncio.ensure_future(transport.send(post(url)))
        await asyncio.sleep(0)
        proxy.talk = None
        first.cancel()
        assert (await second).body == b"hello"


@pytest.mark.parametrize("http2", [False, True])
async def test_pings_are_held_through_a_tunnel_and_come_back_after_the_proxy_was_away(http2: bool) -> None:
    token = OVER_HTTP_2.set(http2)
    try:
        async with connect_proxy() as proxy, world(proxy=at(proxy)) as watched:
            watched.start()
            await watched.until_held()
            assert proxy.tunnels >= 1
            port = proxy.port
            await proxy.stop()
            await until(lambda: bool(watched.ann.conditions) and watched.ann.conditions[-1].reason is not None)
            await until(lambda: watched.ann.conditions[-1].reason is Reason.PROXY_AWAY)
            assert "proxy-refused" in watched.ann.conditions[-1].detail
            async with connect_proxy(port=port):
                await watched.until_held(2)
                await watched.stop()
    finally:
        OVER_HTTP_2.reset(token)


async def test_a_mail_arrives_through_socks() -> None:
    async with socks_proxy() as proxy, world(proxy=at(proxy, "socks5h")) as watched:
        watched.start()
        await watched.until_held()
        watched.simulator.deliver(ANN, subject="New")
        await until(lambda: bool(watched.ann.changes))
        await watched.stop()
        assert PASSWORD.encode() not in b"".join(target.encode() for target in proxy.targets)


async def test_no_tls_session_of_another_route_is_resumed(authority: Authority) -> None:
    resumed: list[bool] = []

    async def notes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found = writer.get_extra_info("ssl_object")
        assert isinstance(found, ssl.SSLObject)
        resumed.append(bool(found.session_reused))
        await read_request(reader)
        writer.write(HELLO)
        await writer.drain()

    async with talking(authority, notes) as url, connect_proxy() as one, connect_proxy() as other:
        for proxy in (one, other):
            async with open_transport(authority.client, reuse=False, proxy=at(proxy)) as transport:
                for _ in range(2):
                    await transport.send(post(url))

    assert resumed == [False, True, False, True]


async def test_all_that_belongs_to_a_server_goes_by_its_own_way(tmp_path: Path) -> None:
    """The mail server, its token endpoint, and what only Autodiscover finds; nothing goes around the proxies."""
    no = says(b"HTTP/1.1 502 No\r\n\r\n")
    async with connect_proxy(ConnectProxy(talk=no)) as one, connect_proxy(ConnectProxy(talk=no)) as other:
        client = OAuthClient("https://login.example.com/token", "relay")
        server = ServerSettings(
            "https://mail.example.com/eas",
            None,
            frozenset(),
            Policy(),
            oauth=OAuthSettings(client, None),
            proxy=at(one),
        )
        hosts = frozenset({"autodiscover.example.net"})
        found = AutodiscoverSettings(hosts, None, Policy(hosts=hosts, discovered=True), proxy=at(other))
        servers = MailServers(client_context, Admissions(8, Random(1), now), {})
        servers.use(await servers.open({"main": server}, found, ()))
        main, discovered = servers.servers["main"], servers.servers[AUTODISCOVER]
        assert main.tokens is not None
        failures = [
            await failure(main.transport.send(post("https://mail.example.com/eas"))),
            await failure(main.tokens.refresh(OAuthCredential("ann", "secret"))),
            await failure(discovered.transport.send(post("https://autodiscover.example.net/"))),
            await failure(discovered.transport.send(post("https://mail.example.com/eas"))),
        ]
        await servers.close()

    assert [error.reason for error in failures] == [Reason.UNREACHABLE] * 4
    assert one.targets == ["mail.example.com:443", "login.example.com:443", "mail.example.com:443"]
    assert other.targets == ["autodiscover.example.net:443"]


async def failure(asking: Awaitable[object]) -> Unreachable:
    async with asyncio.timeout(SOON):
        with pytest.raises(Unreachable) as caught:
            await asking
    return caught.value


@hurried
async def test_a_proxy_that_cuts_idle_tunnels_shortens_the_heartbeat() -> None:
    async with connect_proxy() as proxy, world(proxy=at(proxy)) as watched:
        watched.start()
        await watched.until_held()
        hurry(100.0)
        proxy.cut()
        watched.simulator.deliver(ANN)
        await watched.until_changed()
        (device,) = watched.simulator.devices(ANN)

        assert device.ping is not None
        assert 60 <= device.ping.heartbeat <= 76
        await watched.stop()
