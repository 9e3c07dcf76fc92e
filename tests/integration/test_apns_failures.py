"""Every known failure of stock aioapns, and the other failures that a connection to APNs can have."""

import asyncio
import socket
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from aioapns import NotificationRequest, PushType

from eas_watcher.http2.keepalive import KeepaliveTimings
from relay.domain.model import Environment
from relay.domain.outcome import Delivered, Outcome, Refused, RetryLater, TokenGone
from relay.process.clock import now
from relay.push.apns.connection import USER_TIMEOUT, ApnsConnection
from relay.push.apns.exchange import Answer as ApnsAnswer
from relay.push.apns.exchange import MaybeSent, NotSent, Request
from relay.push.apns.pool import ApnsPool
from relay.push.apns.sender import TRIES, ApnsSender, message_id
from relay.push.payload import ApnsMessage, Notice
from relay.sandbox.apns import ApnsSimulator
from relay.sandbox.scripts import (
    Answer,
    ApnsFailure,
    Close,
    Delay,
    Freeze,
    GoAway,
    Mixture,
    Reset,
    Stall,
    Streams,
)
from tests.integration.push_world import APP, apns, failure
from tests.unit.relay.push.pushes import due_push
from tests.waiting import until

HURRIED = KeepaliveTimings(idle=0.2, waiting=0.2, pong=0.2, tick=0.05)
"""The sender detects a silent server in less than a second."""


IN_FLIGHT = 50

Ending = ApnsAnswer | BaseException


async def send_all(sender: ApnsSender, count: int, first: int = 1) -> list[Outcome]:
    return await asyncio.gather(*(sender.send(due_push(number)) for number in range(first, first + count)))


def pool_of(sender: ApnsSender) -> ApnsPool:
    return sender.accounts[0].pool(Environment.PRODUCTION)


def connection_of(sender: ApnsSender) -> ApnsConnection:
    (connection,) = [each for each in pool_of(sender).connections if each.usable]
    return connection


def hurry(sender: ApnsSender, seconds: float) -> None:
    """Limit later pushes to so many seconds; the earlier ones have the time that a slow machine needs."""
    sender.time_limit = seconds


async def hand_over(sender: ApnsSender, number: int) -> ApnsAnswer:
    """Send once, without the repetitions of the sender; raises the error that came instead of an answer."""
    push = due_push(number)
    message = ApnsMessage(Notice.of(push))
    notification = NotificationRequest(
        push.device_token,
        {},
        notification_id=message_id(push),
        priority=message.priority,
        push_type=PushType.ALERT,
        apns_topic=push.app,
    )
    expires_at = int(now().timestamp()) + message.notice.lifetime
    return await pool_of(sender).send(Request(notification, message, expires_at))


def hand_over_all(sender: ApnsSender, count: int, first: int = 1) -> "asyncio.Future[list[Ending]]":
    return asyncio.gather(
        *(hand_over(sender, number) for number in range(first, first + count)), return_exceptions=True
    )


def kinds(endings: list[Ending]) -> Counter[str]:
    return Counter(
        ending.result.status if isinstance(ending, ApnsAnswer) else type(ending).__name__ for ending in endings
    )


def tries(simulator: ApnsSimulator) -> Counter[int]:
    """Return how many pushes came once, twice, ..."""
    ids = Counter(received.headers["apns-id"] for received in simulator.received)
    return Counter(ids.values())


def limited(sender: ApnsSender, limit: int) -> bool:
    return connection_of(sender).stream_limit == limit


def delivered(outcomes: list[Outcome]) -> int:
    return sum(isinstance(outcome, Delivered) for outcome in outcomes)


