"""Mail servers through proxies of other projects: tinyproxy, Squid, microsocks and Dante, and MIT's KDC for Squid."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from eas_watcher.breaker import JITTER
from eas_watcher.commands.request import SMALL, HttpRequest
from eas_watcher.errors import Unreachable
from eas_watcher.proxy.proxy import Proxy
from eas_watcher.proxy.refusals import Refusals
from eas_watcher.reasons import Reason
from eas_watcher.transport.http import open_transport
from relay.domain.model import Platform
from relay.domain.outcome import Delivered
from relay.network.route import Route
from relay.sandbox.certificates import ThrowAwayCa
from relay.sandbox.eas.server import open_eas_simulator
from relay.sandbox.installation import APP
from tests.integration.push_world import apns, fcm
from tests.interop.kerberos.library import install_library
from tests.interop.kerberos.mit import running_kdc
from tests.interop.kerberos.realm import PROXY, RELAY, Realm
from tests.interop.packages import Unavailable, unavailable
from tests.interop.proxies import PASSWORD, USER, RealProxy, site_behind, squid, tinyproxy
from tests.interop.socks import dante, microsocks
from tests.ports import free_port
from tests.site import PASSWORD as MAIL_PASSWORD
from tests.site import healed, part_of
from tests.unit.relay.push.pushes import due_push
from tests.waiting import SOON, until


@dataclass(frozen=True)
class Proxies:
    """The proxies, by the name of what is spoken to them."""

    real: dict[str, RealProxy]
    ca: Path
    blocked: int
    """A port that Dante's rules do not allow."""

    def at(self, name: str) -> Proxy:
        kind = name.partition(" ")[0]
        port = self.real[kind].tls_port if name == "squid over TLS" else self.real[kind].port
        proxy = Proxy("127.0.0.1", port, "servers.main.proxy", USER, PASSWORD)
        if name == "squid over TLS":
            return replace(proxy, tls=True, ca_file=self.ca)
        if kind == "microsocks":
            return replace(proxy, speaks="socks5h" if name.endswith("names") else "socks5")
        if kind == "dante":
            return replace(proxy, speaks="socks5h" if name.endswith("names") else "socks5", user="", password="")
        return proxy


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with ExitStack() as stack:
        try:
            install_library()
            found = stack.enter_context(running_kdc())
        except Unavailable as reason:
            unavailable(reason)
        yield found


@pytest.fixture(scope="module")
def proxies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxies]:
    ca, folder = ThrowAwayCa("Of the proxy"), tmp_path_factory.mktemp("proxies")
    ca.write_ca(folder / "proxy-ca.pem")
    blocked = free_port()
    with ExitStack() as stack:
        try:
            real = {
                "tinyproxy": stack.enter_context(tinyproxy([])),
                "squid": stack.enter_context(squid(ca)),
                "microsocks": stack.enter_context(microsocks()),
                "dante": stack.enter_context(dante(blocked)),
            }
        except Unavailable as reason:
            unavailable(reason)
        yield Proxies(real, folder / "proxy-ca.pem", blocked)


def options(url: str) -> HttpRequest:
    return HttpRequest("OPTIONS", url, {}, b"", SOON, SMALL)


async def status(proxy: Proxy, host: str = "127.0.0.1", *, http2: bool = False) -> int:
    """Return the status of one request to a mail server through a proxy."""
    ca = ThrowAwayCa()
    offered = ca.client_context() if http2 else None
    async with (
        asyncio.timeout(SOON),
        open_eas_simulator(tls=ca.server_context()) as eas,
        open_transport(ca.client_context(), http2=offered, proxy=proxy) as transport,
    ):
        return (await transport.send(options(eas.url.replace("127.0.0.1", host)))).status


async def refusal(proxy: Proxy, port: int = 1) -> Unreachable:
    async with asyncio.timeout(SOON), open_transport(proxy=proxy) as transport:
        with pytest.raises(Unreachable) as caught:
            await transport.send(options(f"https://127.0.0.1:{port}/"))
    return caught.value


