"""The command line behind a company proxy: all traffic goes through it, and health names its faults."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.sandbox.installation import APP
from relay.sandbox.process import RelayProcess
from tests.fakes.proxy import ConnectProxy, connect_proxy
from tests.site import ANN, PASSWORD, Site, healed, open_site, part_of
from tests.waiting import SOON

PHONES = 5  # so many failures in a row are an outage


@pytest.fixture
async def proxy() -> AsyncIterator[ConnectProxy]:
    async with connect_proxy(ConnectProxy(user="relay:hunter2")) as opened:
        yield opened


@pytest.fixture
async def site(tmp_path: Path, proxy: ConnectProxy) -> AsyncIterator[Site]:
    password = tmp_path / "proxy.password"
    password.write_text("hunter2\n")
    password.chmod(0o600)
    environ = {
        "RELAY__NETWORK__PROXY": f"http://127.0.0.1:{proxy.port}",
        "RELAY__NETWORK__PROXY_USER": "relay",
        "RELAY__NETWORK__PROXY_PASSWORD_FILE": str(password),
        "HTTPS_PROXY": "http://127.0.0.1:1",  # must not matter
    }
    async with open_site(tmp_path / "sandbox", environ) as opened:
        opened.sandbox.eas.add_mailbox(ANN, PASSWORD)
        yield opened


async def says(relay: RelayProcess, name: str, reason: str) -> str:
    """Wait until a part of the relay's health fails with a reason; return the remedy."""
    part = await part_of(relay, name, reason)
    assert part["state"] == "failed"
    return part["remedy"]


@pytest.mark.slow
async def test_pushes_go_through_the_proxy_or_wait_for_it(site: Site, proxy: ConnectProxy) -> None:
    sandbox = site.sandbox
    async with site.relay() as relay:
        for number in range(PHONES):
            device = {"platform": "apns", "token": f"{number:02x}" * 32, "app": APP}
            assert (await site.register(device=device))[0] == 201
        assert (await site.register_android())[0] == 201
        await site.held()

        site.deliver()
        assert {push.status for push in await sandbox.apns.wait(PHONES, SOON)} == {200}
        assert {push.status for push in await sandbox.fcm.wait(1, SOON)} == {200}
        # Neither the mail server is reached through it, nor a provider without it.
        assert set(proxy.targets) == {f"127.0.0.1:{sandbox.ports.apns}", f"127.0.0.1:{sandbox.ports.fcm}"}
        assert sandbox.apns.accepted == proxy.targets.count(f"127.0.0.1:{sandbox.ports.apns}")

        await proxy.stop()
        site.deliver()
        assert f"127.0.0.1:{proxy.port}" in await says(relay, "apns", "proxy-refused")
        assert (len(sandbox.apns.received), len(sandbox.fcm.received)) == (PHONES, 1)

        async with connect_proxy(ConnectProxy(user="relay:hunter2"), port=proxy.port) as again:
            assert {push.status for push in await sandbox.apns.wait(2 * PHONES, SOON)} == {200}
            assert {push.status for push in await sandbox.fcm.wait(2, SOON)} == {200}
            await healed(relay)

            again.user = "relay:another"
            again.cut()
            site.deliver()
            assert "network.proxy_password_file" in await says(relay, "apns", "proxy-authentication-required")
            assert (len(sandbox.apns.received), len(sandbox.fcm.received)) == (2 * PHONES, 2)

        log = relay.log.read_text()
        assert "hunter2" not in log
        assert "cmVsYXk6aHVudGVyMg" not in log  # relay:hunter2 in base 64
