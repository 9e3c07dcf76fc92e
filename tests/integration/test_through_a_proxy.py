"""All senders through a proxy: all connections go through it, none around it, and each of its faults has a reason."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest

from eas_watcher.proxy.proxy import Proxy
from relay.domain.model import DuePush, Platform
from relay.domain.outcome import Delivered, Outcome, Refused
from relay.network.route import Route
from relay.sandbox.certificates import ThrowAwayCa
from tests.fakes.proxy import ConnectProxy, Talk, connect_proxy, says
from tests.integration.push_world import apns, failure, fcm
from tests.integration.webpush_world import world
from tests.unit.relay.push.pushes import due_push
from tests.waiting import until

both = pytest.mark.parametrize("platform", [Platform.APNS, Platform.FCM])


class Sender(Protocol):
    async def send(self, push: DuePush) -> Outcome: ...


class Simulator(Protocol):
    port: int

    @property
    def received(self) -> list[object]: ...


@asynccontextmanager
async def provider(platform: Platform, folder: Path, route: Route) -> AsyncIterator[tuple[Simulator, Sender]]:
    """Open a simulated provider and a sender that reaches it by a route."""
    opened = apns if platform is Platform.APNS else fcm
    async with opened(folder, route=route) as (simulator, sender):
        yield simulator, sender  # type: ignore[misc]  # both simulators have these two


def through(proxy: ConnectProxy, user: str = "", password: str = "") -> Route:
    return Route(Proxy("127.0.0.1", proxy.port, user=user, password=password))


async def send(sender: Sender, platform: Platform, number: int = 1) -> Outcome:
    async with asyncio.timeout(30.0):
        return await sender.send(due_push(number, platform=platform))


async def failed(sender: Sender, platform: Platform) -> Outcome:
    """Return why a push fails, after the sender has noticed that its connections are lost."""
    while True:
        outcome = await send(sender, platform)
        if isinstance(outcome, Refused) or not failure(outcome).startswith("connection-lost"):
            return outcome


@both
@pytest.mark.parametrize("user", ["", "relay:hunter2"])
async def test_every_push_goes_through_the_proxy(tmp_path: Path, platform: Platform, user: str) -> None:
    async with connect_proxy(ConnectProxy(user=user)) as proxy:
        known = through(proxy, *user.split(":")) if user else through(proxy)
        async with provider(platform, tmp_path, known) as (simulator, sender):
            for number in range(5):
                assert isinstance(await send(sender, platform, number), Delivered)
            assert len(simulator.received) == 5
            # One warm connection serves them all, and FCM's access token was asked for on it, too.
            assert [target.rpartition(":")[2] for target in proxy.targets] == [str(simulator.port)]
            assert proxy.tunnels == 1


@both
@pytest.mark.both_loops
async def test_while_the_proxy_is_down_nothing_goes_around_it(tmp_path: Path, platform: Platform) -> None:
    async with connect_proxy() as first, provider(platform, tmp_path, through(first)) as (simulator, sender):
        assert isinstance(await send(sender, platform, 1), Delivered)
        await first.stop()
        refused = await failed(sender, platform)
        assert failure(refused) == "proxy-refused"
        assert len(simulator.received) == 1
        async with connect_proxy(port=first.port):
            assert isinstance(await send(sender, platform, 2), Delivered)
        assert len(simulator.received) == 2


@both
async def test_a_proxy_that_stops_costs_only_the_pushes_in_flight(tmp_path: Path, platform: Platform) -> None:
    async with connect_proxy() as proxy, provider(platform, tmp_path, through(proxy)) as (_, sender):
        assert isinstance(await send(sender, platform), Delivered)
        proxy.cut()
        await until(lambda: proxy.tunnels == 0)
        async with asyncio.timeout(30.0):
            while not isinstance(await send(sender, platform, 2), Delivered):
                continue


@both
@pytest.mark.parametrize(
    ("talk", "reason", "told"),
    [
        (says(b"HTTP/1.1 403 Filtered\r\n\r\n"), "proxy-denied", "to CONNECT to"),
        (says(b"HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\n\r\n"), "proxy-authentication-required", "NTLM"),
    ],
)
async def test_a_fault_that_an_operator_must_mend_pauses_the_channel(
    tmp_path: Path, platform: Platform, talk: Talk, reason: str, told: str
) -> None:
    async with connect_proxy() as proxy, provider(platform, tmp_path, through(proxy)) as (simulator, sender):
        assert isinstance(await send(sender, platform, 1), Delivered)
        proxy.talk = talk
        proxy.cut()
        outcome = await failed(sender, platform)
        assert isinstance(outcome, Refused)
        assert (outcome.reason, outcome.channel) == (reason, True)
        assert told in outcome.remedy
        assert f"127.0.0.1:{proxy.port}" in outcome.remedy
        proxy.talk = None
        assert isinstance(await send(sender, platform, 2), Delivered)
        assert len(simulator.received) == 2


@both
@pytest.mark.parametrize(
    ("talk", "reason"),
    [
        (says(b"HTTP/1.0 502 Bad Gateway\r\n\r\n"), "proxy-cannot-reach"),
        (says(b"220 mail.example.com ESMTP\r\n", then_hold=True), "proxy-speaks-no-http"),
        (says(), "proxy-hangs-up"),
    ],
)
async def test_a_passing_fault_is_tried_again_later(
    tmp_path: Path, platform: Platform, talk: Talk, reason: str
) -> None:
    proxy = ConnectProxy(talk=talk)
    async with connect_proxy(proxy), provider(platform, tmp_path, through(proxy)) as (simulator, sender):
        # FCM fails with its access token already, which takes the same route.
        assert failure(await send(sender, platform)) == reason
        assert simulator.received == []


@both
async def test_tls_that_a_proxy_opens_is_not_trusted_by_itself(tmp_path: Path, platform: Platform) -> None:
    # To the sender, TLS that a proxy opened has a certificate of an unknown CA.
    company = tmp_path / "company.pem"
    ThrowAwayCa("The company's").write_ca(company)
    opened = apns if platform is Platform.APNS else fcm
    async with connect_proxy() as proxy, opened(tmp_path, route=through(proxy), ca_file=company) as (simulator, sender):
        outcome = await send(sender, platform)
        assert isinstance(outcome, Refused)
        assert (outcome.reason, outcome.channel) == ("certificate-not-trusted", True)
        assert f"set {platform.value}.ca_file" in outcome.remedy
        assert "proxy that inspects TLS" in outcome.remedy
        assert simulator.received == []


@both
async def test_the_proxys_password_shows_nowhere(
    tmp_path: Path, platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = ConnectProxy(user="relay:another")
    with caplog.at_level(logging.DEBUG):
        async with (
            connect_proxy(proxy),
            provider(platform, tmp_path, through(proxy, "relay", "hunter2")) as (_, sender),
        ):
            outcome = await send(sender, platform)
    assert isinstance(outcome, Refused)
    assert "network.proxy_password_file" in outcome.remedy
    shown = f"{outcome} {caplog.text} {[record.__dict__ for record in caplog.records]}"
    assert "hunter2" not in shown
    assert "cmVsYXk6aHVudGVyMg" not in shown  # relay:hunter2 in base 64


async def test_push_services_are_reached_through_the_proxy_too(tmp_path: Path) -> None:
    async with connect_proxy(ConnectProxy(user="relay:hunter2")) as proxy:
        known = through(proxy, "relay", "hunter2")
        async with world(tmp_path, route=known) as outside, asyncio.timeout(30.0):
            assert isinstance(await outside.sender.send(outside.phone()), Delivered)
            assert proxy.targets == [outside.simulator.service]
        async with world(tmp_path, route=through(proxy)) as refused, asyncio.timeout(30.0):
            outcome = await refused.sender.send(refused.phone())
            assert isinstance(outcome, Refused)
            assert (outcome.reason, outcome.channel) == ("proxy-authentication-required", True)
            assert refused.simulator.received == []
