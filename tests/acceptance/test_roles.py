"""Three roles as three processes that share a PostgreSQL database only, each with its own configuration."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
import pytest

from relay.cli.keygen import write_sealing_keys
from relay.sandbox.certificates import make_apns_key
from relay.sandbox.process import RelayProcess, open_relay
from relay.store.privileges import ROLES, grants_sql
from tests.acceptance.test_canary import CANARY, LONG, add_canary, metric_is
from tests.acceptance.test_cli import relay
from tests.acceptance.test_reload import reloaded, replace
from tests.acceptance.test_shadow import dark, held_back, kinds, shadowed
from tests.ports import free_ports
from tests.postgres import PostgresServer, running_postgres
from tests.site import ANN, PASSWORD, Site, troubles
from tests.waiting import SOON, until

NOTED: Final = {"registered", "accepted", "noticed", "pushed"}
"""Kinds of events; each of the three processes notes at least one of them."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture
async def database(postgres: PostgresServer) -> AsyncIterator[str]:
    name = await postgres.create()
    yield postgres.url(name)
    await postgres.drop(name)


async def migrate(site: Site, database: str) -> int:
    """Bring the database to the schema, and give each role's user its rights."""
    arguments = ("migrate", "--config", str(site.sandbox.toml), "--role", "push")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", *arguments),
        env={"RELAY__DATABASE__URL": database},
        stdout=asyncio.subprocess.DEVNULL,
    )
    status = await process.wait()
    connection = await asyncpg.connect(database)
    try:
        for role in ROLES:
            if not await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", role):
                await connection.execute(f"CREATE ROLE {role} LOGIN")
        await connection.execute(grants_sql())
    finally:
        await connection.close()
    return status


async def open_role(
    stack: AsyncExitStack, site: Site, role: str, database: str, port: int, **more: str
) -> RelayProcess:
    environ = {
        **site.environ,
        **more,
        "RELAY__DATABASE__URL": database.replace("postgres@", f"relay_{role}@"),
        "RELAY__OPS__PORT": str(port),
    }
    if role != "watch":
        environ["RELAY__SEALING__PRIVATE_KEY_FILE"] = "state/elsewhere.pem"
    return await stack.enter_async_context(open_relay(site.sandbox.toml, port, role=role, environ=environ))


@pytest.fixture
def ops_ports() -> dict[str, int]:
    return dict(zip(("api", "watch", "push"), free_ports(3), strict=True))


async def test_a_mail_becomes_a_push_through_three_processes(
    site: Site, database: str, ops_ports: dict[str, int]
) -> None:
    assert await migrate(site, database) == 0
    make_sealing_keys(site)
    async with AsyncExitStack() as stack:
        roles = {role: await open_role(stack, site, role, database, port) for role, port in ops_ports.items()}
        assert (await site.register(ANN, PASSWORD))[0] == 201
        # Only the push role has the VAPID key; the API publishes its public half.
        assert (await site.register_webpush(ANN))[0] == 201
        await site.held()
        site.deliver()
        pushes = await site.sandbox.apns.wait(1, SOON)
        await site.sandbox.webpush.wait(1, SOON)
        await until(lambda: has_events_of_all_roles(database))
        await until(lambda: metric_is(roles["watch"], "relay_pings_held", 1))
        explained = await explained_kinds(site, database)
        status = await shown_together(site, database, ops_ports)
        found = {role: await troubles(process) for role, process in roles.items()}

    assert [push.status for push in pushes] == [200]
    assert len(site.sandbox.webpush.messages) == 1
    assert found == {role: [] for role in ops_ports}
    assert explained >= NOTED
    assert not site.sandbox.eas.records.overlaps
    assert [each["role"] for each in status["processes"]] == ["api", "watch", "push"]
    assert (sum(each["pings_held"] for each in status["processes"]), status["nodes"][0]["shards"]) == (1, 256)
    assert {each["name"] for each in status["providers"]} >= {"apns", "webpush"}


async def has_events_of_all_roles(database: str) -> bool:
    connection = await asyncpg.connect(database)
    try:
        return {row["kind"] for row in await connection.fetch("SELECT kind FROM event")} >= NOTED
    finally:
        await connection.close()


async def explained_kinds(site: Site, database: str) -> set[str]:
    """Return the kinds of the events of which `relay explain` tells."""
    told = await relay("explain", ANN, "--json", *as_api(site), environ=api_environ(database))
    return {event["kind"] for case in json.loads(told.out) for event in case["events"]}


