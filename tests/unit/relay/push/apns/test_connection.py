import asyncio
from collections import deque
from collections.abc import Sequence

import pytest
from aioapns import NotificationRequest, PushType

from eas_watcher.http2.client import AT_ONCE
from eas_watcher.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    LAST_STREAM,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    Frame,
    frame,
    reset_frame,
    settings_frame,
    window_frame,
)
from eas_watcher.http2.header_block import header_block
from eas_watcher.http2.keepalive import KEEPALIVE_TIMINGS
from relay.domain.model import Mark, Mode, RegistrationId
from relay.push.apns.connection import GIVEN_UP, ApnsConnection, Pending
from relay.push.apns.exchange import Answer, Request
from relay.push.egress.leaving import Unwritable
from relay.push.payload import ApnsMessage, Notice
from tests.unit.eas_watcher.http2.framing import frames_of

OK = header_block([(b":status", b"200"), (b"apns-id", b"any")])


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.aborted = False
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class World:
    """A connection whose server is the test."""

    def __init__(self, in_flight: int = 100, settings: Sequence[tuple[int, int]] | None = ((3, 1000),)) -> None:
        """Let the server begin with these settings; None: it has not begun."""
        self.line: deque[Pending] = deque()
        self.wire = Wire()
        self.recorded: list[int] = []
        self.full = False
        self.tokens = iter(["bearer 1", "bearer 2", "bearer 3", "bearer 4"])
        self.left: list[ApnsConnection] = []
        self.lost: list[ApnsConnection] = []
        self.connection = ApnsConnection(
            "api.push.apple.com",
            lambda: next(self.tokens),
            in_flight,
            KEEPALIVE_TIMINGS,
            self.line,
            self.record,
            self.left.append,
            self.lost.append,
        )
        self.connection.connection_made(self.wire)
        if settings is not None:
            self.hears(settings_frame(settings))
            self.wire.writes.clear()

    def record(self, requests: Sequence[Request]) -> None:
        if self.full:
            raise Unwritable("the disk is full")
        self.recorded.append(len(requests))

    def ask(self, count: int = 1, size: int = 0) -> list[Pending]:
        """Put requests into the line; `size` is that of their bodies, 0: as they are."""
        asked = [Pending(request(size), asyncio.get_running_loop().create_future()) for _ in range(count)]
        self.line.extend(asked)
        self.connection.serve()
        return asked

    def hears(self, *data: bytes) -> None:
        self.connection.data_received(b"".join(data))

    def sent(self) -> list[Frame]:
        written = b"".join(self.wire.writes)
        self.wire.writes.clear()
        return frames_of(written)

    def opened(self) -> list[int]:
        """Return the streams that were opened since the last call."""
        return [stream_id for kind, _, stream_id, _ in self.sent() if kind == HEADERS]


def request(size: int = 0) -> Request:
    notice = Notice(Mark.EMAIL, 1, certain=True, registration_id=RegistrationId("r"), mode=Mode.ALERT, locale="en")
    notification = NotificationRequest(
        "00ff", {}, notification_id="id", priority=10, push_type=PushType.ALERT, apns_topic="com.example.mail"
    )
    made = Request(notification, ApnsMessage(notice), 1)
    made.body = bytes(size) or made.body
    return made


def answer(stream_id: int, block: bytes = OK, body: bytes = b"") -> bytes:
    if not body:
        return frame(HEADERS, END_HEADERS | END_STREAM, stream_id, block)
    return frame(HEADERS, END_HEADERS, stream_id, block) + frame(DATA, END_STREAM, stream_id, body)


def goaway(last: int, code: int) -> bytes:
    return frame(GOAWAY, 0, 0, last.to_bytes(4) + code.to_bytes(4))


def statuses(pendings: Sequence[Pending]) -> list[str]:
    """Return the statuses of the answers, or the errors that came instead; "": neither came yet."""
    return [status(pending.future) for pending in pendings]


def status(future: "asyncio.Future[Answer]") -> str:
    if not future.done():
        return ""
    error = future.exception()
    return future.result().result.status if error is None else f"{type(error).__name__} {error}"