async def test_one_cancelled_push_does_not_harm_the_others(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        await sender.send(due_push(1))
        simulator.fail(Delay(3.0), 0)
        async with asyncio.TaskGroup() as tasks:
            cancelled = tasks.create_task(sender.send(due_push(2)))
            others = tasks.create_task(send_all(sender, 50, first=3))
            await until(lambda: connection_of(sender).in_flight == 51)
            cancelled.cancel()

        assert cancelled.cancelled()
        assert delivered(others.result()) == 50
        assert tries(simulator) == {1: 51}  # the cancelled stream was reset before it was answered
        assert simulator.accepted == 1


async def test_a_cancelled_push_and_then_a_dropped_connection_leave_no_push_hanging(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        await sender.send(due_push(1))
        simulator.fail(Stall(), 0)
        async with asyncio.timeout(30.0), asyncio.TaskGroup() as tasks:
            cancelled = tasks.create_task(hand_over(sender, 2))
            others = hand_over_all(sender, 50, first=3)
            await simulator.wait(52)
            cancelled.cancel()
            await until(cancelled.done)
            simulator.drop()
            assert kinds(await others) == {"MaybeSent": 50}


async def test_refusals_beyond_one_window_do_not_stall_the_connection(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        simulator.know("00", APP)
        # 65,535 bytes of window hold 2,427 bodies like {"reason": "BadDeviceToken"}
        outcomes = await send_all(sender, 2600)

        assert all(isinstance(outcome, Refused) for outcome in outcomes)
        assert simulator.accepted == 1


async def test_a_graceful_goaway_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        await sender.send(due_push(1))
        simulator.fail(Delay(0.3), 99)
        simulator.fail(GoAway(graceful=True))
        async with asyncio.TaskGroup() as tasks:
            in_flight = tasks.create_task(send_all(sender, 100, first=2))
            await simulator.wait(2)  # the push that was answered with the GOAWAY
            later = tasks.create_task(send_all(sender, 20, first=200))

        assert delivered([*in_flight.result(), *later.result()]) == 120
        assert tries(simulator) == {1: 121}
        assert simulator.accepted == 2
        await until(lambda: len(simulator.connections) == 1)


async def test_pushes_that_a_goaway_leaves_out_are_sent_elsewhere_and_the_others_are_not(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        await sender.send(due_push(1))
        simulator.fail(Delay(0.3), 40)
        simulator.fail(GoAway(graceful=True, final=True))  # 59 more are behind it
        outcomes = await send_all(sender, 100, first=2)

        assert delivered(outcomes) == 100
        assert tries(simulator) == {1: 101}
        assert simulator.accepted == 2


async def test_a_goaway_with_an_error_leaves_doubt_only_about_the_pushes_that_it_names(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        await sender.send(due_push(1))
        simulator.fail(Stall(), 40)
        simulator.fail(GoAway(error_code=2))
        endings = await hand_over_all(sender, 100, first=2)

        assert kinds(endings) == {"MaybeSent": 40, "NotSent": 60}
        assert {str(ending) for ending in endings} == {"server-hangs-up: INTERNAL_ERROR", "server-goes-away"}
        assert isinstance(await sender.send(due_push(200)), Delivered)
        assert simulator.accepted == 2


async def test_a_goaway_on_an_idle_connection_costs_nothing(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        await sender.send(due_push(1))
        simulator.leave_idle()
        await until(lambda: not simulator.connections)

        assert delivered(await send_all(sender, 20, first=2)) == 20
        assert tries(simulator) == {1: 21}
        assert simulator.accepted == 2


@pytest.mark.both_loops
async def test_a_dropped_connection_leaves_doubt_about_the_pushes_in_flight(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        await sender.send(due_push(1))
        simulator.fail(Stall(), 99)
        simulator.fail(Close())
        endings = await hand_over_all(sender, 100, first=2)

        assert kinds(endings) == {"MaybeSent": 100}
        assert {str(ending) for ending in endings} == {"connection-lost"}
        assert len(simulator.received) == 101


async def test_a_push_in_doubt_is_sent_once_more_under_the_same_ids(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        await sender.send(due_push(1))
        simulator.fail(Stall(), 99)
        simulator.fail(Close())

        assert delivered(await send_all(sender, 100, first=2)) == 100
        assert tries(simulator) == {1: 1, 2: 100}
        names = {(each.headers["apns-id"], each.headers["apns-collapse-id"]) for each in simulator.received}
        assert len(names) == 101


async def test_a_push_that_stays_in_doubt_waits_for_the_backoff_of_its_row(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        await sender.send(due_push(1))
        simulator.fail(Close(), 0)

        assert failure(await sender.send(due_push(2))) == "connection-lost"
        assert tries(simulator) == {1: 1, 2: 1}


async def test_a_push_that_waits_for_a_stream_when_the_only_connection_dies_uses_the_next_one(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        await sender.send(due_push(1))
        simulator.fail(Stall(), 99)
        simulator.fail(Close())
        async with asyncio.timeout(60.0):
            outcomes = await send_all(sender, 400, first=2)

        assert delivered(outcomes) == 400
        assert tries(simulator) == {1: 301, 2: 100}
        assert simulator.accepted == 2


async def test_a_burst_beyond_the_window_waits_for_room_and_leaks_no_stream(tmp_path: Path) -> None:
    async with apns(tmp_path, in_flight=1000) as (simulator, sender):
        await sender.send(due_push(1))
        for first in 1000, 3000:
            assert delivered(await send_all(sender, 1000, first=first)) == 1000  # 200 kB of bodies each

        assert tries(simulator) == {1: 2001}
        assert simulator.accepted == 1


async def test_a_refused_stream_was_not_sent_and_is_sent_again_a_few_times(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        simulator.fail(Reset())
        assert kinds(await hand_over_all(sender, 1)) == {"NotSent": 1}

        simulator.fail(Reset(), TRIES - 1)
        assert isinstance(await sender.send(due_push(2)), Delivered)

        simulator.fail(Reset(), TRIES)
        assert await sender.send(due_push(3)) == RetryLater("stream-refused")
        assert simulator.accepted == 1


async def test_a_stream_that_is_reset_otherwise_was_maybe_sent(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        simulator.fail(Reset(error_code=2))
        with pytest.raises(MaybeSent, match="stream-reset: INTERNAL_ERROR"):
            await hand_over(sender, 1)

        simulator.fail(Reset(error_code=2), 2)
        assert await sender.send(due_push(2)) == RetryLater("stream-reset: INTERNAL_ERROR")
        assert tries(simulator) == {1: 1, 2: 1}
        assert simulator.accepted == 1


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (Answer(503, ""), RetryLater("http-503", provider=True)),
        (Answer(503, "ServiceUnavailable", bare=True), RetryLater("ServiceUnavailable", provider=True)),
        (Answer(410, "Unregistered", pieces=2), TokenGone("Unregistered")),
        (Answer(410, "Unregistered", pieces=40), TokenGone("Unregistered")),
    ],
)
async def test_answers_of_any_form_are_read(tmp_path: Path, script: Answer, outcome: Outcome) -> None:
    async with apns(tmp_path) as (simulator, sender):
        simulator.fail(script)
        read = await sender.send(due_push(1))

        assert type(read) is type(outcome)
        assert getattr(read, "reason", "") == getattr(outcome, "reason", "")
        simulator.fail(Answer(200, "", bare=True))
        assert isinstance(await sender.send(due_push(2)), Delivered)
        assert simulator.accepted == 1


async def test_nothing_is_kept_of_pushes_that_ended(tmp_path: Path) -> None:
    async with apns(tmp_path, in_flight=IN_FLIGHT) as (simulator, sender):
        simulator.mix(Mixture([(Answer(410, "Unregistered"), 0.2), (Reset(), 0.1), (Answer(503, ""), 0.1)], 5))
        await send_all(sender, 1000)
        engine = connection_of(sender)._engine

        assert len(engine) == len(engine._answers) == 0
        assert simulator.accepted == 1


async def test_an_idle_connection_is_kept_and_gets_pings(tmp_path: Path) -> None:
    async with apns(tmp_path, timings=KeepaliveTimings(idle=0.05, waiting=5.0, pong=60.0, tick=0.02)) as (
        simulator,
        sender,
    ):
        await sender.send(due_push(1))
        await until(lambda: simulator.pings >= 5, 30.0)
        await sender.send(due_push(2))

        assert simulator.accepted == 1
        assert len({each.headers["authorization"] for each in simulator.received}) == 1


@pytest.mark.both_loops
async def test_the_kernel_watches_the_connection_too(tmp_path: Path) -> None:
    async with apns(tmp_path) as (_, sender):
        await sender.send(due_push(1))
        connected = connection_of(sender)._transport.get_extra_info("socket")  # type: ignore[union-attr]  # it is made

        assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == USER_TIMEOUT


async def test_a_server_that_hangs_up_at_once_is_not_stormed(tmp_path: Path) -> None:
    taken = 0

    def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        taken += 1
        writer.transport.abort()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with apns(tmp_path, host="127.0.0.1", port=server.sockets[0].getsockname()[1]) as (_, sender):
        for first in range(1, 1000, 20):
            assert all(map(failure, await send_all(sender, 20, first)))
    server.close()

    assert 2 <= taken <= 20  # of a thousand pushes


async def test_one_stream_serves_until_the_first_authenticated_answer(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        simulator.fail(Delay(0.1))
        assert delivered(await send_all(sender, 20)) == 20

        assert tries(simulator) == {1: 20}
        assert simulator.accepted == 1  # it cuts connections that open more streams than it allows
        assert limited(sender, 100)  # of the 1000 that Apple allows after that


async def test_a_limit_that_is_lowered_and_raised_is_kept(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        for limit in 1, 7:
            simulator.fail(Streams(limit))
            await sender.send(due_push(1))
            await until(partial(limited, sender, limit))
            assert delivered(await send_all(sender, 50)) == 50
        assert simulator.accepted == 1


async def test_a_limit_of_zero_ends_in_time(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        simulator.fail(Streams(0))
        await sender.send(due_push(1))
        await until(partial(limited, sender, 0))
        hurry(sender, 0.3)

        assert set(map(failure, await send_all(sender, 5))) == {"timed-out"}


async def test_a_refusal_brings_back_the_limit_of_one(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        await sender.send(due_push(1))
        simulator.fail(Answer(403, "InvalidProviderToken"))
        assert isinstance(await sender.send(due_push(2)), Refused)
        await until(lambda: connection_of(sender).stream_limit == 1)

        assert delivered(await send_all(sender, 20, first=3)) == 20
        await until(lambda: connection_of(sender).stream_limit == 100)


async def test_a_connection_that_never_answers_is_found_out_and_replaced(tmp_path: Path) -> None:
    async with apns(tmp_path, timings=HURRIED) as (simulator, sender):
        await sender.send(due_push(1))
        simulator.fail(Freeze())
        async with asyncio.timeout(60.0):
            outcomes = await send_all(sender, 50, first=2)

        assert delivered(outcomes) == 50
        assert tries(simulator) == {1: 50, 2: 1}
        assert simulator.accepted == 2


async def test_an_idle_connection_that_died_in_silence_is_replaced_before_it_is_needed(tmp_path: Path) -> None:
    async with apns(tmp_path, timings=HURRIED) as (simulator, sender):
        await sender.send(due_push(1))
        for connection in simulator.connections:
            connection.freeze()
        await until(lambda: not pool_of(sender).connections, 30.0)

        assert isinstance(await sender.send(due_push(2)), Delivered)
        assert tries(simulator) == {1: 2}
        assert simulator.accepted == 2


async def test_a_server_that_sends_nothing_after_the_handshake_is_given_up(tmp_path: Path) -> None:
    async with apns(tmp_path, timings=HURRIED) as (simulator, sender):
        simulator.deafen()
        async with asyncio.timeout(60.0):
            outcomes = await send_all(sender, 10)
        assert all(isinstance(outcome, RetryLater) for outcome in outcomes)
        assert simulator.received == []

        simulator.heal()
        await until(lambda: not pool_of(sender).connections, 30.0)

        async def delivered_again() -> bool:  # the pool waits for a while before it connects again
            return isinstance(await sender.send(due_push(1)), Delivered)

        await until(delivered_again)


async def test_a_missing_answer_costs_its_push_alone(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        await sender.send(due_push(1))
        simulator.fail(Stall())
        hurry(sender, 2.0)
        outcomes = await send_all(sender, 20, first=2)

        assert list(map(failure, outcomes)).count("timed-out") == 1
        assert delivered(outcomes) == 19
        await until(lambda: connection_of(sender).in_flight == 0)
        assert isinstance(await sender.send(due_push(100)), Delivered)
        assert simulator.accepted == 1  # a PING was answered, so the connection is alive


async def test_a_push_that_finds_no_room_in_time_is_tried_again_later(tmp_path: Path) -> None:
    async with apns(tmp_path, in_flight=1) as (simulator, sender):
        await sender.send(due_push(100))
        simulator.fail(Stall(), 0)
        hurry(sender, 0.3)
        assert list(map(failure, await send_all(sender, 3))) == ["timed-out"] * 3

        simulator.heal()
        await until(lambda: connection_of(sender).in_flight == 0)
        assert isinstance(await sender.send(due_push(101)), Delivered)  # the only stream is free again


async def test_a_handshake_that_fails_is_named_and_passes(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        simulator.fail_handshakes()
        reason = failure(await sender.send(due_push(1)))
        assert reason.startswith(("tls-failed", "connection-lost"))
        [state] = sender.states
        assert (state.table, state.apps, state.in_flight, state.reason) == ("apns", (APP,), 0, reason)
        assert state.remedy

        simulator.heal()
        assert isinstance(await sender.send(due_push(2)), Delivered)
        assert [(state.reason, state.remedy) for state in sender.states] == [("", "")]


async def test_whatever_the_server_does_every_push_ends_in_time_and_is_doubted_once(tmp_path: Path) -> None:
    shares: list[tuple[ApnsFailure, float]] = [
        (Answer(500, "InternalServerError"), 0.05),
        (Answer(429, "TooManyRequests", retry_after="1"), 0.05),
        (Answer(410, "Unregistered", timestamp=1_700_000_000_000, pieces=3), 0.05),
        (Delay(0.05), 0.05),
        (Stall(), 0.005),
        (Reset(), 0.05),
        (Reset(error_code=2), 0.05),
        (Close(), 0.003),
        (GoAway(graceful=True), 0.01),
        (GoAway(graceful=True, final=True), 0.01),
        (GoAway(error_code=11), 0.003),
        (Freeze(), 0.003),
        (Streams(20), 0.01),
    ]

    async with apns(tmp_path, timings=HURRIED, time_limit=3.0) as (simulator, sender):
        simulator.mix(Mixture(shares, 4))
        began = time.monotonic()
        outcomes = await send_all(sender, 400)

        assert time.monotonic() - began < 60.0
        assert len(outcomes) == 400
        assert delivered(outcomes) > 150
        assert max(tries(simulator)) <= TRIES
        simulator.heal()
        await until(lambda: all(connection.in_flight == 0 for connection in pool_of(sender).connections), 30.0)


@pytest.mark.both_loops
async def test_closing_waits_a_little_for_pushes_in_flight_and_accepts_no_new_ones(tmp_path: Path) -> None:
    async with apns(tmp_path) as (simulator, sender):
        await sender.send(due_push(1))
        simulator.fail(Delay(1.0), 20)
        async with asyncio.TaskGroup() as tasks:
            in_flight = tasks.create_task(send_all(sender, 20, first=2))
            await until(lambda: connection_of(sender).in_flight == 20)
            await sender.close()
        assert delivered(in_flight.result()) == 20
        with pytest.raises(NotSent, match="relay-stops"):
            await hand_over(sender, 100)
        assert await sender.send(due_push(101)) == RetryLater("relay-stops")
