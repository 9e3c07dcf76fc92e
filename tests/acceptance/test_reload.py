"""A relay takes another configuration while it runs, and says what it cannot take."""

import asyncio
import json
import signal
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from relay.process.clock import now
from relay.sandbox.certificates import lasting_ca
from relay.sandbox.installation import APP
from relay.sandbox.process import RelayProcess
from tests.planting import plant, token, user
from tests.site import ANDROID, ANN, IPHONE, PASSWORD, Site, healed, open_site, part_of
from tests.waiting import until

BEN = "ben@example.com"
ANDROID_OF_BEN = {"platform": "fcm", "token": ANDROID, "app": APP}
MANY = 5_000
WATCHED = 60.0  # seconds; the files are looked at every ten


def replace(file: Path, before: str, after: str) -> None:
    """Replace a part of a file in one step."""
    text = file.read_text()
    assert before in text
    fresh = file.with_name(f"{file.name}.new")
    fresh.write_text(text.replace(before, after))
    fresh.chmod(file.stat().st_mode)
    fresh.rename(file)


def logged(relay: RelayProcess, event: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in relay.log.read_text().splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == event]


async def reloads(relay: RelayProcess) -> Mapping[str, float]:
    """Return the metrics of reloads."""
    lines = (line.rpartition(" ") for line in (await relay.metrics()).splitlines() if line.startswith("relay_config"))
    return {name: float(value) for name, _, value in lines}


async def reloaded(relay: RelayProcess, result: str = "applied") -> None:
    """Ask for a reload, and wait until one has ended so; a change that the relay noticed before that is in use, too."""
    ends = {result, "unchanged"} if result == "applied" else {result}
    names = [f'relay_config_reloads_total{{result="{end}"}}' for end in ends]
    before = await reloads(relay)
    relay.process.send_signal(signal.SIGHUP)

    async def more() -> bool:
        counts = await reloads(relay)
        return any(counts[name] > before[name] for name in names)

    await until(more)


