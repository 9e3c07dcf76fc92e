"""The relay through proxies of other projects: tinyproxy and Squid."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from eas_watcher.proxy.proxy import Proxy
from relay.domain.model import Platform
from relay.domain.outcome import Delivered, Outcome, Refused
from relay.network.route import Route
from relay.sandbox.certificates import ThrowAwayCa
from relay.sandbox.process import RelayProcess
from tests.integration.push_world import apns, failure, fcm
from tests.interop.packages import Unavailable, unavailable
from tests.interop.proxies import PASSWORD, USER, RealProxy, site_behind, squid, tinyproxy
from tests.site import healed, part_of, troubles
from tests.unit.relay.push.pushes import due_push
from tests.waiting import SOON, until

PLATFORMS = (Platform.APNS, Platform.FCM)


@dataclass(frozen=True)
class Proxies:
    """Proxies that open tunnels to every host, and one that opens none."""

    tinyproxy: RealProxy
    squid: RealProxy
    narrow: RealProxy
    ca: Path


@pytest.fixture(scope="module")
def proxies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxies]:
    ca, folder = ThrowAwayCa("Of the proxy"), tmp_path_factory.mktemp("proxies")
    ca.write_ca(folder / "proxy-ca.pem")
    with ExitStack() as stack:
        try:
            yield Proxies(
                stack.enter_context(tinyproxy([])),
                stack.enter_context(squid(ca)),
                stack.enter_context(tinyproxy([443], user=False)),
                folder / "proxy-ca.pem",
            )
        except Unavailable as reason:
            unavailable(reason)


def proxy(name: str, proxies: Proxies, password: str = PASSWORD) -> Proxy:
    """Return a proxy's address, with the way to speak to it, by its name in the tests."""
    match name:
        case "tinyproxy":
            return Proxy("127.0.0.1", proxies.tinyproxy.port, user=USER, password=password)
        case "squid":
            return Proxy("127.0.0.1", proxies.squid.port, user=USER, password=password)
        case "squid over TLS":
            port = proxies.squid.tls_port
            return Proxy("127.0.0.1", port, user=USER, password=password, tls=True, ca_file=proxies.ca)
        case _:
            return Proxy("127.0.0.1", proxies.narrow.port)


async def push(platform: Platform, folder: Path, way: Route) -> tuple[Outcome, int, int]:
    """Send one push; return its outcome, the number of pushes that arrived, and the provider's port."""
    world = apns if platform is Platform.APNS else fcm
    async with asyncio.timeout(SOON), world(folder, route=way) as (simulator, sender):
        outcome = await sender.send(due_push(platform=platform))
        return outcome, len(simulator.received), simulator.port


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("name", ["tinyproxy", "squid", "squid over TLS"])
async def test_pushes_go_through(proxies: Proxies, tmp_path: Path, name: str, platform: Platform) -> None:
    outcome, arrived, port = await push(platform, tmp_path, Route(proxy(name, proxies)))
    assert isinstance(outcome, Delivered)
    assert arrived == 1
    real = proxies.tinyproxy if name == "tinyproxy" else proxies.squid
    await until(lambda: any(target.endswith(f":{port}") for target in real.targets))


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize(
    ("name", "password", "reason"),
    [
        ("tinyproxy", "wrong", "proxy-authentication-required"),
        ("squid", "wrong", "proxy-authentication-required"),
        ("squid over TLS", "wrong", "proxy-authentication-required"),
        ("tinyproxy for port 443 alone", "", "proxy-denied"),
    ],
)
async def test_refusals_are_named(
    proxies: Proxies, tmp_path: Path, name: str, password: str, reason: str, platform: Platform
) -> None:
    outcome, arrived, _ = await push(platform, tmp_path, Route(proxy(name, proxies, password)))
    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.channel, arrived) == (reason, True, 0)


