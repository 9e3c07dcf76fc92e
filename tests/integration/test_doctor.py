"""Faults that are injected into a sound site, each of which the doctor names, and no other."""

import json
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from eas_watcher.tools.probe.finding import Grade
from relay.doctor.host import look_at_certificate
from relay.domain.model import Role
from relay.http.listeners import open_listener, server_tls
from relay.process.clock import now
from relay.push.webpush.vapid import make_key
from relay.sandbox.certificates import lasting_ca, make_apns_key, make_service_account
from relay.sandbox.sandbox import Sandbox, open_sandbox
from relay.sandbox.scripts import Answer
from relay.settings import Settings, load
from tests.fakes.collector import collecting
from tests.fakes.examined import examine
from tests.fakes.proxy import ConnectProxy, connect_proxy, says
from tests.keys import rsa_key
from tests.ports import free_port


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with open_sandbox(tmp_path / "sandbox") as opened:
        yield opened


def settings_of(sandbox: Sandbox, *changes: tuple[str, str], role: Role = Role.ALL) -> Settings:
    """Load the sandbox's relay.toml after texts in it were replaced."""
    text = sandbox.toml.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    sandbox.toml.write_text(text)
    return load(sandbox.toml, {}, role, first=role is Role.ALL)


def secret(sandbox: Sandbox, name: str, content: bytes) -> None:
    path = sandbox.folder / name
    path.write_bytes(content)
    path.chmod(0o600)


async def test_a_sound_site_has_no_fault(sandbox: Sandbox) -> None:
    examined = await examine(settings_of(sandbox))

    assert (examined.bad, examined.noted) == ([], [])
    assert "BadDeviceToken" in examined.one("push", "apns production").text
    assert "would send" in examined.one("push", "fcm").text


async def test_nothing_is_pushed_delivered_or_stored(sandbox: Sandbox) -> None:
    before = sorted(path.name for path in sandbox.folder.rglob("*"))

    await examine(settings_of(sandbox))

    assert sorted(path.name for path in sandbox.folder.rglob("*")) == before
    assert sandbox.fcm.received == []
    assert [each.status for each in sandbox.apns.received] == [400]
    assert not sandbox.webpush.received
    assert not sandbox.eas.complaints


async def test_no_credential_reaches_the_mail_server(sandbox: Sandbox) -> None:
    await examine(settings_of(sandbox))

    assert sandbox.eas.records.requests == {"OPTIONS": 1}


async def test_a_name_that_dns_does_not_know(sandbox: Sandbox) -> None:
    settings = settings_of(sandbox, ("https://127.0.0.1:" + str(sandbox.ports.eas), "https://mail.invalid"))

    examined = await examine(settings)

    found = examined.one("DNS", "servers.sandbox")
    assert examined.bad == [("DNS", "servers.sandbox")]
    assert "mail.invalid is not found" in found.text
    assert "resolv.conf" in found.remedy


async def test_a_port_on_which_nothing_listens(sandbox: Sandbox) -> None:
    settings = settings_of(sandbox, (f"127.0.0.1:{sandbox.ports.eas}", f"127.0.0.1:{free_port()}"))

    examined = await examine(settings)

    assert examined.bad == [("TCP", "servers.sandbox")]
    assert "refuses the connection" in examined.one("TCP", "servers.sandbox").text


async def test_a_mail_server_whose_ca_is_not_named(sandbox: Sandbox) -> None:
    settings = settings_of(sandbox, ('ca_file = "ca.pem"\ndomains', "domains"))

    examined = await examine(settings)

    found = examined.one("TLS", "servers.sandbox")
    assert examined.bad == [("TLS", "servers.sandbox")]
    assert "issued by Push relay sandbox" in found.text
    assert "servers.sandbox.ca_file" in found.remedy


async def test_the_ca_of_a_provider_that_is_not_named(sandbox: Sandbox) -> None:
    settings = settings_of(sandbox, (f'url = "{sandbox.fcm.url}"\nca_file = "ca.pem"', f'url = "{sandbox.fcm.url}"'))

    examined = await examine(settings)

    assert examined.bad == [("TLS", "fcm.url")]
    assert "fcm.ca_file" in examined.one("TLS", "fcm.url").remedy


