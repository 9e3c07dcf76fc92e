"""A push process that can reach a proxy only: the kernel enforces the promise that the design makes for the role."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from relay.cli.keygen import write_sealing_keys
from relay.sandbox.process import open_relay
from relay.store.privileges import ROLES, grants_sql
from tests.interop.namespace import HAS_IPV6, IPV4, IPV6, Addresses, NotPermitted, lonely_namespace
from tests.interop.packages import Unavailable, unavailable
from tests.interop.proxies import RealProxy, tinyproxy
from tests.ports import free_port
from tests.postgres import PostgresServer, running_postgres
from tests.site import ANN, PASSWORD, Site, open_site, part_of, troubles
from tests.waiting import SOON

OPS = 9090  # of the push process: all ports are free in its namespace


@pytest.fixture(scope="module")
def within() -> Iterator[tuple[str, ...]]:
    with ExitStack() as stack:
        try:
            command = stack.enter_context(lonely_namespace())
        except Unavailable as reason:
            unavailable(reason)
        except NotPermitted as reason:
            pytest.skip(f"no network namespaces here: {reason}")
        yield command


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path / "sandbox") as opened:
        opened.sandbox.eas.add_mailbox(ANN, PASSWORD)
        state = opened.sandbox.folder / "state"
        write_sealing_keys(state / "sealing-private.pem", state / "sealing-public.pem")
        yield opened


async def migrate(site: Site, database: str) -> None:
    command = (sys.executable, "-m", "relay", "migrate", "--config", str(site.sandbox.toml), "--role", "push")
    process = await asyncio.create_subprocess_exec(*command, env={"RELAY__DATABASE__URL": database})
    assert await process.wait() == 0


NO_IPV6 = pytest.mark.skipif(not HAS_IPV6.exists(), reason="no IPv6 here")


@pytest.mark.parametrize("addresses", [pytest.param(IPV4, id="IPv4"), pytest.param(IPV6, id="IPv6", marks=NO_IPV6)])
async def test_a_push_process_needs_the_proxy_and_nothing_else(
    site: Site, postgres: PostgresServer, within: tuple[str, ...], addresses: Addresses
) -> None:
    database = postgres.url(await postgres.create())
    await migrate(site, database)
    await postgres.create_users(*ROLES)
    await postgres.execute(grants_sql(), sa.make_url(database).database or "")
    # The proxy serves the second address of the namespace only, which a process uses only if it is configured to.
    with tinyproxy([], user=False, clients=(addresses.second,)) as proxy:
        async with AsyncExitStack() as stack:
            for role in ("api", "watch"):
                port = free_port()
                environ = {"RELAY__DATABASE__URL": database, "RELAY__OPS__PORT": str(port)}
                await stack.enter_async_context(open_relay(site.sandbox.toml, port, role=role, environ=environ))
            assert (await site.register())[0] == 201
            await site.held()
            async with open_push(site, database, proxy, within, addresses) as stranger:
                site.deliver()
                told = await part_of(stranger, "apns", "proxy-denied")
                assert addresses.host in told["remedy"]
            assert site.sandbox.apns.received == []

            source = {"RELAY__NETWORK__SOURCE_ADDRESS": addresses.second}
            async with open_push(site, database, proxy, within, addresses, source) as known:
                assert [push.status for push in await site.sandbox.apns.wait(1, SOON)] == [200]
                assert await troubles(known) == []
        assert proxy.targets == [f"127.0.0.1:{site.sandbox.ports.apns}"]


def open_push(
    site: Site,
    database: str,
    proxy: RealProxy,
    within: tuple[str, ...],
    addresses: Addresses,
    environ: dict[str, str] | None = None,
) -> Any:
    host = f"[{addresses.host}]" if ":" in addresses.host else addresses.host
    return open_relay(
        site.sandbox.toml,
        OPS,
        role="push",
        environ={
            "RELAY__DATABASE__URL": database.replace("postgres@", "relay_push@"),
            "RELAY__SEALING__PRIVATE_KEY_FILE": "state/elsewhere.pem",
            "RELAY__OPS__HOST": IPV4.first,
            "RELAY__OPS__PORT": str(OPS),
            "RELAY__NETWORK__PROXY": f"http://{host}:{proxy.port}",
            **(environ or {}),
        },
        ops_host=IPV4.first,
        within=within,
    )
