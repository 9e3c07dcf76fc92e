import asyncio
import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from aiohttp import web

from eas_watcher.proxy.proxy import Proxy
from relay.domain.model import Mark, Mode, Platform
from relay.domain.outcome import Delivered, Outcome, Reach, Refused, RetryLater, TokenGone
from relay.http.listeners import open_listener
from relay.network.route import Route
from relay.process.clock import now
from relay.push.breaker import SERVICE
from relay.push.egress.leaving import Unwritable, held
from relay.push.webpush.answers import QUOTA_PAUSE
from relay.push.webpush.sender import WebPushSender
from relay.push.webpush.services import BUSY_WAIT, FEW
from relay.push.webpush.vapid import make_key, public_key
from relay.sandbox.certificates import ThrowAwayCa
from relay.sandbox.scripts import Answer, Close, Stall
from relay.sandbox.webpush import open_webpush_simulator
from tests.fakes.proxy import ConnectProxy, connect_proxy
from tests.integration.push_world import silent_server
from tests.integration.webpush_world import KEY, endpoint, to, world, write_key
from tests.ports import free_port
from tests.unit.relay.push.pushes import due_push
from tests.waiting import until


@pytest.mark.both_loops
async def test_a_push_arrives_encrypted_and_the_phone_reads_the_template(tmp_path: Path) -> None:
    async with world(tmp_path) as around:
        push = around.phone()

        assert await around.sender.send(push) == Delivered()

        received = around.simulator.received[0]
        read = {"v": 1, "registration": "registration-1", "kind": "new-items", "class": "email", "count": 2}
        assert json.loads(around.simulator.open(received)) == read
        assert [json.loads(body) for body in around.egress.bodies] == [read]
        assert received.device_token == endpoint(push)
        told = {name: received.headers[name] for name in ("ttl", "urgency", "content-encoding", "user-agent")}
        assert told == {
            "ttl": "259200",
            "urgency": "high",
            "content-encoding": "aes128gcm",
            "user-agent": "push-relay",
        }
        assert len(received.headers["topic"]) == 32
        assert around.simulator.complaints == []
        sent = json.dumps(dict(received.headers)).encode() + received.body
        assert not [word for word in (b"registration-1", b"email", b"new-items") if word in sent]


async def test_the_length_tells_nothing_and_the_topic_tells_one_mark_of_one_registration(tmp_path: Path) -> None:
    async with world(tmp_path) as around:
        phone = around.phone()
        pushes = [
            phone,
            replace(phone, count=9999),
            replace(phone, mark=Mark.ATTENTION),
            replace(phone, mark=Mark.CALENDAR, mode=Mode.BACKGROUND, certain=False),
        ]

        for push in pushes:
            assert await around.sender.send(push) == Delivered()

        received = around.simulator.received
        assert len({len(push.body) for push in received}) == 1
        assert [push.headers["urgency"] for push in received] == ["high", "high", "high", "normal"]
        topics = [push.headers["topic"] for push in received]
        assert topics[0] == topics[1]
        assert len(set(topics)) == 3
        assert json.loads(around.simulator.messages[3])["certain"] is False


async def test_many_pushes_at_once_all_arrive_with_one_proof_of_who_we_are(tmp_path: Path) -> None:
    async with world(tmp_path) as around:
        phones = [around.phone(number=number) for number in range(50)]

        outcomes = await asyncio.gather(*(around.sender.send(phone) for phone in phones))

        assert outcomes == [Delivered()] * 50
        assert {push.device_token for push in around.simulator.received} == set(map(endpoint, phones))
        assert len({push.headers["authorization"] for push in around.simulator.received}) == 1
        assert around.simulator.complaints == []


async def test_only_410_kills_a_subscription_and_404_alone_does_not(tmp_path: Path) -> None:
    async with world(tmp_path) as around:
        gone, unknown = around.phone(), around.phone(around.other)
        around.simulator.gone(endpoint(gone))
        around.other.forget()

        assert await around.sender.send(gone) == TokenGone("http-410")
        outcomes = [await around.sender.send(unknown) for _ in range(5)]

        assert {type(outcome) for outcome in outcomes} == {Refused}
        assert {outcome.reason for outcome in outcomes if isinstance(outcome, Refused)} == {"http-404"}


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (Answer(429, "slow down", "17"), RetryLater("http-429", 17.0)),
        (Answer(503, "", "4"), RetryLater("http-503", 4.0)),
        (Answer(500, ""), RetryLater("http-500")),
    ],
)
async def test_what_passes_is_tried_later(tmp_path: Path, failure: Answer, outcome: Outcome) -> None:
    async with world(tmp_path) as around:
        phone = around.phone()
        around.simulator.fail(failure)

        assert await around.sender.send(phone) == outcome
        assert await around.sender.send(phone) == Delivered()