async def test_requests_that_come_together_leave_in_one_piece_after_they_were_recorded() -> None:
    world = World()
    world.ask(0)
    asked = [Pending(request(), asyncio.get_running_loop().create_future()) for _ in range(50)]
    world.line.extend(asked)
    world.connection.serve()

    assert (world.recorded, len(world.wire.writes)) == ([50], 1)
    assert world.opened() == list(range(1, 101, 2))
    assert {pending.authorization for pending in asked} == {"bearer 1"}


async def test_what_cannot_be_recorded_does_not_leave() -> None:
    world = World(settings=[(3, 2)])
    world.full = True
    asked = world.ask(3)

    assert statuses(asked) == ["Unwritable the disk is full"] * 3
    assert (world.wire.writes, world.connection.in_flight, len(world.line)) == ([], 0, 0)
    world.full = False
    world.ask()
    assert world.opened() == [1], "the stream is used by the next request"


async def test_one_request_leaves_before_the_server_has_announced_how_many_may() -> None:
    world = World(settings=None)
    assert world.connection.stream_limit == 1
    world.wire.writes.clear()
    world.ask(3)
    assert world.opened() == [1]
    world.hears(settings_frame([]))
    assert world.opened() == [3, 5]
    assert world.connection.stream_limit == 100


async def test_a_request_waits_in_line_while_all_streams_are_open() -> None:
    world = World(settings=[(3, 2)])
    asked = world.ask(5)
    assert world.opened() == [1, 3]
    asked[2].future.cancel()
    world.hears(answer(3), answer(1))

    assert world.opened() == [5, 7], "the cancelled one has left the line"
    assert statuses([asked[0], asked[1], asked[3]]) == ["200", "200", ""]
    world.hears(settings_frame([(3, 1)]), answer(5))
    assert world.opened() == []


async def test_never_more_streams_are_open_than_configured_whatever_the_server_allows() -> None:
    world = World(in_flight=3)
    world.ask(10)

    assert world.opened() == [1, 3, 5]
    assert (world.connection.stream_limit, world.connection.in_flight) == (3, 3)


async def test_a_body_waits_for_room_in_the_window_and_those_behind_it_wait_too() -> None:
    world = World()
    world.ask(1, 60_000)
    big, small = world.ask(1, 10_000)[0], world.ask(1, 100)[0]
    assert world.opened() == [1]
    world.hears(window_frame(0, 5_000))
    assert world.opened() == [3, 5], "room is counted once for all that leave together"
    assert statuses([big, small]) == ["", ""]


async def test_a_body_larger_than_a_streams_window_waits() -> None:
    world = World(settings=[(4, 50)])
    big, small = world.ask(1, 51)[0], world.ask(1, 50)[0]
    assert world.opened() == []
    big.future.cancel()
    world.connection.serve()
    assert world.opened() == [1]
    assert small.stream_id == 1


async def test_nothing_leaves_while_the_socket_accepts_no_bytes() -> None:
    world = World()
    world.connection.pause_writing()
    world.ask()
    assert world.opened() == []
    world.connection.resume_writing()
    assert world.opened() == [1]


async def test_the_last_stream_id_is_the_last() -> None:
    world = World()
    world.connection._engine._next = LAST_STREAM
    world.ask(2)
    assert world.opened() == [LAST_STREAM]
    world.connection.serve()
    assert not world.connection.usable
    assert world.left == [world.connection]
    assert len(world.line) == 1, "the next connection takes it"


async def test_answers_reach_their_requests_in_whatever_order_they_come() -> None:
    world = World()
    asked = world.ask(4)
    refusal = header_block([(b":status", b"410"), (b"apns-id", b"x")])
    later = header_block([(b":status", b"503"), (b"retry-after", b"9")])
    body = b'{"reason": "Unregistered", "timestamp": 7}'
    world.hears(answer(7, later), answer(3, refusal, body), answer(1), answer(5, OK, b"no JSON"))

    results = [pending.future.result() for pending in asked]
    assert [result.result.status for result in results] == ["200", "410", "200", "503"]
    assert (results[1].result.description, results[1].result.timestamp) == ("Unregistered", 7)
    assert (results[2].result.description, results[2].retry_after, results[3].retry_after) == ("", "", "9")
    assert {result.authorization for result in results} == {"bearer 1"}
    assert results[0].result.notification_id == "id"


