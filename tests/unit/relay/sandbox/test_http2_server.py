from collections.abc import Sequence
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    PingAckReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.events import Event as TheirEvent
from h2.settings import SettingCodes

from eas_watcher.http2.client import Http2Client
from eas_watcher.http2.events import Answered
from eas_watcher.http2.events import Event as ClientEvent
from eas_watcher.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    FRAME_SIZE,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    LARGEST_WINDOW,
    MAX_FRAME_SIZE,
    NUMBER,
    PING,
    PREFACE,
    PRIORITISED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW,
    frame,
    reset_frame,
    settings_frame,
    window_frame,
)
from eas_watcher.http2.header_block import NO_TABLE, Header, header_block, header_field
from eas_watcher.http2.violations import Violation
from relay.sandbox.http2_server import Asked, Cancelled, Event, Http2Server, Pinged

PSEUDO = [(":method", "POST"), (":scheme", "https"), (":authority", "apns"), (":path", "/3/device/00ff")]
RAW = [(name.encode(), value.encode()) for name, value in PSEUDO]
BLOCK = header_block(RAW)
WHOLE = END_HEADERS | END_STREAM


def status(number: int) -> bytes:
    return header_field(b":status", b"%d" % number)


class Peer:
    """The library h2 as the client of a server."""

    def __init__(self, streams: int = 100, window: int | None = None) -> None:
        self.server = Http2Server(streams, 65_536)
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        if window is not None:
            self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.asked: list[Event] = []
        self.heard: list[TheirEvent] = []
        self.exchange()

    def exchange(self) -> None:
        """Pass bytes between both until none is left."""
        while True:
            sent = self.h2.data_to_send()
            self.asked += self.server.receive(sent) if sent else []
            reply = self.server.take()
            if not sent and not reply:
                return
            for event in self.h2.receive_data(reply):
                self.heard.append(event)
                if isinstance(event, DataReceived):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def ask(self, stream_id: int, body: bytes = b"", **fields: str) -> None:
        headers = [*PSEUDO, *((name.replace("_", "-"), value) for name, value in fields.items())]
        self.h2.send_headers(stream_id, headers, end_stream=not body)
        while body:
            size = min(self.h2.local_flow_control_window(stream_id), 16_384)
            piece, body = body[:size], body[size:]
            self.h2.send_data(stream_id, piece, end_stream=not body)
            self.exchange()
        self.exchange()

    def body(self, stream_id: int) -> bytes:
        return b"".join(
            event.data for event in self.heard if isinstance(event, DataReceived) and event.stream_id == stream_id
        )


def test_requests_arrive_whole_and_answers_too() -> None:
    peer = Peer()
    for stream_id in 1, 3, 5:  # from the second on they refer to the client's table
        peer.ask(stream_id, bytes(stream_id * 30_000), apns_id=f"id-{stream_id}")
        peer.server.answer(stream_id, status(400) + header_field(b"apns-id", b"id-%d" % stream_id), [b"one ", b"two"])
        peer.exchange()

    assert peer.asked == [
        Asked(stream_id, {**dict(PSEUDO), "apns-id": f"id-{stream_id}"}, bytes(stream_id * 30_000))
        for stream_id in (1, 3, 5)
    ]
    answers: list[Any] = [event.headers for event in peer.heard if isinstance(event, ResponseReceived)]
    assert answers[2] == [(":status", "400"), ("apns-id", "id-5")]
    assert peer.body(3) == b"one two"
    assert len([event for event in peer.heard if isinstance(event, StreamEnded)]) == 3
    assert 1 not in peer.server


def test_an_answer_waits_for_the_windows_of_its_client() -> None:
    peer = Peer(window=100)
    peer.ask(1)
    peer.ask(3)
    peer.server.answer(1, status(200), [bytes(60), bytes(100_000), b""])
    peer.server.answer(3, status(200))
    assert 1 in peer.server
    assert 3 not in peer.server
    assert peer.server.busy(1)
    assert not peer.server.busy(0)
    peer.exchange()

    assert len(peer.body(1)) == 100_060
    assert not peer.server.busy(LARGEST_WINDOW)


def test_resets_pings_limits_and_goaways() -> None:
    peer = Peer(streams=1)
    peer.ask(1)
    peer.h2.reset_stream(1)
    peer.h2.ping(b"12345678")
    peer.exchange()
    peer.server.answer(1, status(200))
    peer.server.announce(5)
    peer.exchange()
    peer.ask(3)
    peer.server.reset(3, 7)
    peer.server.reset(3, 7)
    peer.server.go_away(3, 11)
    peer.exchange()

    assert [type(event) for event in peer.asked] == [Asked, Cancelled, Pinged, Asked]
    changes = [event.changed_settings for event in peer.heard if isinstance(event, RemoteSettingsChanged)]
    assert [change[SettingCodes.MAX_CONCURRENT_STREAMS].new_value for change in changes] == [1, 5]
    assert any(isinstance(event, PingAckReceived) for event in peer.heard)
    resets = [event for event in peer.heard if isinstance(event, StreamReset)]
    assert [(event.stream_id, int(event.error_code)) for event in resets] == [(3, 7)]
    (gone,) = [event for event in peer.heard if isinstance(event, ConnectionTerminated)]
    assert (gone.last_stream_id, int(gone.error_code or 0)) == (3, 11)