async def test_a_key_refused_for_one_subscription_is_that_ones_trouble(tmp_path: Path) -> None:
    async with world(tmp_path) as around:
        theirs = to(around.simulator.subscribe(public_key(make_key())))
        assert await around.sender.send(around.phone()) == Delivered()

        outcomes = [await around.sender.send(theirs) for _ in range(5)]

        assert all(isinstance(outcome, Refused) and not outcome.channel for outcome in outcomes)
        assert await around.sender.send(around.phone()) == Delivered()


async def test_a_key_refused_by_all_rests_the_channel_and_a_mended_key_heals_it(tmp_path: Path) -> None:
    async with world(tmp_path, key=make_key()) as around:
        phones = [around.phone(number=number) for number in range(FEW)]

        outcomes = [await around.sender.send(phone) for phone in phones]

        assert [outcome.channel for outcome in outcomes if isinstance(outcome, Refused)] == [False, False, True]
        write_key(tmp_path, KEY)
        await around.sender.key_file.look()
        assert [await around.sender.send(phone) for phone in phones] == [Delivered()] * FEW


async def test_a_host_that_is_not_listed_is_never_asked(tmp_path: Path) -> None:
    asked = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=201)

    async with world(tmp_path) as around:
        inside = web.Application()
        inside.router.add_post("/{tail:.*}", answer)
        async with open_listener(inside, "127.0.0.1", 0, around.ca.server_context()) as port:
            subscription = around.simulator.subscribe()
            subscription["endpoint"] = f"https://127.0.0.1:{port}/admin"

            outcome = await around.sender.send(to(subscription))

        assert isinstance(outcome, Refused)
        assert outcome.reason == "push-service-not-listed"
        assert "webpush.hosts" in outcome.remedy
        assert asked == 0
        assert around.egress.bodies == []


async def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    port = free_port()
    async with world(tmp_path, f"127.0.0.1:{port}") as around:
        app = web.Application()
        app.router.add_post("/{tail:.*}", answer)
        async with open_listener(app, "127.0.0.1", port, around.ca.server_context()):
            subscription = around.simulator.subscribe()
            subscription["endpoint"] = f"https://127.0.0.1:{port}/a%2Fb;c"

            outcome = await around.sender.send(to(subscription))

        assert isinstance(outcome, Refused)
        assert outcome.reason == "http-307"
        assert asked == ["/a/b;c"]


async def test_an_endless_answer_is_not_read_to_its_end(tmp_path: Path) -> None:
    sent = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(status=201)
        await response.prepare(request)
        while True:
            await response.write(bytes(65536))
            sent += 65536

    port = free_port()
    async with world(tmp_path, f"127.0.0.1:{port}") as around:
        app = web.Application()
        app.router.add_post("/{tail:.*}", answer)
        async with open_listener(app, "127.0.0.1", port, around.ca.server_context()):
            subscription = around.simulator.subscribe()
            subscription["endpoint"] = f"https://127.0.0.1:{port}/endless"

            assert await around.sender.send(to(subscription)) == Delivered()

        assert sent < 64 * 1024 * 1024


async def test_a_service_inside_is_reached_without_the_proxy(tmp_path: Path) -> None:
    way = Route(Proxy("127.0.0.1", free_port()))
    async with world(tmp_path, route=way) as around:
        config = replace(around.config, direct=frozenset({around.simulator.service}))
        async with WebPushSender(config, now, Random(1), around.egress) as sender:
            inside = await sender.send(around.phone())
            outside = await sender.send(around.phone(around.other))

        assert inside == Delivered()
        assert isinstance(outside, RetryLater)
        assert outside.reason.startswith("proxy")
        assert around.other.received == []