def shown_certificate(site: Site) -> bytes:
    """Return the certificate that a new connection to the API gets."""
    context = ssl.create_default_context(cafile=site.sandbox.folder / "ca.pem")
    with (
        socket.create_connection(("127.0.0.1", site.sandbox.ports.api), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        return sock.getpeercert(binary_form=True) or b""


def renew_certificate(site: Site) -> None:
    """Put another certificate of the same CA into the place of the API's, as certbot does."""
    fresh = site.sandbox.folder / "fresh.pem"
    ca = lasting_ca(site.sandbox.folder, "Push relay sandbox", now())
    fresh.write_bytes(ca.server_pem("localhost", "127.0.0.1"))
    fresh.chmod(0o600)
    fresh.rename(site.sandbox.folder / "api.pem")


@pytest.mark.slow
async def test_the_log_level_follows_relay_toml_after_sighup(site: Site) -> None:
    async with site.relay() as relay:
        replace(site.sandbox.toml, 'level = "debug"', 'level = "info"')
        await reloaded(relay)

        assert logged(relay, "configuration reloaded")[-1]["changed"] == ["log.level"]
        await reloaded(relay, "unchanged")


@pytest.mark.slow
async def test_a_renewed_certificate_is_taken_without_a_signal(site: Site) -> None:
    async with site.relay() as relay:
        before = await asyncio.to_thread(shown_certificate, site)
        renew_certificate(site)

        async def renewed() -> bool:
            return await asyncio.to_thread(shown_certificate, site) != before

        await until(renewed, WATCHED)
        await healed(relay)


@pytest.mark.slow
async def test_faults_on_disk_are_named_at_once_and_nothing_is_taken(site: Site) -> None:
    async with site.relay() as relay:
        good = site.sandbox.toml.read_text()
        replace(site.sandbox.toml, 'level = "debug"', 'level = "loud"')
        replace(site.sandbox.toml, "[api]", "[api]\nrequests_per_minute = 0")
        await reloaded(relay, "faulty")

        assert {line["key"] for line in logged(relay, "configuration on disk is faulty")} == {
            "log.level",
            "api.requests_per_minute",
        }
        part = await part_of(relay, "configuration", "is faulty")
        assert part["state"] == "degraded"
        assert (await reloads(relay))["relay_config_reload_success"] == 0

        site.sandbox.toml.write_text(good)
        await healed(relay)
        assert (await reloads(relay))["relay_config_reload_success"] == 1


@pytest.mark.slow
async def test_what_needs_a_restart_is_named_and_the_rest_is_taken(site: Site) -> None:
    async with site.relay() as relay:
        replace(site.sandbox.toml, "[ops]", '[ops]\nhosts = ["relay.example.com"]')
        replace(site.sandbox.toml, "[api]", "[api]\nrequests_per_minute = 77")
        await reloaded(relay)

        assert logged(relay, "restart needed")[-1]["settings"] == ["ops.hosts"]
        assert "ops.hosts" in (await part_of(relay, "configuration", "restart"))["reason"]
        assert (await reloads(relay))["relay_config_reload_restart_needed"] == 1
        async with site.api.get("/v1/capabilities") as answer:
            assert (await answer.json())["limits"]["requests_per_minute"] == 77


@pytest.mark.slow
async def test_enrolment_keys_turn_over_while_the_relay_runs(site: Site) -> None:
    keys = site.sandbox.folder / "enrolment.keys"
    keys.write_text("first-key-of-the-mdm-1234567890\n")
    keys.chmod(0o600)
    replace(site.sandbox.toml, "[api]", '[api]\nenrolment = ["key"]\nenrolment_key_files = ["enrolment.keys"]')
    async with site.relay() as relay:

        async def register(key: str) -> int:
            body = {
                "mailbox": ANN,
                "credential": {"kind": "basic", "password": "correct horse"},
                "device": {"platform": "apns", "token": IPHONE, "app": APP},
            }
            async with site.api.post("/v1/registrations", json=body, headers={"Enrolment-Key": key}) as answer:
                return answer.status

        assert await register("second-key-of-the-mdm-1234567890") == 403
        keys.write_text("second-key-of-the-mdm-1234567890\n")
        await reloaded(relay)

        assert await register("first-key-of-the-mdm-1234567890") == 403
        assert await register("second-key-of-the-mdm-1234567890") in {201, 202}


@pytest.mark.slow
async def test_a_device_of_a_former_ca_loses_its_connection(site: Site) -> None:
    former, present = trustme.CA(), trustme.CA()
    former.cert_pem.write_to_path(site.sandbox.folder / "devices.pem")
    replace(site.sandbox.toml, "[api]", '[api]\nenrolment = ["mtls"]\nclient_ca_file = "devices.pem"')
    trust = ssl.create_default_context(cafile=site.sandbox.folder / "ca.pem")
    former.issue_cert(ANN).configure_cert(trust)
    connector = aiohttp.TCPConnector(ssl=trust)
    async with site.relay() as relay, aiohttp.ClientSession(site.sandbox.api_url, connector=connector) as device:

        async def asks() -> bool:
            try:
                async with device.get("/v1/capabilities") as answer:
                    return answer.status == 200
            except aiohttp.ClientError:
                return False

        assert await asks()
        present.cert_pem.write_to_path(site.sandbox.folder / "devices.pem")
        await reloaded(relay)

        assert not await asks()


@pytest.mark.slow
async def test_another_app_is_registered_and_pushed_to_without_a_restart(site: Site) -> None:
    async with site.relay() as relay:
        device = {"platform": "apns", "token": IPHONE, "app": "com.example.other"}
        assert (await site.register(device=device))[0] == 422
        replace(site.sandbox.toml, f'topics = ["{APP}"]', f'topics = ["{APP}", "com.example.other"]')
        await reloaded(relay)

        assert (await site.register(device=device))[0] == 201
        await site.held()
        site.deliver()
        await until(
            lambda: any(push.headers.get("apns-topic") == "com.example.other" for push in site.sandbox.apns.received)
        )


def other_server(site: Site, *lines: str) -> str:
    """Return the table of a second server, which is the same simulator at another of its names."""
    url = next(line for line in site.sandbox.toml.read_text().splitlines() if line.startswith("url = "))
    url = (
        url.replace("//localhost", "//127.0.0.1") if "//localhost" in url else url.replace("//127.0.0.1", "//localhost")
    )
    return "\n".join(["", "[servers.other]", url, 'ca_file = "ca.pem"', "return_rate = 1000", *lines, ""])


@pytest.mark.slow
async def test_servers_come_change_and_go_while_others_hold_their_pings(site: Site) -> None:
    records = site.sandbox.eas.records
    site.sandbox.eas.add_mailbox(BEN, PASSWORD)
    original = site.sandbox.toml.read_text()
    async with site.relay() as relay:
        assert (await site.register())[0] == 201
        assert (await site.register(BEN, device=ANDROID_OF_BEN, server="other"))[0] == 422
        site.sandbox.toml.write_text(original + other_server(site))
        await reloaded(relay)
        assert (await site.register(BEN, device=ANDROID_OF_BEN, server="other"))[0] == 201
        await site.held(2)

        site.sandbox.toml.write_text(original + other_server(site, "refused_logins = 77", "lockout_window = 900"))
        await reloaded(relay)
        assert records.broken == {}

        site.sandbox.toml.write_text(original + other_server(site, "heartbeat_maximum = 900", "heartbeat_start = 300"))
        await reloaded(relay)
        await until(lambda: records.broken == {BEN: 1})
        await site.held(2)

        site.sandbox.toml.write_text(original)
        await reloaded(relay)
        await until(lambda: records.broken == {BEN: 2})
        assert site.sandbox.eas.held == 1

        site.sandbox.toml.write_text(original + other_server(site))
        await reloaded(relay)
        await site.held(2)
        site.deliver(BEN)
        await until(lambda: len(site.sandbox.fcm.received) >= 1)
        await healed(relay)
    assert records.overlaps == {}
    assert list(records.complaints) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_no_ping_of_five_thousand_is_broken_by_a_reload(tmp_path: Path) -> None:
    environ = {"RELAY__API__REGISTRATIONS_PER_MINUTE": "100000"}
    async with open_site(tmp_path / "sandbox", environ) as site:
        eas, toml = site.sandbox.eas, site.sandbox.toml
        for number in range(1, MANY + 1):
            eas.add_mailbox(user(number), PASSWORD)
        eas.add_mailbox(BEN, PASSWORD)
        await asyncio.to_thread(plant, site.sandbox.folder, MANY, PASSWORD)
        replace(toml, 'level = "debug"', 'level = "warning"')
        toml.write_text(toml.read_text() + other_server(site))
        async with site.relay() as relay:
            await until(lambda: eas.held == MANY, 300)
            assert (await site.register(BEN, device=ANDROID_OF_BEN, server="other"))[0] == 201
            await until(lambda: eas.held == MANY + 1, 60)
            before = await asyncio.to_thread(shown_certificate, site)

            renew_certificate(site)
            replace(toml, 'level = "warning"', 'level = "info"')
            replace(toml, f'topics = ["{APP}"]', f'topics = ["{APP}", "com.example.other"]')
            replace(toml, "[api]", "[api]\nrequests_per_minute = 1000")
            replace(toml, 'domains = ["example.com"]', 'domains = ["example.com", "example.org"]\nrefused_logins = 200')
            replace(toml, "[servers.other]", "[servers.other]\nheartbeat_start = 300")
            await reloaded(relay)
            await until(lambda: eas.records.broken == {BEN: 1} and eas.held == MANY + 1, 60)

            assert await asyncio.to_thread(shown_certificate, site) != before
            assert eas.records.overlaps == {}
            site.deliver(user(1))
            await until(lambda: any(push.device_token == token(1) for push in site.sandbox.apns.received))


@pytest.mark.slow
async def test_an_audit_key_that_cannot_be_made_is_named_and_the_relay_goes_on(site: Site) -> None:
    (site.sandbox.folder / "admin.token").write_text("0123456789abcdef" * 2)
    (site.sandbox.folder / "admin.token").chmod(0o600)
    async with site.relay() as relay:
        tokens = '[admin.tokens.helpdesk]\nfile = "admin.token"\nscopes = ["read"]\n\n'
        replace(site.sandbox.toml, "[api]", f'[admin]\naudit_key_file = "/proc/none/audit.key"\n\n{tokens}[api]')
        await reloaded(relay, "faulty")

        assert {line["key"] for line in logged(relay, "configuration on disk is faulty")} == {"admin.audit_key_file"}


@pytest.mark.slow
async def test_the_console_comes_and_goes_with_those_who_may_use_it(site: Site) -> None:
    token = site.sandbox.folder / "helpdesk.token"
    token.write_text("c0ffee" * 8)
    token.chmod(0o600)
    table = '[admin.tokens.helpdesk]\nfile = "helpdesk.token"\n\n[ops]\n'
    async with site.relay() as relay:
        login = f"http://127.0.0.1:{site.sandbox.ports.ops}/console/login"

        async def status() -> int:
            async with aiohttp.ClientSession() as session, session.get(login) as answer:
                return answer.status

        assert await status() == 404
        replace(site.sandbox.toml, "[ops]\n", table)
        await reloaded(relay)
        assert await status() == 200
        replace(site.sandbox.toml, table, "[admin]\nconsole = false\n\n" + table)
        await reloaded(relay)
        assert await status() == 404
