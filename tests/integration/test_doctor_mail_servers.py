"""Mail servers, token endpoints and Autodiscover with one fault each, as the doctor sees them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from aiohttp import web

from eas_watcher.auth.grant import OAuthClient
from eas_watcher.errors import AccessDenied, EasError
from eas_watcher.heartbeat import Heartbeat
from eas_watcher.machine.state import Policy
from eas_watcher.peer_clocks import PeerClocks
from eas_watcher.proxy.proxy import Proxy
from eas_watcher.proxy.refusals import Refusals
from eas_watcher.reasons import Reason
from eas_watcher.server.idle_timeout import IdleTimeout, Lesson
from relay.doctor.database import Known
from relay.doctor.mail_servers import MailServers, ask_kdc, proxies
from relay.doctor.plan import judge_clock
from relay.doctor.reaching import Proxies, place_of
from relay.network.route import Route
from relay.process.clock import now
from relay.settings.values import AutodiscoverSettings, OAuthSettings, ServerSettings
from relay.store.survey import ServerSurvey
from tests.fakes.chains import Authority, self_signed, serving_context
from tests.fakes.examined import Examined, found
from tests.fakes.openid import AUDIENCE, CLIENT_ID, CLIENT_SECRET, OpenIdSimulator, open_openid_simulator
from tests.fakes.proxy import ConnectProxy, connect_proxy
from tests.fakes.tls import HOST
from tests.integration.push_world import silent_server

VERSIONS = {"MS-ASProtocolVersions": "2.5,12.1,14.1,16.1", "MS-ASProtocolCommands": "Sync,Ping"}
Answer = Callable[[web.Request], Awaitable[web.Response]]


def says(headers: Mapping[str, str], status: int = 200) -> Answer:
    """Return a server that answers everything alike."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, headers=headers)

    return answer