@pytest.mark.parametrize("name", ["tinyproxy", "squid", "squid over TLS"])
@pytest.mark.parametrize("host", ["push.invalid", "127.0.0.1"])
async def test_a_provider_out_of_the_proxys_reach_is_named(
    proxies: Proxies, tmp_path: Path, name: str, host: str
) -> None:
    # No process listens on port 1; the proxy must look up the name, and no DNS knows it.
    way = Route(proxy(name, proxies))
    async with asyncio.timeout(SOON), apns(tmp_path, route=way, host=host, port=1) as (_, sender):
        assert failure(await sender.send(due_push())) == "proxy-cannot-reach"


async def test_a_proxy_spoken_to_in_the_wrong_way_is_named(proxies: Proxies, tmp_path: Path) -> None:
    plain = Route(Proxy("127.0.0.1", proxies.squid.port, tls=True, ca_file=proxies.ca))
    outcome, _, _ = await push(Platform.APNS, tmp_path, plain)
    assert failure(outcome) in {"proxy-tls-failed", "proxy-hangs-up"}
    over_tls = Route(Proxy("127.0.0.1", proxies.squid.tls_port))
    outcome, _, _ = await push(Platform.APNS, tmp_path, over_tls)
    assert failure(outcome) in {"proxy-hangs-up", "proxy-speaks-no-http"}
    stranger = Route(Proxy("127.0.0.1", proxies.squid.tls_port, tls=True))
    outcome, _, _ = await push(Platform.APNS, tmp_path, stranger)
    assert isinstance(outcome, Refused)
    assert outcome.reason == "proxy-certificate-not-trusted"


async def says(relay: RelayProcess, name: str, reason: str) -> str:
    """Wait until a part of the relay's health has a reason; return the remedy."""
    return (await part_of(relay, name, reason))["remedy"]


async def test_the_relay_delivers_through_the_proxy_and_waits_while_it_is_down(tmp_path: Path) -> None:
    with tinyproxy([]) as proxy:
        async with site_behind(proxy, tmp_path, "NETWORK") as site, site.relay() as relay:
            sandbox = site.sandbox
            assert (await site.register())[0] == 201
            assert (await site.register_android())[0] == 201
            await site.held()
            site.deliver()
            assert [push.status for push in await sandbox.apns.wait(1, SOON)] == [200]
            assert [push.status for push in await sandbox.fcm.wait(1, SOON)] == [200]
            # By the proxy's own log: all connections to Apple's and Google's simulators came through it, and none to
            # the mail server did.
            assert set(proxy.targets) == {f"127.0.0.1:{sandbox.ports.apns}", f"127.0.0.1:{sandbox.ports.fcm}"}
            assert proxy.targets.count(f"127.0.0.1:{sandbox.ports.apns}") == sandbox.apns.accepted == 1
            assert await troubles(relay) == []

            proxy.daemon.stop()
            asked = len(proxy.targets)
            site.deliver()
            await asyncio.sleep(3.0)  # there is no event to wait for: the test shows that nothing comes
            assert (len(sandbox.apns.received), len(sandbox.fcm.received)) == (1, 1)
            assert len(proxy.targets) == asked

            proxy.daemon.start()
            assert [push.status for push in await sandbox.apns.wait(2, 2 * SOON)] == [200, 200]
            assert [push.status for push in await sandbox.fcm.wait(2, 2 * SOON)] == [200, 200]
            await healed(relay)  # once it has the answers
            log = relay.log.read_text()
        assert PASSWORD not in log
        assert not site.sandbox.eas.records.overlaps


async def test_a_proxy_that_hangs_is_told_and_waited_for(tmp_path: Path) -> None:
    with tinyproxy([]) as proxy:
        async with site_behind(proxy, tmp_path, "NETWORK") as site, site.relay() as relay:
            assert (await site.register())[0] == 201
            await site.held()
            proxy.pause()
            site.deliver()
            remedy = await says(relay, "apns", "proxy-timed-out")
            assert f"127.0.0.1:{proxy.port}" in remedy
            assert site.sandbox.apns.received == []
            proxy.resume()
            assert [push.status for push in await site.sandbox.apns.wait(1, 2 * SOON)] == [200]
