"""The relay between real reverse proxies, configured as the recipes say: before its API, and before the mail server."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from relay.sandbox.process import RelayProcess
from tests.acceptance.test_reload import replace
from tests.interop.packages import Unavailable, unavailable
from tests.interop.reverse_proxies import NAMES, Setup, running
from tests.ports import free_ports
from tests.site import ANN, PASSWORD, Site, open_site, troubles
from tests.waiting import SOON, until

HEARTBEAT = 64  # seconds; nginx would give up after 60, HAProxy as Debian configures it after 50
PER_MINUTE = 3


@dataclass(frozen=True)
class Proxied:
    """A site whose phones and whose mail server are behind one reverse proxy."""

    site: Site
    setup: Setup

    def phone(self, address: str, **headers: str) -> aiohttp.ClientSession:
        """Return a session that connects from another loopback address, each another client for the proxy."""
        known = self.site.api.connector
        assert isinstance(known, aiohttp.TCPConnector)
        connector = aiohttp.TCPConnector(ssl=known._ssl, local_addr=(address, 0), force_close=True)
        return aiohttp.ClientSession(self.site.sandbox.api_url, connector=connector, headers=headers)


@pytest.fixture(params=NAMES)
async def proxied(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Proxied]:
    plain, mail = free_ports(2)
    environ = {
        "RELAY__API__HOST": "127.0.0.1",
        "RELAY__API__PORT": str(plain),
        "RELAY__API__PROXIES": "127.0.0.1",
        "RELAY__API__REQUESTS_PER_MINUTE": str(PER_MINUTE),
        "RELAY__SERVERS__SANDBOX__URL": f"https://localhost:{mail}/Microsoft-Server-ActiveSync",
        "RELAY__SERVERS__SANDBOX__HEARTBEAT_START": str(HEARTBEAT),
    }
    async with open_site(tmp_path, environ) as site:
        sandbox = site.sandbox
        sandbox.eas.add_mailbox(ANN, PASSWORD)
        replace(sandbox.toml, 'certificate_file = "api.pem"\nkey_file = "api.pem"\n', "")
        ports = sandbox.ports
        setup = Setup(ports.api, plain, mail, ports.eas, sandbox.folder / "api.pem", sandbox.folder / "ca.pem")
        try:
            with running(request.param, setup):
                yield Proxied(site, setup)
        except Unavailable as reason:
            unavailable(reason)


async def heartbeat(relay: RelayProcess) -> float:
    """Return the heartbeat in seconds that Pings survived last; 0.0: none has."""
    lines = (await relay.metrics()).splitlines()
    return max((float(line.split()[-1]) for line in lines if line.startswith("relay_server_heartbeat_s")), default=0.0)


@pytest.mark.timeout(300, func_only=True)  # a Ping of 70 seconds, and a busy machine takes as long for the rest
async def test_a_phone_registers_and_gets_pushes_and_pings_are_held_to_their_end(proxied: Proxied) -> None:
    site = proxied.site
    async with site.relay() as relay:
        assert (await site.register())[0] == 201
        await site.held()
        site.deliver()
        assert [push.status for push in await site.sandbox.apns.wait(1, SOON)] == [200]
        await site.held()

        async def survived() -> bool:
            return await heartbeat(relay) >= HEARTBEAT

        await until(survived, HEARTBEAT + SOON)
        assert "relay_path_cut_seconds{" not in await relay.metrics()
        assert await troubles(relay) == []
        site.deliver()
        assert [push.status for push in await site.sandbox.apns.wait(2, SOON)] == [200, 200]
    assert not site.sandbox.eas.records.overlaps
    assert not site.sandbox.eas.records.complaints


async def test_each_phone_has_its_own_limits_whatever_it_claims_to_be(proxied: Proxied) -> None:
    async def asked(session: aiohttp.ClientSession) -> int:
        async with session.get("/v1/capabilities") as answer:
            return answer.status

    async with (
        proxied.site.relay(),
        proxied.phone("127.0.0.2") as ann,
        proxied.phone("127.0.0.3") as ben,
        proxied.phone("127.0.0.2", **{"X-Forwarded-For": "203.0.113.7", "Forwarded": "for=203.0.113.7"}) as liar,
    ):
        assert [await asked(ann) for _ in range(PER_MINUTE)] == [200] * PER_MINUTE
        assert await asked(ann) == 429
        assert await asked(liar) == 429
        assert await asked(ben) == 200


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/admin/v1/mailboxes"])
async def test_nothing_but_the_api_is_published(proxied: Proxied, path: str) -> None:
    async with proxied.site.relay(), proxied.site.api.get(path) as answer:
        assert answer.status in {403, 404}
        assert answer.content_type != "application/problem+json"  # as the relay itself would answer