def test_a_client_without_a_table_is_understood_too() -> None:
    server, client = Http2Server(100, 65_536), Http2Client[int](0.0)
    events: list[ClientEvent[int]] = []
    for number in range(3):
        client.request(BLOCK + header_block([(b"x-long", b"v" * 20_000)]), bytes(70_000), number)
    asked: list[Event] = []
    for _ in range(10):
        for event in server.receive(client.take()):
            asked.append(event)
            assert isinstance(event, Asked)
            server.answer(event.stream_id, status(200), [event.body])
        events += client.receive(server.take(), 0.0)

    assert len(asked) == 3
    assert [(event.owner, len(event.body)) for event in events if isinstance(event, Answered)] == [
        (number, 70_000) for number in range(3)
    ]


def opened(*pieces: bytes, streams: int = 2, block: bytes = NO_TABLE + BLOCK) -> Http2Server:
    """Return a server whose client has a request open on stream 1."""
    server = Http2Server(streams, 1000)
    server.receive(PREFACE + settings_frame([]) + frame(SETTINGS, ACK, 0))
    server.receive(frame(HEADERS, END_HEADERS, 1, block))
    for piece in pieces:
        server.receive(piece)
    return server


def request(headers: Sequence[Header], stream_id: int = 3) -> bytes:
    return frame(HEADERS, WHOLE, stream_id, header_block(headers))


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (request(RAW, 2), 1),
        (request(RAW) + request(RAW, 5), 1),
        (request(RAW, 0), 1),
        (request([(b"trailer", b"1")], 1) * 2, 5),
        (frame(GOAWAY, 0, 0, bytes(8)) + request(RAW), 1),
        (frame(HEADERS, WHOLE | PRIORITISED, 3, NUMBER.pack(3) + b"\0" + BLOCK), 1),
        (request([*RAW, (b"content-length", b"1")]), 1),
        (frame(HEADERS, WHOLE, 1, header_block([(b":path", b"/")])), 1),
        (frame(HEADERS, END_HEADERS, 1, header_block([(b"trailer", b"1")])), 1),
        (request(RAW[:3]), 1),
        (request([*RAW, RAW[0]]), 1),
        (request([*RAW, (b":status", b"200")]), 1),
        (request([*RAW[:2], (b"accept", b"*"), *RAW[2:]]), 1),
        (request([*RAW, (b"Accept", b"*")]), 1),
        (frame(HEADERS, WHOLE, 3, b"\xbe"), 9),
        (frame(HEADERS, 0, 3, BLOCK) + frame(PING, 0, 0, bytes(8)), 1),
        (frame(HEADERS, 0, 3, BLOCK) + frame(CONTINUATION, 0, 3, bytes(1000)), 11),
        (frame(HEADERS, 0, 3, b"") + frame(CONTINUATION, 0, 3) * 64, 11),
        (frame(CONTINUATION, END_HEADERS, 3, BLOCK), 1),
        (frame(DATA, 0, 3, b""), 1),
        (frame(DATA, 0, 2, b""), 1),
        (frame(DATA, END_STREAM, 1, b"") + frame(DATA, 0, 1, b""), 5),
        (frame(DATA, END_STREAM, 1, bytes(16_384)) * 5, 5),
        (request(RAW) + frame(DATA, 0, 1, bytes(16_384)) * 5, 3),
        (frame(SETTINGS, 0, 0, bytes(5)), 6),
        (frame(SETTINGS, ACK, 0), 1),
        (frame(SETTINGS, ACK, 0, bytes(6)), 6),
        (frame(SETTINGS, 0, 1), 1),
        (settings_frame([(ENABLE_PUSH, 2)]), 1),
        (settings_frame([(MAX_FRAME_SIZE, FRAME_SIZE - 1), (MAX_FRAME_SIZE, FRAME_SIZE)]), 1),
        (window_frame(1, 1) + settings_frame([(4, LARGEST_WINDOW)]), 3),
        (settings_frame([(4, LARGEST_WINDOW + 1)]), 3),
        (window_frame(0, 0), 1),
        (window_frame(0, LARGEST_WINDOW), 3),
        (window_frame(3, 1), 1),
        (window_frame(2, 1), 1),
        (reset_frame(3, 8), 1),
        (reset_frame(0, 8), 1),
        (reset_frame(1, 8) + frame(DATA, 0, 1, b"late"), 5),
        (frame(PRIORITY, 0, 3, NUMBER.pack(3) + b"\0"), 1),
        (frame(PRIORITY, 0, 3, b"shor"), 6),
        (frame(GOAWAY, 0, 0, bytes(7)), 6),
        (frame(PING, 0, 1, bytes(8)), 1),
        (frame(RST_STREAM, 0, 1, b"short"), 6),
        (frame(PING, 0, 0, b"short"), 6),
        (frame(PUSH_PROMISE, 0, 1, BLOCK), 1),
    ],
)
def test_violations_of_a_client_end_its_connection(frames: bytes, code: int) -> None:
    server = opened()
    server.take()

    with pytest.raises(Violation) as violation:
        server.receive(frames)

    assert violation.value.code == code
    assert server.take()[-4:] == code.to_bytes(4), "the code of a GOAWAY"


