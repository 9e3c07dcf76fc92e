"""Sealing keys are replaced while Pings are held and phones register: no downtime, and no lost credential."""

import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from relay.cli.keygen import write_sealing_keys
from relay.domain.model import SHARDS
from relay.sandbox.process import RelayProcess, open_relay
from tests.acceptance.test_canaries import leaks
from tests.acceptance.test_canary import metric_is
from tests.acceptance.test_cli import Ended, relay
from tests.acceptance.test_roles import migrate
from tests.planting import plant, user
from tests.ports import free_ports
from tests.postgres import PostgresServer, running_postgres
from tests.site import ANN, PASSWORD, Site, healed, part_of
from tests.waiting import until

MANY = 1_500
PATIENT = 120.0  # seconds; the files are looked at every ten
BEN, CLEO = "ben@example.com", "cleo@example.com"
CANARY = "canary-password-Hq3"


async def keys(site: Site, *arguments: str, role: str = "all", environ: Mapping[str, str] | None = None) -> Ended:
    options = ("--config", str(site.sandbox.toml), "--role", role)
    return await relay("keys", *arguments, *options, environ=environ)


async def listed(site: Site, role: str = "all", environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return what `relay keys list` says of each key."""
    told = await keys(site, "list", "--json", role=role, environ=environ)
    assert told.status == 0, told.err
    return {key["id"]: key for key in json.loads(told.out)["keys"]}


async def present(site: Site) -> str:
    return next(iter(await listed(site)))


def heads(site: Site) -> set[str]:
    """Return the keys that stored credentials are sealed for."""
    file = site.sandbox.folder / "state/relay.sqlite3"
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT DISTINCT hex(substr(sealed_credential, 2, 8)) FROM mailbox")
        return {str(head).lower() for (head,) in rows}


def syncs(site: Site) -> int:
    """Return how many Syncs came: each watch begins with one, and a Ping whose heartbeat ends is followed by none."""
    return site.sandbox.eas.records.requests["Sync"]


@pytest.mark.slow
async def test_a_key_is_replaced_and_taken_out_of_use_under_a_held_ping(site: Site) -> None:
    state = site.sandbox.folder / "state"
    site.sandbox.eas.add_mailbox(BEN, CANARY)
    said: list[Ended] = []
    async with site.relay() as process:
        assert (await site.register(BEN, CANARY))[0] == 201
        await site.held()
        asked, old = syncs(site), await present(site)

        said.append(await keys(site, "new"))
        new = said[-1].out.split()[2].rstrip(",")
        assert (state / f"sealing-private-{new}.pem").stat().st_mode & 0o777 == 0o600
        said.append(await keys(site, "retire", old))
        assert (said[-1].status, f"{old} is the present key" in said[-1].err) == (1, True)
        said.append(await keys(site, "rotate"))
        assert said[-1].status == 0, said[-1].err
        await until(lambda: heads(site) == {new}, PATIENT)
        found = await listed(site)
        assert (found[old]["credentials"], found[new]["credentials"]) == (0, 1)
        assert found[new]["sealed_by"] == found[new]["opened_by"] != []

        said.append(await keys(site, "retire", old))
        assert said[-1].status == 0, said[-1].err
        assert (state / f"sealing-private-{old}.pem.retired").exists()

        async def out_of_use() -> bool:
            return old not in await listed(site)

        await until(out_of_use, PATIENT)
        await healed(process)
        assert (syncs(site), site.sandbox.eas.held) == (asked, 1)
        assert "relay_seals_renewed_total 1.0" in await process.metrics()
    async with site.relay():  # with the new key alone
        await site.held()

    acts = json.loads((await relay("audit", "acts", "--json", "--config", str(site.sandbox.toml))).out)
    assert [(act["what"], act["detail"]) for act in reversed(acts)] == [
        ("key.new", f"sealing key {new}"),
        ("key.rotate", f"sealing key {new}"),
        ("key.retire", f"sealing key {old}"),
    ]
    told = "".join(each.out + each.err for each in said) + process.log.read_text()
    database = b"".join(path.read_bytes() for path in state.glob("relay.sqlite3*"))
    secrets = [line for file in state.glob("sealing-private*") for line in file.read_text().splitlines()[1:-1]]
    assert len(secrets) == 2
    assert leaks((CANARY, *secrets), told.encode()) == []
    assert leaks((CANARY, *secrets), database) == []


@pytest.mark.slow
async def test_a_relay_that_is_killed_midway_goes_on_where_it_was(site: Site) -> None:
    for number in range(1, MANY + 1):
        site.sandbox.eas.add_mailbox(user(number), PASSWORD)
    plant(site.sandbox.folder, MANY, PASSWORD)
    old = await present(site)
    async with site.relay() as process:
        await site.held(MANY)
        new = (await keys(site, "new")).out.split()[2].rstrip(",")
        assert (await keys(site, "rotate", new)).status == 0
        await until(lambda: new in heads(site), PATIENT)
        process.kill()
        await process.process.wait()
    assert heads(site) == {old, new}, "the kill came too late to show anything"
    refused = await keys(site, "retire", old)
    assert (refused.status, "wait until the watch role has sealed them again" in refused.err) == (1, True)

    async with site.relay():
        await site.held(MANY)
        asked = syncs(site)
        await until(lambda: heads(site) == {new}, PATIENT)
        assert (syncs(site), site.sandbox.eas.held) == (asked, MANY)
        assert (await site.register())[0] == 201
        assert (await keys(site, "retire", old)).status == 0
    async with site.relay() as process:
        await site.held(MANY + 1)
        await healed(process)
    assert not site.sandbox.eas.records.overlaps


# --- roles on several hosts


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture
async def database(postgres: PostgresServer) -> AsyncIterator[str]:
    name = await postgres.create()
    yield postgres.url(name)
    await postgres.drop(name)


class Hosts:
    """Three hosts, each with its own folder of keys: one of the api role, and two of the watch role."""

    def __init__(self, site: Site, database: str, ports: list[int]) -> None:
        self.site = site
        self.folder = site.sandbox.folder
        self._database = database
        self._ports = dict(zip(("api", "first", "second"), ports, strict=True))
        for name in self._ports:
            (self.folder / name).mkdir()
        write_sealing_keys(self.private("first"), self.public("first"))
        shutil.copy(self.private("first"), self.private("second"))
        for host in ("second", "api"):
            shutil.copy(self.public("first"), self.public(host))

    def private(self, host: str) -> Path:
        return self.folder / host / "sealing-private.pem"

    def public(self, host: str) -> Path:
        return self.folder / host / "sealing-public.pem"

    def environ(self, host: str) -> dict[str, str]:
        role = "api" if host == "api" else "watch"
        return {
            **self.site.environ,
            "RELAY__DATABASE__URL": self._database.replace("postgres@", f"relay_{role}@"),
            "RELAY__OPS__PORT": str(self._ports[host]),
            "RELAY__SEALING__PRIVATE_KEY_FILE": str(self.private(host)),
            "RELAY__SEALING__PUBLIC_KEY_FILE": str(self.public(host)),
        }

    async def open(self, stack: AsyncExitStack, host: str) -> RelayProcess:
        role, port = "api" if host == "api" else "watch", self._ports[host]
        opened = open_relay(self.site.sandbox.toml, port, role=role, environ=self.environ(host))
        return await stack.enter_async_context(opened)

    async def keys(self, host: str, *arguments: str) -> Ended:
        role = "api" if host == "api" else "watch"
        return await keys(self.site, *arguments, role=role, environ=self.environ(host))

    async def records(self) -> dict[str, int]:
        """Return how much is sealed for each key."""
        found = await listed(self.site, "watch", self.environ("first"))
        return {name: key["credentials"] + key["candidates"] for name, key in found.items()}


@pytest.mark.slow
async def test_roles_on_several_hosts_go_over_to_a_key_one_after_the_other(site: Site, database: str) -> None:
    assert await migrate(site, database) == 0
    hosts = Hosts(site, database, free_ports(3))
    for name in (BEN, CLEO):
        site.sandbox.eas.add_mailbox(name, PASSWORD)
    async with AsyncExitStack() as stack:
        processes = {host: await hosts.open(stack, host) for host in ("api", "first", "second")}
        # A mailbox that goes to another process begins with a Sync.
        await until(lambda: metric_is(processes["second"], "relay_shards_leased", SHARDS / 2), PATIENT)
        assert (await site.register(ANN, PASSWORD))[0] == 201
        await site.held()
        (old,) = await hosts.records()
        new = (await hosts.keys("first", "new")).out.split()[2].rstrip(",")
        name = f"sealing-private-{new}.pem"

        # The second host has not got the key yet: nothing is sealed for it.
        assert (await hosts.keys("first", "rotate", new)).status == 0
        await part_of(processes["first"], "sealing keys", f"the key {new} waits")
        shutil.copy(hosts.public("first"), hosts.public("api"))
        await part_of(processes["api"], "sealing keys", f"the key {new} waits")
        assert (await site.register(BEN, PASSWORD))[0] == 201
        await site.held(2)
        assert await hosts.records() == {new: 0, old: 2}

        shutil.copy(hosts.private("first"), hosts.folder / "second" / name)
        second = await part_of(processes["first"], "sealing keys", "seals with another key")
        assert "`relay keys rotate`" in second["remedy"]
        assert (await site.register(CLEO, PASSWORD))[0] == 201
        await site.held(3)
        asked = syncs(site)
        refused = await hosts.keys("second", "retire", old)
        assert (refused.status, "is the present key" in refused.err) == (1, True)
        assert (await hosts.keys("second", "rotate", new)).status == 0

        async def all_new() -> bool:
            found = await hosts.records()
            return found == {new: 3, old: 0}

        await until(all_new, PATIENT)
        for process in processes.values():
            await healed(process)

        async def retired() -> bool:
            return (await hosts.keys("first", "retire", old)).status == 0

        await until(retired, PATIENT)
        assert (syncs(site), site.sandbox.eas.held) == (asked, 3)
    async with AsyncExitStack() as stack:
        await hosts.open(stack, "first")
        await site.held(3)
    assert not site.sandbox.eas.records.overlaps