async def shown_together(site: Site, database: str, ops_ports: dict[str, int]) -> Any:
    """Return what `relay status` says of three processes together."""
    nodes = [part for port in ops_ports.values() for part in ("--node", f"http://127.0.0.1:{port}")]
    told = await relay("status", "--json", "--seconds", "0", *nodes, *as_api(site), environ=api_environ(database))
    return json.loads(told.out)


def as_api(site: Site) -> tuple[str, ...]:
    return ("--config", str(site.sandbox.toml), "--role", "api")


def api_environ(database: str) -> dict[str, str]:
    url = database.replace("postgres@", "relay_api@")
    return {"RELAY__DATABASE__URL": url, "RELAY__SEALING__PRIVATE_KEY_FILE": "state/elsewhere.pem"}


@pytest.mark.slow
async def test_each_role_has_a_console_that_shows_what_the_role_does(
    site: Site, database: str, ops_ports: dict[str, int]
) -> None:
    assert await migrate(site, database) == 0
    make_sealing_keys(site)
    token = site.sandbox.folder / "console.token"
    token.write_text("c0ffee" * 8)
    token.chmod(0o600)
    people = {"RELAY__ADMIN__TOKENS__OPS__FILE": str(token), "RELAY__ADMIN__TOKENS__OPS__SCOPES": "read, act"}
    async with AsyncExitStack() as stack:
        roles = {}
        for role, port in ops_ports.items():
            told = {} if role == "api" else {"RELAY__ADMIN__CONSOLE": "true"}
            roles[role] = await open_role(stack, site, role, database, port, **people, **told)
        assert (await site.register(ANN, PASSWORD))[0] == 201
        await site.held()
        site.deliver()
        await until(lambda: metric_is(roles["push"], 'relay_pushes_total{outcome="delivered",provider="apns"}', 1))
        shown = {role: await console_pages(port, token.read_text()) for role, port in ops_ports.items()}

    assert "Mailboxes" in shown["api"]["/"]
    assert ANN in shown["api"]["/mailboxes"]
    assert "This process has the role api" in shown["api"]["/egress"]
    assert "Put sandbox into maintenance" in shown["api"]["/servers"]
    assert "requests open" in shown["watch"]["/servers"]
    assert "<button" not in shown["watch"]["/servers"].partition("<main")[2].partition("</main")[0]
    assert "Pings held" in shown["watch"]["/"]
    assert "unbroken, each a template" in shown["push"]["/egress"]
    assert "delivered" in shown["push"]["/providers"]
    assert shown["watch"]["/mailboxes"] == shown["push"]["/mailboxes"] == ""