SERVER = "SERVERS__SANDBOX"
HTTP = ("tinyproxy", "squid", "squid over TLS")
SOCKS = ("microsocks", "microsocks by names", "dante", "dante by names")


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("name", [*HTTP, *SOCKS])
async def test_a_mail_server_answers_through_it(proxies: Proxies, name: str, http2: bool) -> None:
    real = proxies.real[name.partition(" ")[0]]
    before = len(real.targets)
    assert await status(proxies.at(name), http2=http2) == 401
    await until(lambda: len(real.targets) > before)


@pytest.mark.parametrize("name", ["microsocks by names", "dante by names", "microsocks", "squid"])
async def test_a_name_is_looked_up_where_it_should_be(proxies: Proxies, name: str) -> None:
    assert await status(proxies.at(name), "localhost") == 401


@pytest.mark.parametrize("name", [*HTTP, "microsocks"])
async def test_a_wrong_password_is_named_as_the_proxys(proxies: Proxies, name: str) -> None:
    error = await refusal(replace(proxies.at(name), password="wrong", refusals=Refusals()))

    assert error.reason is Reason.PROXY_REFUSES
    assert "proxy-authentication-required" in str(error)
    assert "wrong" not in str(error)


@pytest.mark.parametrize("name", [*HTTP, *SOCKS])
async def test_a_mail_server_out_of_its_reach_is_named_as_that(proxies: Proxies, name: str) -> None:
    error = await refusal(proxies.at(name))

    assert error.reason is Reason.UNREACHABLE
    assert "proxy-cannot-reach" in str(error)


@pytest.mark.parametrize("name", SOCKS)
async def test_pushes_go_through_socks_as_well(proxies: Proxies, tmp_path: Path, name: str) -> None:
    async with asyncio.timeout(SOON), apns(tmp_path, route=Route(proxies.at(name))) as (simulator, sender):
        assert isinstance(await sender.send(due_push()), Delivered)
        assert len(simulator.received) == 1


async def test_a_rule_of_dante_is_named(proxies: Proxies) -> None:
    error = await refusal(proxies.at("dante"), proxies.blocked)

    assert error.reason is Reason.PROXY_REFUSES
    assert "proxy-denied" in str(error)


async def test_http_spoken_to_socks_and_the_other_way_round(proxies: Proxies) -> None:
    as_http = replace(proxies.at("dante"), speaks="http")
    as_socks = replace(proxies.at("tinyproxy"), speaks="socks5h")
    for proxy in (as_http, as_socks):
        assert (await refusal(proxy)).reason is Reason.PROXY_AWAY


def negotiating(proxy: RealProxy, **changes: object) -> Proxy:
    """Return a Squid that wants tickets, and the relay's keytab for it."""
    found = Proxy("localhost", proxy.port, "servers.main.proxy", RELAY, negotiates=True)
    return replace(found, **changes)  # type: ignore[arg-type]  # values of several types