@asynccontextmanager
async def serving(answer: Answer, pem: bytes | None = None, ca: Authority | None = None) -> AsyncIterator[int]:
    """Serve over TLS with a certificate of a CA; yield the port."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        context = serving_context(pem or (ca or CA).server([HOST]))
        await web.TCPSite(runner, HOST, 0, ssl_context=context).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


CA = Authority()
EXPIRED = CA.server([HOST], days=(-20, -1))
SOON = CA.server([HOST], days=(-20, 5))


def trusting(folder: Path, ca: Authority) -> Path:
    file = folder / "ca.pem"
    file.write_bytes(ca.pem)
    return file


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    return trusting(tmp_path, CA)


async def look(
    port: int, ca_file: Path, known: Known | None = None, clocks: PeerClocks | None = None, **changes: Any
) -> Examined:
    url = f"https://{HOST}:{port}/Microsoft-Server-ActiveSync"
    server = ServerSettings(**{"url": url, "ca_file": ca_file, "domains": frozenset(), "policy": Policy(), **changes})

    async def what_is_known() -> Known:
        return known or Known(())

    asks = MailServers(now, Random(1), clocks or PeerClocks(now))
    return found(await asks.look("main", server, what_is_known))


async def test_a_server_that_offers_what_the_relay_needs(ca_file: Path) -> None:
    async with serving(says(VERSIONS)) as port:
        examined = await look(port, ca_file)

    assert (examined.bad, examined.noted) == ([], [])
    assert examined.one("version", "servers.main").text == "offers 2.5, 12.1, 14.1, 16.1"


async def test_a_server_behind_a_proxy_is_asked_through_it(ca_file: Path) -> None:
    async with serving(says(VERSIONS)) as port, connect_proxy(ConnectProxy(user="relay:hunter2")) as front:
        proxy = Proxy(HOST, front.port, "servers.main.proxy", "relay", "hunter2")
        examined = await look(port, ca_file, proxy=proxy)
        refused = await look(port, ca_file, proxy=replace(proxy, password="wrong", refusals=Refusals()))

    assert (examined.bad, examined.noted) == ([], [])
    assert examined.one("version", "servers.main").text == "offers 2.5, 12.1, 14.1, 16.1"
    assert set(front.targets) == {f"{HOST}:{port}"}
    assert "the proxy in servers.main.proxy is not of use" in refused.one("TLS", "servers.main").text


async def test_a_refused_password_of_a_proxy_is_shown_once_by_all_checks(ca_file: Path) -> None:
    async with serving(says(VERSIONS)) as port, connect_proxy(ConnectProxy(user="relay:hunter2")) as front:
        wrong = Proxy(HOST, front.port, "servers.main.proxy", "relay", "wrong")
        url = f"https://{HOST}:{port}/"
        server = ServerSettings(url, ca_file, frozenset(), Policy(), proxy=wrong)
        nowhere = AutodiscoverSettings(frozenset(), None, Policy())
        asks = Proxies(now, [])
        (use,) = proxies({"main": server}, nowhere)
        (told,) = await asks.look(use)
        way = await asks.reach(place_of("servers.main", url, ca_file, "", Route(wrong)))

    assert told.text == "proxy-authentication-required"
    assert not way.open
    assert len(front.heads) == 1


@pytest.mark.parametrize(
    ("pem", "words", "remedy"),
    [
        (EXPIRED, "certificate has expired", "correct the clock of this host"),
        (CA.server(["mail.example.com"]), "IP address mismatch", "use a name in the URL"),
        (self_signed(), "self-signed certificate", "servers.main.ca_file"),
        (Authority("Inspection").server([HOST]), "issued by Inspection", "proxy that opens TLS"),
    ],
    ids=["expired", "another name", "self-signed", "inspected"],
)
async def test_a_certificate_that_is_not_trusted(ca_file: Path, pem: bytes, words: str, remedy: str) -> None:
    async with serving(says(VERSIONS), pem) as port:
        examined = await look(port, ca_file)

    shown = examined.one("TLS", "servers.main")
    assert examined.bad == [("TLS", "servers.main")]
    assert words in shown.text
    assert remedy in shown.remedy


async def test_a_certificate_that_expires_soon(ca_file: Path) -> None:
    async with serving(says(VERSIONS), SOON) as port:
        examined = await look(port, ca_file)

    assert examined.noted == [("TLS", "servers.main")]
    assert "expires soon" in examined.one("TLS", "servers.main").text


@pytest.mark.parametrize(
    ("flawed", "words"),
    [
        (Authority(critical=False), "Basic Constraints of CA cert not marked critical"),
        (Authority(key_usage=False), "CA cert does not include key usage extension"),
        (Authority(subject_id=False), "Missing Subject Key Identifier"),
    ],
)
async def test_a_ca_that_strict_software_refuses(tmp_path: Path, flawed: Authority, words: str) -> None:
    ca_file = trusting(tmp_path, flawed)
    async with serving(says(VERSIONS), ca=flawed) as port:
        examined = await look(port, ca_file)

    assert (examined.bad, examined.noted) == ([], [("TLS", "servers.main")])
    assert f"newer software refuses it: {words}" in examined.one("TLS", "servers.main").text


async def test_a_server_without_an_authority_key_identifier(ca_file: Path) -> None:
    async with serving(says(VERSIONS), CA.server([HOST], authority_id=False)) as port:
        examined = await look(port, ca_file)

    assert examined.noted == [("TLS", "servers.main")]
    assert "Missing Authority Key Identifier" in examined.one("TLS", "servers.main").text


async def test_a_port_that_speaks_no_tls(ca_file: Path) -> None:
    app = web.Application()
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    examined = await look(int(runner.addresses[0][1]), ca_file)
    await runner.cleanup()

    assert examined.bad == [("TLS", "servers.main")]
    assert "speaks no TLS" in examined.one("TLS", "servers.main").remedy


@pytest.mark.slow
async def test_a_firewall_that_swallows_the_handshake(ca_file: Path) -> None:
    async with silent_server() as port:
        examined = await look(port, ca_file)

    assert examined.bad == [("TLS", "servers.main")]
    assert "no handshake" in examined.one("TLS", "servers.main").text


@pytest.mark.parametrize(
    ("answer", "check", "words"),
    [
        (says({}), "ActiveSync", "no ActiveSync server"),
        (says({}, 404), "ActiveSync", "no ActiveSync at this URL (HTTP 404)"),
        (
            says({"Location": "https://mail.example.com/owa/"}, 302),
            "ActiveSync",
            "no ActiveSync at this URL (HTTP 302)",
        ),
        (says({}, 503), "ActiveSync", "cannot answer (HTTP 503)"),
        (says({}, 405), "ActiveSync", "does not take OPTIONS"),
        (says({"WWW-Authenticate": "NTLM"}, 401), "login", "offers NTLM; the settings want Basic"),
        (says({"MS-ASProtocolVersions": "1.0,2.5"}), "version", "offers 1.0, 2.5, none of which the relay speaks"),
    ],
)
async def test_an_address_that_is_not_that_of_activesync(ca_file: Path, answer: Answer, check: str, words: str) -> None:
    async with serving(answer) as port:
        examined = await look(port, ca_file)

    assert examined.bad == [(check, "servers.main")]
    assert words in examined.one(check, "servers.main").text


async def test_a_server_below_16_1(ca_file: Path) -> None:
    async with serving(says({"MS-ASProtocolVersions": "12.1,14.1"})) as port:
        examined = await look(port, ca_file)

    assert (examined.bad, examined.noted) == ([], [("version", "servers.main")])
    assert "below 16.1" in examined.one("version", "servers.main").text


async def test_a_path_that_cuts_every_ping(ca_file: Path) -> None:
    async with serving(says(VERSIONS)) as port:
        url = f"https://{HOST}:{port}/Microsoft-Server-ActiveSync"
        known = Known((), {"main": ServerSurvey(3, {161: 3}, 58.0)}, {url: Lesson(55, IdleTimeout(29.0, 31.0))})
        examined = await look(port, ca_file, known, policy=Policy(heartbeat=Heartbeat(480, 60, 1680)))

    assert examined.bad == [("heartbeat", "servers.main")]
    assert "cuts them after 30 s" in examined.one("heartbeat", "servers.main").text


@pytest.mark.parametrize("hours", [-2, 2])
async def test_a_clock_that_is_wrong(ca_file: Path, hours: int) -> None:
    clocks = PeerClocks(now)
    moment = datetime.now(UTC) + timedelta(hours=hours)  # noqa: TID251 -- the server's own clock
    async with serving(says({**VERSIONS, "Date": format_datetime(moment, usegmt=True)})) as port:
        await look(port, ca_file, clocks=clocks)

    judged = found([judge_clock(clocks)])
    assert judged.bad == [("clock", "this host")]
    assert "NTP" in judged.findings[0].remedy


def oauth(
    provider: OpenIdSimulator, ca_file: Path, client_id: str = CLIENT_ID, client_secret: str = CLIENT_SECRET
) -> OAuthSettings:
    client = OAuthClient(provider.token_endpoint, client_id, client_secret, audience=frozenset({AUDIENCE}))
    return OAuthSettings(client, ca_file)


@pytest.mark.parametrize(
    ("changes", "bad", "words"),
    [
        ({}, [], "takes the relay's client id"),
        ({"client_secret": "wrong"}, [("OAuth", "servers.main.oauth_token_endpoint")], "invalid_client"),
    ],
)
async def test_a_token_endpoint(
    ca_file: Path, changes: Mapping[str, str], bad: list[tuple[str, str]], words: str
) -> None:
    async with open_openid_simulator(tls=serving_context(CA.server([HOST])), now=now) as provider:
        asks = MailServers(now, Random(1), PeerClocks(now))
        examined = found(await asks.look_at_oauth("main", oauth(provider, ca_file, **changes)))

    assert examined.bad == bad
    assert words in examined.one("OAuth", "servers.main.oauth_token_endpoint").text


async def test_a_token_endpoint_that_cannot_serve(ca_file: Path) -> None:
    async with open_openid_simulator(tls=serving_context(CA.server([HOST])), now=now) as provider:
        provider.fails_with = 503
        asks = MailServers(now, Random(1), PeerClocks(now))
        examined = found(await asks.look_at_oauth("main", oauth(provider, ca_file)))

    assert examined.bad == [("OAuth", "servers.main.oauth_token_endpoint")]


@pytest.mark.parametrize(
    ("document", "bad", "words"),
    [
        ({"Protocol": "ActiveSync", "Url": "https://{host}/eas"}, False, "names https://{host}/eas"),
        ({"Protocol": "ActiveSync", "Url": "https://cloud.example.net/eas"}, True, "leads to cloud.example.net"),
        ({}, False, "with a credential only"),
    ],
    ids=["here", "elsewhere", "nothing"],
)
async def test_autodiscover(ca_file: Path, document: dict[str, str], bad: bool, words: str) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.method)
        assert "Authorization" not in request.headers
        return web.json_response({name: text.replace("{host}", request.host) for name, text in document.items()})

    async with serving(answer) as port:
        host = f"{HOST}:{port}"
        settings = AutodiscoverSettings(frozenset({host}), ca_file, Policy())
        examined = found(await MailServers(now, Random(1), PeerClocks(now)).look_at_autodiscover(settings, host))

    judged = examined.one("Autodiscover", f"autodiscover {host}")
    assert bool(examined.bad) is bad
    assert words.replace("{host}", host) in judged.text
    assert asked == ["GET"]


@pytest.mark.parametrize(
    ("error", "bad", "remedy"),
    [
        (None, False, ""),
        (AccessDenied("the clock of this host differs too much from the KDC's", Reason.KERBEROS_CLOCK), True, "clock"),
        (AccessDenied("the KDC does not take the relay's own key", Reason.KERBEROS_KEYTAB), True, "keytab"),
    ],
)
async def test_a_ticket_of_the_relay_itself(error: EasError | None, bad: bool, remedy: str) -> None:
    async def get() -> None:
        if error is not None:
            raise error

    finding = await ask_kdc("main", get)

    assert bool(found([finding]).bad) is bad
    assert remedy in finding.remedy