async def test_a_cancelled_request_resets_its_stream_and_gets_nothing_more() -> None:
    world = World(settings=[(3, 2)])
    asked = world.ask(3)
    world.sent()
    asked[0].future.cancel()
    world.connection.give_up(asked[0])

    kinds = [(kind, stream_id) for kind, _, stream_id, _ in world.sent()]
    assert kinds == [(RST_STREAM, 1), (HEADERS, 5), (DATA, 5)], "the next in the line gets the slot"
    world.hears(answer(1), answer(3))
    world.connection.give_up(asked[0])
    assert world.sent() == []
    assert asked[0].future.cancelled()


async def test_an_answer_to_a_request_that_is_being_cancelled_is_dropped() -> None:
    world = World()
    (asked,) = world.ask()
    asked.future.cancel()
    world.hears(answer(1))

    assert world.connection.in_flight == 0


async def test_a_server_that_answers_nothing_gets_no_more_requests() -> None:
    world = World()
    for pending in world.ask(GIVEN_UP):
        assert world.connection.usable
        pending.future.cancel()
        world.connection.give_up(pending)

    assert not world.connection.usable
    assert world.wire.aborted


@pytest.mark.parametrize(
    ("frames", "ended", "usable"),
    [
        # both requests are in flight, on streams 1 and 3
        (reset_frame(3, 7), "NotSent stream-refused", True),
        (reset_frame(3, 2), "MaybeSent stream-reset: INTERNAL_ERROR", True),
        (reset_frame(3, 0xBEEF), "MaybeSent stream-reset: 48879", True),
        (frame(DATA, END_STREAM, 3, b"a body without a head"), "MaybeSent stream-reset: PROTOCOL_ERROR", True),
        (frame(GOAWAY, 0, 0, bytes.fromhex("00000001 00000000")), "NotSent server-goes-away", False),
        (frame(GOAWAY, 0, 0, bytes.fromhex("00000003 00000000")), "", False),
        (
            frame(GOAWAY, 0, 0, bytes.fromhex("00000003 0000000b")),
            "MaybeSent server-hangs-up: ENHANCE_YOUR_CALM",
            False,
        ),
        (frame(PING, 0, 0, b"short"), "MaybeSent connection-broken", False),
        (frame(PING, 0, 0, bytes(8)) * 2000, "MaybeSent server-floods: PING", False),
        (b"", "", True),
    ],
)
async def test_each_ending_says_what_happened(frames: bytes, ended: str, usable: bool) -> None:
    world = World()
    other, asked = world.ask(2)
    world.hears(frames)
    while world.connection._engine.more:
        world.connection._read_on()
    if world.wire.aborted:
        world.connection.connection_lost(None)

    assert statuses([other, asked])[1] == ended
    assert world.connection.usable is usable
    assert (world.left == []) is usable


async def test_a_server_that_speaks_no_http2_is_named() -> None:
    world = World(settings=None)
    (asked,) = world.ask()
    world.hears(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    world.connection.connection_lost(None)

    assert statuses([asked]) == ["MaybeSent no-http2"]
    assert world.lost == [world.connection]


async def test_answers_that_came_before_the_end_count_and_nothing_leaves_any_more() -> None:
    world = World(in_flight=1000)
    world.hears(window_frame(0, 1_000_000))
    asked = world.ask(AT_ONCE + 10)
    world.hears(*(answer(pending.stream_id) for pending in asked))
    assert not world.wire.reading
    more = [*world.ask(1), *world.ask(1, 10_000_000)]
    world.connection.connection_lost(ConnectionResetError("by the peer"))
    world.connection._read_on()

    assert statuses(asked) == ["200"] * (AT_ONCE + 10)
    assert statuses(more) == ["MaybeSent connection-lost", ""], "the other one waits for the next connection"


async def test_reading_goes_on_when_what_was_received_is_handled() -> None:
    world = World()
    world.hears(frame(PING, 0, 0, bytes(8)) * (AT_ONCE + 1))
    assert not world.wire.reading
    await asyncio.sleep(0)
    assert world.wire.reading
    assert len([kind for kind, *_ in world.sent() if kind == PING]) == AT_ONCE + 1


async def test_a_connection_begins_with_preface_and_settings() -> None:
    world = World(settings=None)

    assert world.wire.writes[0].startswith(PREFACE)
    assert world.sent()[0][0] == SETTINGS
