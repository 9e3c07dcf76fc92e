"""The control routes of the simulated push service, over HTTP as another process uses them."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from relay.domain.outcome import Delivered, RetryLater, TokenGone
from relay.push.webpush.vapid import public_key
from relay.sandbox.push_control import push_control_app
from tests.integration.push_world import apns, fcm
from tests.integration.webpush_world import KEY, WebPushWorld, to, world

Driven = tuple["TestClient[aiohttp.web.Request, aiohttp.web.Application]", WebPushWorld]


@pytest.fixture
async def driven(tmp_path: Path) -> AsyncIterator[Driven]:
    async with AsyncExitStack() as stack:
        apple, _ = await stack.enter_async_context(apns(tmp_path))
        google, _ = await stack.enter_async_context(fcm(tmp_path))
        around = await stack.enter_async_context(world(tmp_path))
        server = TestServer(push_control_app(apple, google, around.simulator))
        yield await stack.enter_async_context(TestClient(server)), around


async def test_a_phone_subscribes_and_tells_what_it_reads(driven: Driven) -> None:
    client, around = driven

    answer = await client.post("/webpush/subscriptions", json={"vapid_public_key": public_key(KEY)})
    assert answer.status == 201
    subscription = await answer.json()
    assert await around.sender.send(to(subscription)) == Delivered()

    (received,) = (await (await client.get("/webpush/received", params={"at_least": "1"})).json())["received"]
    assert json.loads(received["message"])["kind"] == "new-items"
    assert received["device_token"] == subscription["endpoint"]
    assert "new-items" not in received["body"]


async def test_a_subscription_needs_no_key_and_no_body(driven: Driven) -> None:
    client, around = driven

    subscription = await (await client.post("/webpush/subscriptions")).json()

    assert await around.sender.send(to(subscription)) == Delivered()


async def test_a_phone_unsubscribes(driven: Driven) -> None:
    client, around = driven
    subscription = await (await client.post("/webpush/subscriptions")).json()

    assert (await client.post("/webpush/gone", json={"endpoint": subscription["endpoint"]})).status == 204

    assert await around.sender.send(to(subscription)) == TokenGone("http-410")
    assert (await client.post("/webpush/gone", json={"endpoint": "https://push.example.com/x"})).status == 400


async def test_failures_can_be_told_and_healed(driven: Driven) -> None:
    client, around = driven
    phone = around.phone()

    failure = {"kind": "answer", "status": 503, "reason": "", "retry_after": "20", "times": 0}
    assert (await client.post("/webpush/fail", json=failure)).status == 204
    assert await around.sender.send(phone) == RetryLater("http-503", 20.0)
    assert (await client.post("/webpush/heal")).status == 204

    assert await around.sender.send(phone) == Delivered()


async def test_a_push_that_nobody_can_read_has_no_message(driven: Driven) -> None:
    client, around = driven
    phone = around.phone()
    around.simulator.forget()

    await around.sender.send(phone)

    (received,) = (await (await client.get("/webpush/received")).json())["received"]
    assert (received["status"], received["message"]) == (404, None)


async def test_pushes_fail_at_random_to_their_share_until_they_are_healed(driven: Driven) -> None:
    client, around = driven
    mixture = {"seed": 7, "failures": [{"kind": "answer", "status": 500, "reason": "", "share": 1.0}]}

    assert (await client.post("/webpush/mix", json=mixture)).status == 204
    assert await around.sender.send(around.phone()) == RetryLater("http-500")
    assert (await client.post("/webpush/heal")).status == 204

    assert await around.sender.send(around.phone()) == Delivered()


async def test_connections_are_cut_and_made_anew(driven: Driven) -> None:
    client, around = driven
    assert await around.sender.send(around.phone()) == Delivered()

    assert (await client.post("/webpush/drop")).status == 204

    # The connection in the pool may be found dead only when it is used.
    outcomes = [await around.sender.send(around.phone()) for _ in range(2)]
    assert outcomes[-1] == Delivered()


async def test_what_a_phone_cannot_read_is_complained_of_though_its_service_took_it(driven: Driven) -> None:
    _, around = driven
    subscription, other = around.simulator.subscribe(), around.simulator.subscribe()
    keys, strange = subscription["keys"], other["keys"]
    assert isinstance(keys, dict)
    assert isinstance(strange, dict)
    subscription["keys"] = keys | {"auth": strange["auth"]}

    assert await around.sender.send(to(subscription)) == Delivered()

    assert around.simulator.complaints == ["a record does not open"]