async def console_pages(port: int, token: str) -> dict[str, str]:
    """Return the pages of a process's console; empty: it does not have the page."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", cookie_jar=jar) as session:
        await session.post("/console/login", data={"token": token}, headers={"Sec-Fetch-Site": "same-origin"})
        found = {}
        for path in ("/", "/servers", "/providers", "/mailboxes", "/egress"):
            async with session.get(f"/console{path}") as answer:
                found[path] = await answer.text() if answer.ok else ""
        return found


@pytest.mark.slow
async def test_marks_wait_for_a_push_process(site: Site, database: str, ops_ports: dict[str, int]) -> None:
    assert await migrate(site, database) == 0
    make_sealing_keys(site)
    async with AsyncExitStack() as stack:
        await open_role(stack, site, "api", database, ops_ports["api"])
        await open_role(stack, site, "watch", database, ops_ports["watch"])
        assert (await site.register(ANN, PASSWORD))[0] == 201
        await site.held()
        site.deliver()
        await asyncio.sleep(0.5)  # the mark waits; no process pushes yet
        assert site.sandbox.apns.received == []
        await open_role(stack, site, "push", database, ops_ports["push"])
        pushes = await site.sandbox.apns.wait(1, SOON)

    assert [push.status for push in pushes] == [200]


@pytest.mark.slow
async def test_a_wrong_key_makes_the_push_role_unready_until_the_right_one_is_there(
    site: Site, database: str, ops_ports: dict[str, int]
) -> None:
    assert await migrate(site, database) == 0
    make_sealing_keys(site)
    file = site.sandbox.folder / "apns.p8"
    right = file.read_text()
    file.write_text(make_apns_key()[0])
    async with AsyncExitStack() as stack:
        roles = {role: await open_role(stack, site, role, database, port) for role, port in ops_ports.items()}
        assert (await site.register(ANN, PASSWORD))[0] == 201
        await site.held()
        site.deliver()
        await becomes_ready(ops_ports["push"], ready=False)
        parts = {part["part"]: part for part in (await roles["push"].health())["parts"]}
        assert parts["apns"]["reason"].endswith("(production): InvalidProviderToken")
        assert parts["push channels"]["state"] == "failed"
        await becomes_ready(ops_ports["watch"], ready=True)

        file.write_text(right)  # the process notices the key without a restart, and tries it at once
        await becomes_ready(ops_ports["push"], ready=True)

    assert [push.status for push in site.sandbox.apns.received][-1] == 200


async def becomes_ready(port: int, *, ready: bool) -> None:
    """Wait until /readyz says whether a process can do its job."""
    wanted = 200 if ready else 503
    async with asyncio.timeout(SOON), aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"http://127.0.0.1:{port}/readyz") as response:
                if response.status == wanted:
                    return
            await asyncio.sleep(0.1)


def make_sealing_keys(site: Site) -> None:
    state: Path = site.sandbox.folder / "state"
    write_sealing_keys(state / "sealing-private.pem", state / "sealing-public.pem")


@pytest.mark.slow
async def test_a_process_says_what_it_may_do_too_much(site: Site, database: str, ops_ports: dict[str, int]) -> None:
    assert await migrate(site, database) == 0
    make_sealing_keys(site)
    environ = {"RELAY__DATABASE__URL": database, "RELAY__OPS__PORT": str(ops_ports["push"])}
    async with open_relay(site.sandbox.toml, ops_ports["push"], role="push", environ=environ) as relay:
        (part,) = [part for part in (await relay.health())["parts"] if part["part"] == "own rights"]
        log = relay.log.read_text()

    assert part["state"] == "degraded"
    assert "its database user is a superuser; it can read the private sealing key" in part["reason"]
    assert "postgresql-grants.sql" in part["remedy"]
    assert log.count("this process may do more than its role needs") == 2


@pytest.mark.slow
async def test_the_push_role_goes_live_for_one_mail_server_after_the_other(
    site: Site, database: str, ops_ports: dict[str, int]
) -> None:
    assert await migrate(site, database) == 0
    make_sealing_keys(site)
    dark(site, "live_servers = []")
    async with AsyncExitStack() as stack:
        roles = {role: await open_role(stack, site, role, database, port) for role, port in ops_ports.items()}
        assert (await site.register(ANN, PASSWORD))[0] == 201
        await site.held()
        await held_back(site, roles["push"], 1)
        assert kinds(site) == []

        await site.held()
        replace(site.sandbox.toml, "live_servers = []", 'live_servers = ["sandbox"]')
        await reloaded(roles["push"])
        site.deliver()
        await until(lambda: kinds(site) == ["new-items"])
        assert await shadowed(roles["push"]) == 1


@pytest.mark.slow
async def test_the_canary_goes_through_three_processes_of_which_each_does_its_part(
    site: Site, database: str, ops_ports: dict[str, int]
) -> None:
    assert await migrate(site, database) == 0
    make_sealing_keys(site)
    site.sandbox.eas.add_mailbox(CANARY, PASSWORD)
    add_canary(site)
    async with AsyncExitStack() as stack:
        # The watch role sends the mail, which the others must push and show within seconds: so it starts last.
        starts = ("api", "push", "watch")
        roles = {role: await open_role(stack, site, role, database, ops_ports[role]) for role in starts}
        await until(lambda: metric_is(roles["watch"], 'relay_canary_mails_total{result="shown"}', 1), LONG)
        found = {role: await troubles(process) for role, process in roles.items()}
        metrics = {role: await process.metrics() for role, process in roles.items()}

    assert found == {role: [] for role in ops_ports}
    assert [role for role, text in metrics.items() if "relay_canary_mails_total" in text] == ["watch"]
    assert 'relay_pushes_total{outcome="delivered",provider="webpush"} 1.0' in metrics["push"]
    assert 'relay_canary_seconds_count{provider="webpush",stage="accepted"} 1.0' in metrics["watch"]
    assert len(site.sandbox.smtp.mails) == 1