async def test_squid_takes_tickets_and_nothing_else(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRB5_CONFIG", str(realm.krb5_conf))
    with squid(ThrowAwayCa("Of the proxy"), realm) as proxy:
        assert await status(negotiating(proxy, keytab=realm.keytab("relay"))) == 401

        with_password = await refusal(negotiating(proxy, negotiates=False, password="x"))
        assert 'takes Negotiate only: set servers.main.proxy_auth = "negotiate"' in str(with_password)

        elsewhere = negotiating(proxy, host="127.0.0.1", keytab=realm.keytab("relay"))
        error = await refusal(elsewhere)
        assert error.reason is Reason.PROXY_AWAY
        assert "proxy-ticket-missing" in str(error)

        of_another = negotiating(proxy, user="ann@EXAMPLE.COM", keytab=realm.keytab("relay"))
        assert "proxy-ticket-missing" in str(await refusal(of_another))


async def test_pushes_go_through_squid_by_tickets(
    realm: Realm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KRB5_CONFIG", str(realm.krb5_conf))
    with squid(ThrowAwayCa("Of the proxy"), realm) as proxy:
        route = Route(negotiating(proxy, keytab=realm.keytab("relay")))
        async with asyncio.timeout(SOON), fcm(tmp_path, route=route) as (simulator, sender):
            assert isinstance(await sender.send(due_push(platform=Platform.FCM)), Delivered)
            assert len(simulator.received) == 1


async def test_the_ticket_cache_of_the_process_will_do(
    realm: Realm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KRB5_CONFIG", str(realm.krb5_conf))
    monkeypatch.setenv("KRB5_CLIENT_KTNAME", str(realm.keytab("ann")))
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path}/cache")
    with squid(ThrowAwayCa("Of the proxy"), realm) as proxy:
        assert await status(negotiating(proxy, user="")) == 401
    assert PROXY.encode().partition(b"@")[0].partition(b"/")[2] in (tmp_path / "cache").read_bytes()


async def test_a_kdc_that_is_away_is_named(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRB5_CONFIG", str(realm.krb5_conf))
    with squid(ThrowAwayCa("Of the proxy"), realm) as proxy:
        realm.daemon.stop()
        try:
            error = await refusal(negotiating(proxy, keytab=realm.keytab("relay")))
        finally:
            realm.daemon.start()
    assert error.reason is Reason.PROXY_AWAY
    assert "no Kerberos ticket for the proxy" in str(error)


@pytest.mark.parametrize("kind", ["tinyproxy", "microsocks"])
async def test_a_proxy_that_is_killed_is_told_and_its_pings_come_back(tmp_path: Path, kind: str) -> None:
    try:
        opened = tinyproxy([]) if kind == "tinyproxy" else microsocks()
        with opened as proxy:
            url = f"socks5h://127.0.0.1:{proxy.port}" if kind == "microsocks" else proxy.url
            async with (
                site_behind(proxy, tmp_path, SERVER, RELAY__SERVERS__SANDBOX__PROXY=url) as site,
                site.relay() as relay,
            ):
                assert (await site.register())[0] == 201
                await site.held()
                site.deliver()
                assert [push.status for push in await site.sandbox.apns.wait(1, SOON)] == [200]
                assert proxy.targets

                proxy.daemon.stop(kill=True)
                name = "server sandbox"
                found = await part_of(relay, name, "proxy-refused")
                assert "servers.NAME.proxy" in found["remedy"]
                site.deliver()

                proxy.daemon.start()
                assert [push.status for push in await site.sandbox.apns.wait(2, 4 * SOON)] == [200, 200]
                await site.held()
                await healed(relay)
                log = relay.log.read_text()
            assert PASSWORD not in log
            assert not site.sandbox.eas.records.overlaps
    except Unavailable as reason:
        unavailable(reason)


RATE = 4.0  # mailboxes a second
MANY = 24


async def test_after_a_proxy_was_killed_the_pings_come_back_at_a_measured_pace(tmp_path: Path) -> None:
    try:
        with tinyproxy([]) as proxy:
            more = {"RELAY__SERVERS__SANDBOX__HTTP2": "off", "RELAY__SERVERS__SANDBOX__RETURN_RATE": str(RATE)}
            async with site_behind(proxy, tmp_path, SERVER, **more) as site, site.relay():
                eas, users = site.sandbox.eas, [f"user{number}@example.com" for number in range(MANY)]
                for number, user in enumerate(users):
                    eas.add_mailbox(user, MAIL_PASSWORD)
                    device = {"platform": "apns", "token": f"{number:064x}", "app": APP}
                    assert (await site.register(user, device=device))[0] == 201
                await site.held(MANY)
                proxy.daemon.stop(kill=True)
                await until(lambda: eas.held == 0)
                before = {user: len(eas.records.log(user)) for user in users}
                proxy.daemon.start()
                await until(lambda: eas.held == MANY, 4 * SOON)
                firsts = sorted(eas.records.log(user)[before[user]].moment for user in users)
    except Unavailable as reason:
        unavailable(reason)
    # The probe and the first one wait for nobody; each other one waits for half an interval at least.
    assert firsts[-1] - firsts[0] >= (MANY - 2) * (1.0 - JITTER) / RATE
    assert not eas.records.overlaps
