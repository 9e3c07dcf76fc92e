"""The control routes of the push simulators, over HTTP as another process uses them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from relay.domain.model import Environment
from relay.domain.outcome import Delivered, Refused, RetryLater, TokenGone
from relay.push.apns.sender import ApnsSender
from relay.push.fcm.sender import FcmSender
from relay.sandbox.certificates import ThrowAwayCa
from relay.sandbox.push_control import push_control_app
from relay.sandbox.webpush import open_webpush_simulator
from tests.integration.push_world import apns, fcm
from tests.unit.relay.push.pushes import due_push
from tests.waiting import until

Driven = tuple["TestClient[aiohttp.web.Request, aiohttp.web.Application]", ApnsSender, FcmSender]


@pytest.fixture
async def driven(tmp_path: Path) -> AsyncIterator[Driven]:
    async with AsyncExitStack() as stack:
        apns_simulator, apns_sender = await stack.enter_async_context(apns(tmp_path))
        fcm_simulator, fcm_sender = await stack.enter_async_context(fcm(tmp_path))
        webpush = await stack.enter_async_context(open_webpush_simulator(tls=ThrowAwayCa().server_context()))
        server = TestServer(push_control_app(apns_simulator, fcm_simulator, webpush))
        client = await stack.enter_async_context(TestClient(server))
        yield client, apns_sender, fcm_sender


async def test_what_was_received_can_be_waited_for_and_forgotten(driven: Driven) -> None:
    client, apns_sender, fcm_sender = driven
    await apns_sender.send(due_push())
    await fcm_sender.send(due_push())

    for path in "/apns/received", "/fcm/received":
        answer = await (await client.get(path, params={"at_least": "1", "within": "5"})).json()
        (received,) = answer["received"]
        assert received["device_token"] == due_push().device_token
        assert received["status"] == 200
        assert '"new-items"' in received["body"]
        assert (await client.delete(path)).status == 204
        assert await (await client.get(path, params={"at_least": "1", "within": "0.01"})).json() == {"received": []}


async def test_tokens_can_be_declared_gone(driven: Driven) -> None:
    client, apns_sender, fcm_sender = driven
    token = due_push().device_token
    since = datetime(2026, 11, 23, 8, tzinfo=UTC)

    assert (await client.post("/apns/gone", json={"token": token, "since": since.isoformat()})).status == 204
    assert (await client.post("/fcm/gone", json={"token": token})).status == 204

    assert await apns_sender.send(due_push()) == TokenGone("Unregistered", since)
    assert await fcm_sender.send(due_push()) == TokenGone("UNREGISTERED")


@pytest.mark.parametrize(("prefix", "reason"), [("/apns", "ServiceUnavailable"), ("/fcm", "UNAVAILABLE")])
async def test_failures_can_be_told_and_healed(driven: Driven, prefix: str, reason: str) -> None:
    client, apns_sender, fcm_sender = driven
    sender = apns_sender if prefix == "/apns" else fcm_sender
    failure = {"kind": "answer", "status": 503, "reason": reason, "times": 0}

    assert (await client.post(f"{prefix}/fail", json=failure)).status == 204
    outcome = await sender.send(due_push())
    assert isinstance(outcome, RetryLater)
    assert outcome.reason == reason
    assert (await client.post(f"{prefix}/heal")).status == 204
    assert isinstance(await sender.send(due_push()), Delivered)


async def test_connections_can_be_cut(driven: Driven) -> None:
    client, apns_sender, _ = driven
    await apns_sender.send(due_push(1))

    assert (await client.post("/apns/drop")).status == 204

    assert isinstance(await apns_sender.send(due_push(2)), Delivered | RetryLater)
    assert isinstance(await apns_sender.send(due_push(3)), Delivered)


@pytest.mark.parametrize("prefix", ["/apns", "/fcm"])
async def test_requests_can_fail_at_random(driven: Driven, prefix: str) -> None:
    client, apns_sender, fcm_sender = driven
    sender = apns_sender if prefix == "/apns" else fcm_sender
    failure = {"kind": "answer", "status": 503, "reason": "x", "share": 0.5}

    assert (await client.post(f"{prefix}/mix", json={"seed": 1, "failures": [failure]})).status == 204
    outcomes = [type(await sender.send(due_push(number))) for number in range(1, 41)]

    assert set(outcomes) == {Delivered, RetryLater}
    assert (await client.post(f"{prefix}/heal")).status == 204
    assert isinstance(await sender.send(due_push()), Delivered)


async def test_what_only_apns_has_can_be_driven(driven: Driven) -> None:
    client, sender, _ = driven
    for failure in (
        {"kind": "streams", "limit": 5},
        {"kind": "goaway", "graceful": True, "final": True},
        {"kind": "reset", "error_code": 7},
        {"kind": "answer", "status": 200, "reason": "", "bare": True},
    ):
        assert (await client.post("/apns/fail", json=failure)).status == 204
        assert isinstance(await sender.send(due_push(1)), Delivered)

    gone = {"kind": "answer", "status": 410, "reason": "Unregistered", "timestamp": 1000, "pieces": 2}
    assert (await client.post("/apns/fail", json=gone)).status == 204
    assert await sender.send(due_push(1)) == TokenGone("Unregistered", datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))

    assert (await client.post("/apns/fail-handshakes")).status == 204
    assert (await client.post("/apns/leave-idle")).status == 204
    await until(lambda: not sender.accounts[0].pool(Environment.PRODUCTION).connections)
    assert isinstance(await sender.send(due_push(2)), RetryLater)
    assert (await client.post("/apns/heal")).status == 204
    assert (await client.post("/apns/deafen")).status == 204
    assert (await client.post("/apns/heal")).status == 204
    assert isinstance(await sender.send(due_push(3)), Delivered)


async def test_what_only_fcm_has_can_be_driven(driven: Driven) -> None:
    client, _, sender = driven
    await sender.send(due_push(1))

    assert (await client.post("/fcm/forget-tokens")).status == 204
    assert isinstance(await sender.send(due_push(2)), Delivered)
    assert (await client.post("/fcm/leave-idle")).status == 204
    assert (await client.post("/fcm/fail-handshakes")).status == 204
    await until_closed(sender)
    assert isinstance(await sender.send(due_push(3)), RetryLater)
    assert (await client.post("/fcm/heal")).status == 204
    assert (await (await client.post("/fcm/rotate")).json())["type"] == "service_account"
    outcome = await sender.send(due_push(4))
    assert isinstance(outcome, Refused)
    assert outcome.reason == "token-refused: invalid_grant"


async def test_the_token_endpoint_can_fail(driven: Driven) -> None:
    client, _, sender = driven

    failure = {"kind": "answer", "status": 400, "reason": "invalid_scope"}
    assert (await client.post("/fcm/fail-tokens", json=failure)).status == 204

    outcome = await sender.send(due_push())
    assert isinstance(outcome, Refused)
    assert outcome.reason == "token-refused: invalid_scope"


async def until_closed(sender: FcmSender) -> None:
    """Wait until the sender has seen that its connections are closed."""
    pools = sender._http._pools
    await until(lambda: not any(kept.is_connected() for pool in pools.values() for kept, _ in pool.idle))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/apns/fail", "no JSON"),
        ("POST", "/apns/fail", "[]"),
        ("POST", "/apns/fail", "{}"),
        ("POST", "/apns/gone", "{}"),
        ("POST", "/apns/gone", '{"token": "00", "since": "yesterday"}'),
        ("POST", "/fcm/gone", "{}"),
        ("POST", "/fcm/mix", '{"failures": [{"kind": "stall"}]}'),
        ("POST", "/fcm/fail-tokens", "{}"),
        ("GET", "/fcm/received?at_least=x", ""),
    ],
)
async def test_nonsense_is_answered_with_a_problem(driven: Driven, method: str, path: str, body: str) -> None:
    client, *_ = driven

    answer = await client.request(method, path, data=body)

    assert answer.status == 400
    assert answer.content_type == "application/problem+json"