def test_what_is_not_http2_is_refused() -> None:
    server = Http2Server(1, 1000)
    server.receive(PREFACE[:5])
    with pytest.raises(Violation, match="preface"):
        server.receive(b"HTTP/1.1\r\n")


def test_more_than_a_streams_window_is_a_violation() -> None:
    server = opened(frame(DATA, 0, 1, b"1"))
    server._credit = 10 * WINDOW

    with pytest.raises(Violation, match="stream's window"):
        server.receive(b"".join(frame(DATA, END_STREAM if at == 4 else 0, 1, bytes(16_384)) for at in range(5)))


def test_streams_are_limited_before_their_limit_is_acknowledged_where_it_is_known() -> None:
    server = Http2Server(1, 1000, unannounced=1)

    with pytest.raises(Violation, match="more than 1 streams"):
        server.receive(PREFACE + settings_frame([]) + request(RAW, 1) + request(RAW, 3))


def test_a_remembered_head_is_that_of_its_block() -> None:
    server = Http2Server(100, 1000, remembers=True)
    heads = [header_block([*RAW, (b"number", b"%d" % number)]) for number in (1, 2, 1)]
    server.receive(PREFACE + settings_frame([]) + frame(HEADERS, WHOLE, 1, NO_TABLE + BLOCK))
    asked = server.receive(b"".join(frame(HEADERS, WHOLE, 3 + 2 * at, head) for at, head in enumerate(heads)))

    assert [event.headers["number"] for event in asked if isinstance(event, Asked)] == ["1", "2", "1"]
    for _ in range(2):
        with pytest.raises(Violation, match="others"):
            server.receive(request([*RAW, RAW[0]], 9))


def test_a_stream_whose_window_grows_too_wide_is_reset() -> None:
    server = opened()
    server.take()

    assert server.receive(window_frame(1, LARGEST_WINDOW)) == [Cancelled(1)]
    assert server.take() == reset_frame(1, 3)


def test_an_answer_says_first_that_the_table_shrank() -> None:
    server = opened(settings_frame([(HEADER_TABLE_SIZE, 0)]), frame(DATA, END_STREAM, 1), request(RAW))
    server.take()
    server.answer(1, status(200))
    server.answer(3, status(200))

    assert server.take() == frame(HEADERS, WHOLE, 1, NO_TABLE + status(200)) + frame(HEADERS, WHOLE, 3, status(200))


def test_a_body_with_trailers_may_wait_for_its_windows_and_is_whole_at_its_length() -> None:
    trailers = frame(HEADERS, WHOLE, 3, header_block([(b"checksum", b"1")]))
    server = opened(streams=3)
    server.take()
    head = header_block([*RAW, (b"content-length", b"40000")])

    assert server.receive(frame(HEADERS, END_HEADERS | PRIORITISED, 3, bytes(4) + b"\0" + head)) == []
    assert server.receive(frame(DATA, 0, 3, bytes(16_384)) * 2) == []
    assert server.take() == window_frame(0, 32_768) + window_frame(3, 32_768)
    (asked,) = server.receive(frame(DATA, 0x8, 3, b"\2" + bytes(7232 + 2)) + trailers)
    assert isinstance(asked, Asked)
    assert asked.body == bytes(40_000)
    assert server.take() == b""


def test_what_comes_for_streams_that_are_over_is_dropped() -> None:
    server = opened()
    server.reset(1, 8)

    assert server.receive(frame(DATA, 0, 1, b"late") + window_frame(1, 5) + reset_frame(1, 8) + request(RAW, 1)) == []
    assert server.receive(frame(0xBB, 0, 0, b"?")) == []


def test_a_table_that_cannot_be_read_ends_the_connection() -> None:
    with pytest.raises(Violation) as violation:
        opened(block=b"\xbe")

    assert violation.value.code == 9