async def test_a_proxy_that_refuses_us_stops_what_goes_through_it_and_nothing_else(tmp_path: Path) -> None:
    async with connect_proxy(ConnectProxy(user="relay:right")) as proxy, world(tmp_path) as around:
        way = Route(Proxy("127.0.0.1", proxy.port, user="relay", password="wrong"))
        config = replace(around.config, route=way, direct=frozenset({around.simulator.service}))
        async with WebPushSender(config, now, Random(1), around.egress) as sender:
            first = await sender.send(around.phone(around.other))
            second = await sender.send(around.phone(around.other))
            inside = await sender.send(around.phone())
            away = sender.services.away

        assert isinstance(first, RetryLater)
        assert first.reason == "proxy-authentication-required"
        assert isinstance(second, RetryLater)
        assert second.reason == "push-service-rests: proxy-authentication-required"
        assert len(proxy.targets) == 1, "a refused password is not tried again and again"
        assert inside == Delivered()
        assert [each.service for each in away] == [around.other.service]
        assert "network.proxy_password_file" in away[0].remedy


async def test_a_proxy_that_refuses_us_is_a_fault_of_the_channel_where_all_goes_through_it(tmp_path: Path) -> None:
    async with connect_proxy(ConnectProxy(user="relay:right")) as proxy:
        async with world(tmp_path, route=Route(Proxy("127.0.0.1", proxy.port))) as around:
            outcome = await around.sender.send(around.phone())

        assert isinstance(outcome, Refused)
        assert (outcome.reason, outcome.channel) == ("proxy-authentication-required", True)


async def test_a_page_in_the_place_of_the_service_is_no_delivery(tmp_path: Path) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="<!DOCTYPE html><title>Please sign in</title>", content_type="text/html")

    port = free_port()
    async with world(tmp_path, f"127.0.0.1:{port}") as around:
        app = web.Application()
        app.router.add_post("/{tail:.*}", answer)
        async with open_listener(app, "127.0.0.1", port, around.ca.server_context()):
            for number in range(FEW):
                subscription = around.simulator.subscribe()
                subscription["endpoint"] = f"https://127.0.0.1:{port}/{number}"

                outcome = await around.sender.send(to(subscription))

                assert isinstance(outcome, RetryLater)
                assert outcome.reason == "not-a-push-service"

        (away,) = around.sender.services.away
        assert "proxies" in away.remedy


async def test_a_service_that_is_away_rests_and_the_other_goes_on(tmp_path: Path) -> None:
    port = free_port()
    async with world(tmp_path, f"127.0.0.1:{port}") as around:
        away = []
        for number in range(FEW + 1):
            subscription = around.simulator.subscribe()
            subscription["endpoint"] = f"https://127.0.0.1:{port}/{number}"
            away.append(to(subscription, number))

        outcomes = [await around.sender.send(push) for push in away]

        assert all(isinstance(outcome, RetryLater) and not outcome.provider for outcome in outcomes)
        last = outcomes[-1]
        assert isinstance(last, RetryLater)
        assert last.reason.startswith("push-service-rests: ")
        assert last.reach is Reach.HERE
        assert last.after is not None
        assert [each.service for each in around.sender.services.away] == [f"127.0.0.1:{port}"]
        assert len(around.egress.bodies) == FEW, "a push that waits was not sent"
        assert await around.sender.send(around.phone()) == Delivered()


async def test_topics_that_nobody_listens_to_delay_no_living_phone(tmp_path: Path) -> None:
    async with world(tmp_path) as around:
        living, dead = around.phone(), [around.phone(number=number) for number in range(10, 10 + FEW)]
        for push in dead:
            around.simulator.gone(endpoint(push), 507)
        assert [await around.sender.send(push) for push in dead[1:]] == [RetryLater("http-507")] * (FEW - 1)
        assert await around.sender.send(living) == Delivered()

        for _ in range(10):
            outcomes = [await around.sender.send(push) for push in dead]
            assert await around.sender.send(living) == Delivered()

        assert around.sender.services.away == []
        assert {type(outcome) for outcome in outcomes} == {Refused}
        assert all("ntfy" in outcome.remedy for outcome in outcomes if isinstance(outcome, Refused))
        around.simulator.gone(endpoint(dead[0]), 0)
        assert await around.sender.send(dead[0]) == Delivered()