async def test_an_apns_key_of_another_team(sandbox: Sandbox) -> None:
    pem, _ = make_apns_key()
    secret(sandbox, "apns.p8", pem.encode())

    examined = await examine(settings_of(sandbox))

    found = examined.one("push", "apns production")
    assert examined.bad == [("push", "apns production"), ("push", "apns sandbox")]
    assert "InvalidProviderToken" in found.text
    assert "apns.key_id" in found.remedy


async def test_an_app_that_the_key_is_not_for(sandbox: Sandbox) -> None:
    settings = settings_of(sandbox, ('topics = ["com.example.mail"]', 'topics = ["com.example.mail", "com.example.x"]'))

    examined = await examine(settings)

    bad = [each for each in examined.findings if each.grade is Grade.BAD]
    assert {each.subject for each in bad} == {"apns production", "apns sandbox"}
    assert all("com.example.x: TopicDisallowed" in each.text for each in bad)


async def test_something_else_in_place_of_apns(sandbox: Sandbox) -> None:
    sandbox.apns.fail(Answer(200, ""))

    examined = await examine(settings_of(sandbox))

    assert examined.bad == [("push", "apns production")]
    assert "apns.host" in examined.one("push", "apns production").remedy


async def test_a_service_account_whose_key_was_deleted(sandbox: Sandbox) -> None:
    sandbox.fcm.rotate()

    examined = await examine(settings_of(sandbox))

    assert examined.bad == [("push", "fcm")]
    assert "token-refused: invalid_grant" in examined.one("push", "fcm").text


async def test_of_two_projects_the_one_whose_key_google_does_not_know_is_named(sandbox: Sandbox) -> None:
    document, _ = make_service_account("another", sandbox.fcm.token_uri, rsa_key(1))
    secret(sandbox, "other.json", json.dumps(document).encode())
    table = '[fcm.accounts.other]\nservice_account_file = "other.json"\napps = ["com.example.other"]\n\n'

    examined = await examine(settings_of(sandbox, ("[webpush]", f"{table}[webpush]")))

    assert examined.bad == [("push", "fcm.accounts.other")]
    assert "fcm.accounts.other.service_account_file" in examined.one("push", "fcm.accounts.other").remedy
    assert "would send" in examined.one("push", "fcm").text


async def test_a_project_whose_messaging_api_is_disabled(sandbox: Sandbox) -> None:
    sandbox.fcm.fail(Answer(403, "SERVICE_DISABLED"))

    examined = await examine(settings_of(sandbox))

    assert examined.bad == [("push", "fcm")]
    assert "enable the Firebase Cloud Messaging API" in examined.one("push", "fcm").remedy


async def test_a_push_service_that_is_not_there(sandbox: Sandbox) -> None:
    port = free_port()

    examined = await examine(settings_of(sandbox, (f"127.0.0.1:{sandbox.ports.webpush}", f"127.0.0.1:{port}")))

    assert examined.bad == [("TCP", f"webpush 127.0.0.1:{port}")]


async def test_a_vapid_key_that_was_replaced_after_the_settings_were_read(sandbox: Sandbox) -> None:
    settings = settings_of(sandbox)
    secret(sandbox, "vapid.pem", make_key().replace(b"MI", b"IM"))

    examined = await examine(settings)

    assert examined.bad == [("VAPID", "webpush.vapid_key_file")]


def through(proxy: ConnectProxy, *more: str) -> tuple[str, str]:
    return "[log]", "\n".join(["[network]", f'proxy = "http://127.0.0.1:{proxy.port}"', *more, "", "[log]"])


PROVIDERS = ["apns production", "apns sandbox", "fcm.url"]


def skipped(findings: Sequence[object]) -> list[str]:
    return [getattr(each, "subject", "") for each in findings if getattr(each, "grade", "") is Grade.SKIPPED]


async def test_a_proxy_with_the_right_password(sandbox: Sandbox) -> None:
    secret(sandbox, "proxy.txt", b"right\n")
    async with connect_proxy(ConnectProxy(user="relay:right")) as proxy:
        more = ('proxy_user = "relay"', 'proxy_password_file = "proxy.txt"')
        examined = await examine(settings_of(sandbox, through(proxy, *more)))

    assert examined.bad == []
    assert f"127.0.0.1:{sandbox.ports.apns} for relay" in examined.one("proxy", "network.proxy").text


