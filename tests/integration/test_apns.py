import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from relay.domain.model import Environment, Mode
from relay.domain.outcome import Delivered, Outcome, Refused, RetryLater, TokenGone
from relay.process.clock import now
from relay.push.apns.config import ApnsAccount, ApnsCertificate, ApnsToken
from relay.push.apns.sender import ApnsSender
from relay.push.egress.leaving import Unwritable, held
from relay.sandbox.certificates import ThrowAwayCa
from relay.sandbox.scripts import Answer, Close
from tests.fakes.egress import MemoryEgress
from tests.integration.push_world import (
    APP,
    TEAM,
    ApnsWorld,
    account,
    apns,
    apns_key,
    apns_sender,
    apns_world,
    certificate,
    failure,
    silent_server,
)
from tests.ports import free_port
from tests.unit.relay.push.pushes import due_push
from tests.waiting import until

SINCE = datetime(2026, 11, 23, 8, tzinfo=UTC)


async def send_all(sender: ApnsSender, count: int, first: int = 1) -> list[Outcome]:
    return await asyncio.gather(*(sender.send(due_push(number)) for number in range(first, first + count)))


@pytest.mark.both_loops
async def test_a_push_arrives_as_documented(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        outcome = await sender.send(due_push())

        received = simulator.received[0]
        assert outcome == Delivered(received.headers["apns-id"])
        assert received.device_token == due_push().device_token
        assert received.status == 200
        assert {name: received.headers[name] for name in ("apns-topic", "apns-push-type", "apns-priority")} == {
            "apns-topic": APP,
            "apns-push-type": "alert",
            "apns-priority": "10",
        }
        assert received.headers["apns-collapse-id"] == "registration-1.email"
        ends = datetime.fromtimestamp(int(received.headers["apns-expiration"]), UTC)
        assert timedelta(hours=71) < ends - now() <= timedelta(hours=72)
        assert json.loads(received.body)["relay"]["class"] == "email"


async def test_a_background_push_is_accepted(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        assert isinstance(await sender.send(due_push(mode=Mode.BACKGROUND)), Delivered)
        assert simulator.received[0].headers["apns-priority"] == "5"


async def test_a_client_certificate_authenticates_without_a_token(tmp_path: Path) -> None:
    async with apns_world(tmp_path) as world:
        config = replace(world.config, accounts=(account(certificate(world)),))
        async with apns_sender(config) as sender:
            assert isinstance(await sender.send(due_push()), Delivered)
        assert "authorization" not in world.simulator.received[0].headers


async def test_a_certificate_for_another_app_is_a_fault_of_the_channel(tmp_path: Path) -> None:
    async with apns_world(tmp_path) as world:
        config = replace(world.config, accounts=(account(certificate(world, "com.example.other")),))
        async with apns_sender(config) as sender:
            outcome = await sender.send(due_push())
        assert isinstance(outcome, Refused)
        assert (outcome.reason, outcome.channel) == ("TopicDisallowed", True)


async def test_a_key_that_apple_does_not_know_is_a_fault_of_the_channel(tmp_path: Path) -> None:
    async with apns(tmp_path, accounts=(account(apns_key(tmp_path, "other.p8")),)) as (_, sender):
        outcome = await sender.send(due_push())
        assert isinstance(outcome, Refused)
        assert (outcome.reason, outcome.channel) == ("InvalidProviderToken", True)
        assert "apns.key_file" in outcome.remedy


async def test_one_provider_token_serves_all_connections(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        await sender.send(due_push(1))
        await sender.send(due_push(2, environment=Environment.SANDBOX))
        simulator.drop()
        await until(lambda: not simulator.connections)
        await sender.send(due_push(3))

        assert simulator.accepted == 3
        assert len({received.headers["authorization"] for received in simulator.received}) == 1


async def test_an_expired_provider_token_is_renewed_once_for_all_pushes_that_used_it(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        await sender.send(due_push(1))
        simulator.fail(Answer(403, "ExpiredProviderToken"), 20)
        outcomes = await send_all(sender, 20, first=2)

        assert all(isinstance(outcome, Delivered) for outcome in outcomes)
        assert len(simulator.received) == 41

        simulator.fail(Answer(403, "ExpiredProviderToken"))
        outcome = await sender.send(due_push(100))
        assert isinstance(outcome, Refused)
        assert "clock" in outcome.remedy
        assert len(simulator.received) == 42


async def test_a_gone_token_has_the_timestamp_of_apple(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        simulator.gone(due_push(1).device_token, SINCE)

        assert await sender.send(due_push(1)) == TokenGone("Unregistered", SINCE)
        assert isinstance(await sender.send(due_push(2)), Delivered)


async def test_an_unknown_token_is_refused_and_never_gone(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        simulator.know(due_push(2).device_token, APP)
        simulator.know(due_push(3).device_token, "com.example.other")

        for number, reason in (1, "BadDeviceToken"), (3, "DeviceTokenNotForTopic"):
            outcome = await sender.send(due_push(number))
            assert isinstance(outcome, Refused)
            assert (outcome.reason, outcome.channel) == (reason, False)
        assert isinstance(await sender.send(due_push(2)), Delivered)


async def test_a_push_without_a_configured_app_or_a_valid_token_is_not_sent(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        other = await sender.send(due_push(app="com.example.other"))
        path = await sender.send(due_push(device_token="00/../11"))

        assert isinstance(other, Refused)
        assert "apns.topics" in other.remedy
        assert isinstance(path, Refused)
        assert path.reason == "malformed-device-token"
        assert simulator.accepted == 0


@pytest.mark.parametrize(
    ("script", "after", "provider"),
    [
        (Answer(429, "TooManyRequests"), None, False),
        (Answer(429, "TooManyRequests", retry_after="7"), 7.0, False),
        (Answer(429, "TooManyProviderTokenUpdates"), 60.0, True),
        (Answer(500, "InternalServerError"), None, True),
        (Answer(503, "ServiceUnavailable", retry_after="30"), 30.0, True),
    ],
)
async def test_passing_faults_leave_the_connection_open(
    tmp_path: Path, script: Answer, after: float | None, provider: bool
) -> None:
    async with apns(tmp_path) as (simulator, sender):
        simulator.fail(script)

        outcome = await sender.send(due_push(1))
        assert isinstance(outcome, RetryLater)
        assert (outcome.reason, outcome.after, outcome.provider) == (script.reason, after, provider)
        assert bool(outcome.remedy) == provider
        assert isinstance(await sender.send(due_push(2)), Delivered)
        assert simulator.accepted == 1


async def test_several_hundred_pushes_at_once_share_one_connection(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        outcomes = await send_all(sender, 600)

        assert all(isinstance(outcome, Delivered) for outcome in outcomes)
        assert len({received.device_token for received in simulator.received}) == 600
        assert len(simulator.received) == 600
        assert simulator.accepted == 1


async def test_a_server_that_never_shakes_hands_costs_the_time_limit(tmp_path: Path) -> None:
    async with silent_server() as port, apns_world(tmp_path) as world:
        config = replace(world.config, host="127.0.0.1", port=port, time_limit=0.3)
        async with asyncio.timeout(30.0), apns_sender(config) as sender:
            assert set(map(failure, await send_all(sender, 10))) == {"timed-out"}


async def test_closing_ends_pushes_in_flight_even_while_connecting(tmp_path: Path) -> None:
    async with silent_server() as port, apns_world(tmp_path) as world:
        config = replace(world.config, host="127.0.0.1", port=port)
        sender = apns_sender(config)
        async with asyncio.timeout(30.0), asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(sender.send(due_push(1)))
            await asyncio.sleep(0.1)
            await sender.close()
        assert isinstance(waiting.result(), RetryLater)


async def test_a_server_that_does_not_listen_is_tried_again_later(tmp_path: Path) -> None:
    async with apns_world(tmp_path) as world:
        config = replace(world.config, host="127.0.0.1", port=free_port())
        async with asyncio.timeout(30.0), apns_sender(config) as sender:
            assert set(map(failure, await send_all(sender, 10))) == {"connection-refused"}


async def test_a_certificate_of_an_unknown_ca_names_the_setting(tmp_path: Path) -> None:
    async with apns_world(tmp_path) as world:
        ThrowAwayCa("Another CA").write_ca(tmp_path / "other.pem")
        async with apns_sender(replace(world.config, ca_file=tmp_path / "other.pem")) as sender:
            outcomes = await send_all(sender, 3)
        for outcome in outcomes:
            assert isinstance(outcome, Refused)
            assert (outcome.reason, outcome.channel) == ("certificate-not-trusted", True)
            assert "apns.ca_file" in outcome.remedy


async def test_a_certificate_for_another_host_is_not_trusted(tmp_path: Path) -> None:
    async with apns_world(tmp_path) as world:
        async with apns_sender(replace(world.config, host="127.0.0.2")) as sender:
            outcome = await sender.send(due_push())
        assert isinstance(outcome, RetryLater | Refused)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda world: (), "apns.topics"),
        (lambda world: (account(ApnsToken(world.folder / "ca.pem", "A" * 10, TEAM)),), "apns.key_file"),
        (lambda world: (account(ApnsCertificate(world.folder / "apns.p8")),), "apns.certificate_file"),
        (lambda world: (account(ApnsToken(world.folder / "apns.p8", None, TEAM)),), "AuthKey_KEYID.p8"),
    ],
)
async def test_settings_that_cannot_work_are_refused_at_start(
    tmp_path: Path, spoil: Callable[[ApnsWorld], tuple[ApnsAccount, ...]], said: str
) -> None:
    async with apns_world(tmp_path) as world:
        config = replace(world.config, accounts=spoil(world))
        with pytest.raises(ValueError, match=said):
            apns_sender(config)


class Babble(asyncio.Protocol):
    """Answer in HTTP/1.1, whatever the handshake agreed on, and wait for more."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(b"HTTP/1.1 400 Bad Request\r\nConnection: keep-alive\r\n\r\n")


async def test_a_server_that_speaks_no_http2_is_tried_again_later(tmp_path: Path) -> None:
    async with apns_world(tmp_path) as world:
        tls = world.ca.server_context(alpn=["h2"])
        server = await asyncio.get_running_loop().create_server(Babble, "127.0.0.1", 0, ssl=tls)
        config = replace(world.config, host="127.0.0.1", port=int(server.sockets[0].getsockname()[1]))
        try:
            async with asyncio.timeout(30.0), apns_sender(config) as sender:
                assert set(map(failure, await send_all(sender, 5))) == {"connection-lost"}
        finally:
            server.close()


async def test_both_environments_have_connections_and_failures_of_their_own(tmp_path: Path) -> None:
    async with apns_world(tmp_path) as world, silent_server() as port:
        config = replace(world.config, sandbox_host="127.0.0.1", sandbox_port=port, time_limit=0.5)
        async with apns_sender(config) as sender, asyncio.TaskGroup() as tasks:
            sick = tasks.create_task(sender.send(due_push(1, environment=Environment.SANDBOX)))
            assert isinstance(await sender.send(due_push(2)), Delivered)
            assert not sick.done()
        assert failure(sick.result()) == "timed-out"


async def test_a_push_that_cannot_be_logged_is_not_sent(tmp_path: Path) -> None:
    async with apns_world(tmp_path) as world, apns_sender(world.config, MemoryEgress(full=True)) as sender:
        assert await sender.send(due_push()) == held(Unwritable("No space left on device"))
        assert world.simulator.received == []


async def test_a_push_that_goes_out_twice_is_logged_twice(tmp_path: Path) -> None:
    egress = MemoryEgress()
    async with apns_world(tmp_path) as world, apns_sender(world.config, egress) as sender:
        world.simulator.fail(Close())
        assert isinstance(await sender.send(due_push()), Delivered)
        assert [push.body.decode() for push in world.simulator.received] == egress.bodies
        assert len(egress.bodies) == 2