async def test_phones_over_their_quota_rest_their_service_no_longer_than_it_asks(tmp_path: Path) -> None:
    async with world(tmp_path) as around:
        around.simulator.fail(Answer(429, "limit reached"), FEW)
        phones = [around.phone(number=number) for number in range(10, 10 + FEW)]
        assert [await around.sender.send(push) for push in phones] == [RetryLater("http-429", QUOTA_PAUSE)] * FEW

        held = await around.sender.send(around.phone())

        assert isinstance(held, RetryLater)
        assert held.after is not None
        assert held.after <= SERVICE.first


async def test_a_service_that_never_answers_holds_half_of_the_places(tmp_path: Path) -> None:
    async with world(tmp_path, in_flight=8, time_limit=60.0) as around:
        around.simulator.fail(Stall(), 0)
        phones = [around.phone(number=number) for number in range(10)]
        stalled = [asyncio.ensure_future(around.sender.send(phone)) for phone in phones]
        await until(lambda: len(around.simulator.received) == 4, 30.0)
        await until(lambda: sum(task.done() for task in stalled) == 6, 30.0)

        busy = RetryLater("push-service-busy", BUSY_WAIT, reach=Reach.HERE)
        assert {task.result() for task in stalled if task.done()} == {busy}
        assert await around.sender.send(around.phone(around.other)) == Delivered()

        for task in stalled:
            task.cancel()
        await asyncio.gather(*stalled, return_exceptions=True)
        around.simulator.heal()
        assert await around.sender.send(around.phone()) == Delivered(), "a cancelled push gives its place back"


async def test_a_push_ends_within_its_time(tmp_path: Path) -> None:
    async with silent_server() as port, world(tmp_path, f"127.0.0.1:{port}", time_limit=0.2) as around:
        subscription = around.simulator.subscribe()
        subscription["endpoint"] = f"https://127.0.0.1:{port}/x"

        outcome = await around.sender.send(to(subscription))

        assert isinstance(outcome, RetryLater)
        assert outcome.reason == "timed-out"


async def test_a_cut_connection_is_tried_again(tmp_path: Path) -> None:
    async with world(tmp_path) as around:
        phone = around.phone()
        around.simulator.fail(Close())

        assert isinstance(await around.sender.send(phone), RetryLater)
        assert await around.sender.send(phone) == Delivered()


async def test_a_certificate_of_somebody_else_is_not_trusted(tmp_path: Path) -> None:
    async with world(tmp_path) as around, open_webpush_simulator(tls=ThrowAwayCa().server_context()) as stranger:
        config = replace(around.config, services=frozenset({stranger.service}))
        async with WebPushSender(config, now, Random(1), around.egress) as sender:
            outcome = await sender.send(to(stranger.subscribe()))

        assert isinstance(outcome, Refused)
        assert outcome.reason == "certificate-not-trusted"
        assert "webpush.ca_file" in outcome.remedy
        assert stranger.received == []


async def test_a_service_with_a_bad_certificate_rests_and_the_other_goes_on(tmp_path: Path) -> None:
    async with (
        open_webpush_simulator(tls=ThrowAwayCa().server_context()) as stranger,
        world(tmp_path, stranger.service) as around,
    ):
        outcomes = [await around.sender.send(to(stranger.subscribe(), number)) for number in range(FEW)]

        assert {type(outcome) for outcome in outcomes} == {RetryLater}
        (away,) = around.sender.services.away
        assert (away.service, away.reason) == (stranger.service, "certificate-not-trusted")
        assert "webpush.ca_file" in away.remedy
        assert await around.sender.send(around.phone()) == Delivered()


async def test_what_cannot_be_logged_is_not_sent(tmp_path: Path) -> None:
    async with world(tmp_path) as around:
        around.egress.full = True

        outcome = await around.sender.send(around.phone())

        assert outcome == held(Unwritable("No space left on device"))
        assert around.simulator.received == []


@pytest.mark.parametrize("token", ["", "c0ffee", '{"endpoint": "http://127.0.0.1/", "p256dh": "", "auth": ""}'])
async def test_a_row_that_holds_no_subscription_is_kept(tmp_path: Path, token: str) -> None:
    async with world(tmp_path) as around:
        outcome = await around.sender.send(due_push(platform=Platform.WEBPUSH, device_token=token))

        assert isinstance(outcome, Refused)
        assert (outcome.reason, outcome.channel) == ("subscription-invalid", False)
