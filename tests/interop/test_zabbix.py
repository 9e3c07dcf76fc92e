"""The template for Zabbix, as Zabbix' own frontend imports and its own server evaluates it."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from aiohttp import web

from tests.interop.packages import Unavailable, unavailable
from tests.interop.zabbix import Zabbix, zabbix
from tests.ports import free_port
from tests.postgres import running_postgres
from tests.waiting import until

TEMPLATE: Final = Path(__file__).parents[2] / "config" / "zabbix-template.yaml"
NAME: Final = "Push relay by HTTP"
OFTEN: Final = "2s"
"""How often the test's copy of the template asks."""
LIMIT: Final = 150.0  # seconds; 20 on an idle machine
URL: Final = "https://mail.example.com/eas"
RULES: Final = {"createMissing": True, "updateExisting": True}
KINDS: Final = ("groups", "templates", "items", "triggers", "discoveryRules")
HEALTHY: Final = f"""
relay_build_info{{role="all",version="1.2.3"}} 1
relay_loop_lag_seconds 0.01
relay_clock_ahead_seconds{{peer="mail.example.com"}} -60
relay_part_state{{part="database"}} 0
relay_part_state{{part="mail servers"}} 0
relay_connections_refused_total{{listener="api",kind="full"}} 7
relay_connections_refused_total{{listener="api",kind="silent"}} {{counter}}000
relay_eas_requests_total{{command="Ping",outcome="answered"}} {{counter}}
relay_eas_requests_total{{command="look",outcome="Unauthorized"}} {{counter}}000
relay_server_state{{url="{URL}"}} 0
relay_server_waiting{{url="{URL}"}} 0
relay_server_refused{{url="{URL}"}} 0
relay_server_doubtful{{url="{URL}"}} 0
relay_server_polled{{url="{URL}"}} 0
relay_pings_held 100
relay_changes_total{{class="email"}} {{counter}}
relay_shards_leased 256
relay_watch_nodes 1
relay_pushes_total{{provider="apns",outcome="delivered"}} {{counter}}
relay_channel_faults{{provider="apns"}} 0
relay_provider_outages{{provider="apns"}} 0
relay_egress_writable 1
relay_egress_changed_total 3
relay_egress_free_bytes 5000000000
relay_config_reload_success 1
relay_certificate_expires_seconds{{key="api.certificate_file"}} 8640000
relay_database_up 1
relay_refused_logins{{server="main"}} 39
relay_refused_logins_most{{server="main"}} 100
relay_mailboxes{{state="watching",reason=""}} 95
relay_mailboxes{{state="waiting",reason="unreachable"}} 5
relay_mailboxes{{state="verifying",reason="not-asked"}} 50
relay_outbox_pending{{provider="apns"}} 1
relay_outbox_oldest_seconds{{provider="apns"}} 600
relay_outbox_aside{{provider="apns"}} 0
relay_tokens_refused{{provider="apns",app="com.example.mail",environment="production",reason="BadDeviceToken"}} 20
relay_change_to_accepted_seconds_bucket{{provider="apns",le="1.0"}} {{counter}}
relay_change_to_accepted_seconds_bucket{{provider="apns",le="30.0"}} {{counter}}
relay_change_to_accepted_seconds_bucket{{provider="apns",le="+Inf"}} {{counter}}
process_resident_memory_bytes 100000000
process_cpu_seconds_total {{counter}}
"""
FAULTY: Final = f"""
relay_build_info{{role="all",version="1.2.3"}} 1
relay_loop_lag_seconds 0.6
relay_clock_ahead_seconds{{peer="mail.example.com"}} -61
relay_part_state{{part="database"}} 1
relay_part_state{{part="mail servers"}} 2
relay_connections_refused_total{{listener="api",kind="full"}} {{counter}}000
relay_eas_requests_total{{command="Ping",outcome="Unauthorized"}} {{counter}}000
relay_server_state{{url="{URL}"}} 2
relay_server_waiting{{url="{URL}"}} 4
relay_server_refused{{url="{URL}"}} 0
relay_server_doubtful{{url="{URL}"}} 4
relay_server_polled{{url="{URL}"}} 7
relay_pings_held 0
relay_shards_leased 256
relay_watch_nodes 1
relay_channel_faults{{provider="apns"}} 2
relay_provider_outages{{provider="apns"}} 1
relay_egress_writable 0
relay_egress_changed_total {{counter}}
relay_egress_free_bytes 134217728
relay_config_reload_success 0
relay_rows_aside{{table="mailbox"}} 3
relay_database_up 0
relay_refused_logins{{server="main"}} 41
relay_refused_logins_most{{server="main"}} 100
relay_mailboxes{{state="watching",reason=""}} 60
relay_mailboxes{{state="waiting",reason="unreachable"}} 20
relay_mailboxes{{state="verifying",reason="unreachable"}} 20
relay_outbox_pending{{provider="apns"}} 1
relay_outbox_oldest_seconds{{provider="apns"}} 601
relay_outbox_aside{{provider="apns"}} 3
relay_tokens_refused{{provider="apns",app="com.example.mail",environment="production",reason="BadDeviceToken"}} 11
relay_tokens_refused{{provider="apns",app="com.example.mail",environment="production",reason="Other"}} 10
relay_change_to_accepted_seconds_bucket{{provider="apns",le="1.0"}} 0
relay_change_to_accepted_seconds_bucket{{provider="apns",le="30.0"}} {{counter}}
relay_change_to_accepted_seconds_bucket{{provider="apns",le="+Inf"}} {{counter}}
process_resident_memory_bytes 100000000
process_cpu_seconds_total {{counter}}
"""
SAYS: Final = {
    "RelayChannelFault": "The relay cannot push to 2 apps through apns: key, topic or environment is wrong.",
    "RelayEgressRoom": "The disk of the egress log has 128 MB left; without room no push leaves.",
    "RelayMailServerFull": f"{URL} holds too few Pings: 7 mailboxes are polled, their pushes are late by minutes.",
    "RelayPartFailed": "mail servers has failed; /healthz says what to do.",
    "RelayTokensRefused": "apns refuses 21 device tokens of com.example.mail (production).",
}