async def test_a_proxy_that_refuses_the_password(sandbox: Sandbox) -> None:
    secret(sandbox, "proxy.txt", b"wrong\n")
    async with connect_proxy(ConnectProxy(user="relay:right")) as proxy:
        more = ('proxy_user = "relay"', 'proxy_password_file = "proxy.txt"')
        examined = await examine(settings_of(sandbox, through(proxy, *more)))

    found = examined.one("proxy", "network.proxy")
    assert examined.bad == [("proxy", "network.proxy")]
    assert found.text == "proxy-authentication-required"
    assert "network.proxy_password_file" in found.remedy
    assert skipped(examined.findings)[:3] == PROVIDERS


async def test_a_proxy_that_does_not_run(sandbox: Sandbox) -> None:
    examined = await examine(settings_of(sandbox, through(ConnectProxy(port=free_port()))))

    assert examined.bad == [("proxy", "network.proxy")]
    assert examined.one("proxy", "network.proxy").text == "proxy-refused"


async def test_a_proxy_that_lets_nobody_reach_providers(sandbox: Sandbox) -> None:
    async with connect_proxy(ConnectProxy(talk=says(b"HTTP/1.1 403 No\r\n\r\n"))) as proxy:
        examined = await examine(settings_of(sandbox, through(proxy)))

    assert examined.one("proxy", "network.proxy").text == "proxy-denied"
    assert ("TLS", "apns production") in examined.bad


async def test_a_certificate_of_an_inspecting_proxy(sandbox: Sandbox, tmp_path: Path) -> None:
    settings = settings_of(sandbox)
    assert settings.apns is not None
    trusted = tmp_path / "other.pem"
    async with open_sandbox(tmp_path / "other") as other:
        trusted.write_bytes((other.folder / "ca.pem").read_bytes())

    examined = await examine(replace(settings, apns=replace(settings.apns, ca_file=trusted)))

    assert examined.bad == [("TLS", "apns production"), ("TLS", "apns sandbox")]
    assert "a proxy that opens TLS" in examined.one("TLS", "apns production").remedy