@pytest.fixture
async def pages() -> AsyncIterator[str]:
    """Serve two processes, /healthy and /faulty, whose counters rise with each look; return their URL."""
    looks = {"healthy": 1000, "faulty": 1000}

    async def metrics(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        looks[name] += 1
        text = HEALTHY if name == "healthy" else FAULTY
        return web.Response(text=text.lstrip().replace("{counter}", str(looks[name])))

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    app = web.Application()
    app.router.add_get("/{name}/metrics", metrics)
    app.router.add_get("/{name}/livez", livez)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}"
    await runner.cleanup()


@pytest.fixture
async def server() -> AsyncIterator[Zabbix]:
    with running_postgres() as postgres:
        try:
            async with zabbix(postgres) as running:
                yield running
        except Unavailable as reason:
            unavailable(reason)


def template() -> str:
    """Return the shipped template, which asks more often."""
    return re.sub(
        r"^( +)type: (HTTP_AGENT|CALCULATED)$", rf"\g<0>\n\1delay: {OFTEN}", TEMPLATE.read_text(), flags=re.MULTILINE
    )


def alerts(document: dict[str, Any]) -> set[str]:
    """Return the names of all alerts of a template."""
    match document:
        case {"tag": "alert", "value": name}:
            return {name}
        case dict():
            return set().union(*(alerts(inner) for inner in document.values()))
        case list():
            return set().union(*(alerts(inner) for inner in document))
        case _:
            return set()


async def add(server: Zabbix, name: str, url: str, template_id: str) -> str:
    """Add the host of one process; return its id."""
    groups = await server.ask("hostgroup.get", output=["groupid"], limit=1)
    made = await server.ask(
        "host.create",
        host=name,
        groups=[{"groupid": groups[0]["groupid"]}],
        templates=[{"templateid": template_id}],
        macros=[{"macro": "{$RELAY.URL}", "value": url}],
    )
    found: str = made["hostids"][0]
    return found


async def problems(server: Zabbix, host: str) -> dict[str, str]:
    """Return what the triggers of a host that see a problem say, by alert."""
    found = await server.ask(
        "trigger.get",
        hostids=[host],
        filter={"value": "1"},
        output=["description"],
        selectTags="extend",
        expandDescription=True,
    )
    return {tag["value"]: each["description"] for each in found for tag in each["tags"] if tag["tag"] == "alert"}


async def unsupported(server: Zabbix, host: str) -> dict[str, str]:
    """Return the errors of the items and discovery rules of a host, by key."""
    known = {"hostids": [host], "filter": {"state": "1"}}
    items = [
        *await server.ask("item.get", output=["key_", "error"], **known),
        *await server.ask("discoveryrule.get", output=["key_", "error"], **known),
    ]
    return {each["key_"]: each["error"] for each in items if each["error"]}


async def values(server: Zabbix, host: str) -> dict[str, str]:
    """Return the latest values of the items of a host that have any, by key."""
    items = await server.ask("item.get", hostids=[host], output=["key_", "lastvalue", "lastclock"])
    return {each["key_"]: each["lastvalue"] for each in items if each["lastclock"] != "0"}


@pytest.mark.timeout(600)
async def test_every_trigger_fires_when_it_should_and_none_of_a_healthy_process_does(
    server: Zabbix, pages: str
) -> None:
    text = template()
    await server.ask("configuration.import", format="yaml", rules=dict.fromkeys(KINDS, RULES), source=text)
    (imported,) = await server.ask("template.get", filter={"host": [NAME]}, output=["templateid"])
    closed = free_port()
    healthy = await add(server, "healthy", f"{pages}/healthy", imported["templateid"])
    faulty = await add(server, "faulty", f"{pages}/faulty", imported["templateid"])
    silent = await add(server, "silent", f"http://127.0.0.1:{closed}", imported["templateid"])
    every = alerts(yaml.safe_load(text))

    said: dict[str, str] = {}
    try:
        async with asyncio.timeout(LIMIT):
            while said.keys() != every - {"RelayDown"} or not await problems(server, silent):
                await asyncio.sleep(1.0)
                said = await problems(server, faulty)
    except TimeoutError:
        pytest.fail(f"silent: {every - {'RelayDown'} - said.keys()}; {await unsupported(server, faulty)}")

    assert {alert: said[alert] for alert in SAYS} == SAYS
    assert await problems(server, silent) == {"RelayDown": "The relay process does not answer."}
    assert await problems(server, healthy) == {}
    assert await unsupported(server, healthy) == {}
    assert await unsupported(server, faulty) == {}
    seconds = "relay.provider.p95[apns]"

    async def measured() -> bool:
        return seconds in await values(server, healthy)

    await until(measured)
    latest = await values(server, healthy)
    assert (latest["relay.version"], latest["relay.mailboxes"]) == ("1.2.3", "150")
    assert 0 < float(latest[seconds]) <= 1