async def test_a_port_that_another_program_has(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", sandbox.ports.ops)):
        examined = await examine(settings_of(sandbox))

    assert examined.bad == [("port", "ops.port")]
    assert "another program" in examined.one("port", "ops.port").text


async def test_an_egress_folder_that_cannot_be_written(sandbox: Sandbox) -> None:
    (sandbox.folder / "egress").write_text("no folder")
    settings = settings_of(sandbox, ("[log]", '[egress]\nfolder = "egress"\n\n[log]'))

    examined = await examine(settings)

    assert examined.bad == [("folder", "egress.folder")]


async def test_a_certificate_that_does_not_name_the_address_of_the_web_app(sandbox: Sandbox) -> None:
    settings = settings_of(sandbox)
    assert settings.webapp is not None
    elsewhere = replace(settings.webapp, origin="https://relay.example.com:8443")

    (found,) = look_at_certificate(replace(settings, webapp=elsewhere), now)

    assert (found.grade, found.subject) == (Grade.NOTE, "api.certificate_file")
    assert "does not name relay.example.com" in found.text


async def test_a_state_folder_that_is_open_to_others(sandbox: Sandbox) -> None:
    (sandbox.folder / "state").chmod(0o755)

    examined = await examine(settings_of(sandbox))

    assert examined.bad == []
    assert examined.noted == [("folder", "relay.state_dir")]
    assert "chmod 700" in examined.one("folder", "relay.state_dir").remedy


@pytest.mark.parametrize(
    ("role", "absent", "present"),
    [
        (Role.API, {"mail servers", "providers"}, {"certificate"}),
        (Role.WATCH, {"providers"}, {"ActiveSync", "heartbeat"}),
        (Role.PUSH, {"mail servers"}, {"push", "VAPID"}),
    ],
)
async def test_a_role_is_asked_for_what_it_may_reach_only(
    sandbox: Sandbox, role: Role, absent: set[str], present: set[str]
) -> None:
    settings = settings_of(sandbox)
    alone = replace(settings, role=role, api=settings.api if role is Role.API else None)

    examined = await examine(alone)

    assert set(skipped(examined.findings)) >= absent
    assert {examined.one("role", subject).grade for subject in absent} == {Grade.SKIPPED}
    assert {each.check for each in examined.findings} >= present
    assert bool(sandbox.eas.records.requests) is (role is Role.WATCH)
    assert bool(sandbox.apns.received) is (role is Role.PUSH)


@pytest.mark.parametrize("renewed", [False, True])
async def test_a_relay_that_shows_another_certificate_than_the_file_has(sandbox: Sandbox, renewed: bool) -> None:
    async def openapi(_: web.Request) -> web.Response:
        return web.json_response({"paths": {"/v1/registrations": {}}})

    app = web.Application()
    app.router.add_get("/v1/openapi.json", openapi)
    shown = sandbox.folder / "api.pem"
    tls = server_tls(shown, shown)
    if renewed:
        ca = lasting_ca(sandbox.folder, "Push relay sandbox", now())
        secret(sandbox, "api.pem", ca.server_pem("localhost", "127.0.0.1"))
    async with open_listener(app, "127.0.0.1", sandbox.ports.api, tls):
        examined = await examine(settings_of(sandbox))

    assert examined.bad == []
    assert examined.noted == ([("port", "api.port")] if renewed else [])
    assert ("another certificate than the file" in examined.one("port", "api.port").text) is renewed


async def test_a_collector_of_traces_that_another_ca_certified(sandbox: Sandbox, tmp_path: Path) -> None:
    async with collecting(tmp_path) as collector:
        trusted = f'[tracing]\nendpoint = "{collector.url}"\nca_file = "{collector.ca_file}"\n[log]'
        good = await examine(settings_of(sandbox, ("[log]", trusted)))
        strange = (str(collector.ca_file), str(sandbox.folder / "ca.pem"))
        bad = await examine(settings_of(sandbox, strange))

    assert good.bad == []
    assert good.one("TLS", "tracing.endpoint").grade is Grade.GOOD
    assert bad.bad == [("TLS", "tracing.endpoint")]
    assert collector.paths == []


async def test_the_way_to_a_collector_of_traces_leads_through_its_proxy(sandbox: Sandbox) -> None:
    async with connect_proxy(ConnectProxy(talk=says(b"HTTP/1.1 407 Who are you\r\n\r\n"))) as proxy:
        table = f'[tracing]\nendpoint = "https://otel.example.com"\nproxy = "http://127.0.0.1:{proxy.port}"\n[log]'
        examined = await examine(settings_of(sandbox, ("[log]", table)))

    assert examined.bad == [("proxy", "tracing.proxy")]
    assert examined.one("TLS", "tracing.endpoint").grade is Grade.SKIPPED
    assert proxy.targets == ["otel.example.com:443"]


async def test_the_server_that_takes_the_canarys_mails(sandbox: Sandbox) -> None:
    secret(sandbox, "canary.password", b"of-the-mailbox")
    secret(sandbox, "smtp.password", b"of-the-sender")
    table = f"""[canary]
server = "sandbox"
user = "canary@example.com"
password_file = "canary.password"
smtp_host = "127.0.0.1"
smtp_port = {sandbox.ports.smtp}
smtp_ca_file = "ca.pem"
smtp_user = "canary"
smtp_password_file = "smtp.password"
[log]"""
    good = await examine(settings_of(sandbox, ("[log]", table)))
    assert good.bad == []
    assert good.one("SMTP", "canary.smtp_host").text == "STARTTLS, certificate trusted; offers a login"
    assert (sandbox.smtp.logins, sandbox.smtp.mails) == (0, [])

    strange = await examine(settings_of(sandbox, ('smtp_ca_file = "ca.pem"\n', "")))
    assert strange.bad == [("SMTP", "canary.smtp_host")]
    assert "set canary.smtp_ca_file to its CA" in strange.one("SMTP", "canary.smtp_host").remedy

    sandbox.smtp.mechanisms = "NTLM"
    without = await examine(settings_of(sandbox, ("smtp_user", 'smtp_ca_file = "ca.pem"\nsmtp_user')))
    assert without.one("SMTP", "canary.smtp_host").text == "offers-no-login"

    nowhere = await examine(settings_of(sandbox, (f"smtp_port = {sandbox.ports.smtp}", f"smtp_port = {free_port()}")))
    assert nowhere.bad == [("TCP", "canary.smtp_host")]
