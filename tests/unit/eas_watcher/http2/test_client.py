from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from eas_watcher.http2.budget import BURST, DISCARDED
from eas_watcher.http2.client import AT_ONCE, UNANNOUNCED, Http2Client
from eas_watcher.http2.events import Answered, Broken, Event, Failed, GoneAway, Settled, Widened
from eas_watcher.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_SIZE,
    GOAWAY,
    HEADERS,
    LARGEST_WINDOW,
    LAST_STREAM,
    PADDED,
    PING,
    PREFACE,
    PRIORITISED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW,
    WINDOW_UPDATE,
    Frame,
    frame,
    reset_frame,
    settings_frame,
    window_frame,
)
from eas_watcher.http2.header_block import NO_TABLE, header_block
from eas_watcher.http2.limits import Limits
from eas_watcher.http2.violations import ErrorCode
from tests.unit.eas_watcher.http2.framing import frames_of

WHOLE = END_HEADERS | END_STREAM
SMALL = Limits(body=100, headers=1000, kept=250, window=WINDOW)
BLOCK = b"\x83"  # :method: POST


class Talk:
    """A client whose server is this test."""

    def __init__(self, limits: Limits = SMALL, *, settings: Sequence[tuple[int, int]] | None = ()) -> None:
        """Let the server begin with these settings; None: it has not begun."""
        self.client: Http2Client[Any] = Http2Client(0.0, limits)
        self.greeting = self.client.take()
        if settings is not None:
            assert self.hears(settings_frame(settings)) == [Settled()]
            assert self.sent() == [(SETTINGS, ACK, 0, b"")]

    def hears(self, *data: bytes, now: float = 0.0) -> list[Event[Any]]:
        return self.client.receive(b"".join(data), now)

    def sent(self) -> list[Frame]:
        return frames_of(self.client.take())

    def asks(self, count: int = 1, body: bytes = b"", largest: int | None = None) -> None:
        """Open streams; each has its number as owner."""
        for _ in range(count):
            stream_id = self.client.request(BLOCK, body, None, largest)
            self.client._owners[stream_id] = f"owner {stream_id}"
        self.client.take()

    def breaks(self, *data: bytes) -> tuple[str, str]:
        """Return code and text of a violation, after its GOAWAY."""
        *_, broken = self.hears(*data)
        assert isinstance(broken, Broken)
        kind, flags, stream_id, payload = self.sent()[-1]
        assert (kind, flags, stream_id) == (GOAWAY, 0, 0)
        assert payload == bytes(4) + broken.code.to_bytes(4) + broken.text.encode()
        assert self.client.going
        assert self.client.free == 0
        assert self.hears(settings_frame([])) == []
        return ErrorCode(broken.code).name, broken.text


def head(
    stream_id: int, status: str = "200", fields: Iterable[tuple[bytes, bytes]] = (), flags: int = END_HEADERS
) -> bytes:
    return frame(HEADERS, flags, stream_id, header_block([(b":status", status.encode()), *fields]))


def data(stream_id: int, body: bytes, flags: int = END_STREAM) -> bytes:
    return frame(DATA, flags, stream_id, body)


def test_a_client_begins_with_preface_and_settings() -> None:
    greeting = Http2Client[None](0.0, Limits(body=1000, headers=2000, window=100_000)).take()

    assert greeting.startswith(PREFACE)
    settings = bytes.fromhex("0001 0000 00000002 0000 00000004 0000 03e90006 0000 07d0")
    assert frames_of(greeting) == [(SETTINGS, 0, 0, settings), (WINDOW_UPDATE, 0, 0, (100_000 - WINDOW).to_bytes(4))]
    assert len(frames_of(Talk().greeting)) == 1


def test_answers_come_with_the_owners_of_their_requests() -> None:
    talk = Talk()
    first = talk.client.request(BLOCK, b"body", "first")
    second = talk.client.request(BLOCK, b"", "second")
    assert (first, second) == (1, 3)
    assert talk.sent() == [
        (HEADERS, END_HEADERS, 1, NO_TABLE + BLOCK),
        (DATA, END_STREAM, 1, b"body"),
        (HEADERS, WHOLE, 3, BLOCK),
    ]
    assert len(talk.client) == 2
    assert first in talk.client

    assert talk.hears(head(3, "503", [(b"retry-after", b"9")], WHOLE)) == [
        Answered(3, "second", 503, ((b"retry-after", b"9"),), b"")
    ]
    assert talk.hears(head(1, "100"), head(1), data(1, b"two ", 0), data(1, b"parts")) == [
        Answered(1, "first", 200, (), b"two parts")
    ]
    assert len(talk.client) == 0


def test_trailers_end_an_answer() -> None:
    talk = Talk()
    talk.asks(3)

    assert talk.hears(head(1), frame(HEADERS, WHOLE, 1, header_block([(b"checksum", b"1")]))) == [
        Answered(1, "owner 1", 200, (), b"")
    ]
    (failed,) = talk.hears(head(3), frame(HEADERS, END_HEADERS, 3, header_block([(b"checksum", b"1")])))
    assert failed == Failed(3, "owner 3", 1, "trailers that do not end the answer", unprocessed=False)
    (failed,) = talk.hears(head(5), head(5, flags=WHOLE))
    assert failed == Failed(5, "owner 5", 1, "a header that an answer may not have", unprocessed=False)


@pytest.mark.parametrize(
    "answer",
    [
        head(1, "100", flags=WHOLE),
        head(1, "101"),
        head(1, "99"),
        data(1, b"body"),
        head(1, fields=[(b"content-length", b"5")], flags=WHOLE),
        head(1, fields=[(b"content-length", b"5")]) + data(1, b"four"),
        head(1, fields=[(b"content-length", b"x")]),
        window_frame(1, 0),
    ],
)
def test_a_malformed_answer_ends_its_own_stream_only(answer: bytes) -> None:
    talk = Talk()
    talk.asks(2)

    (failed,) = talk.hears(answer)

    assert isinstance(failed, Failed)
    assert (failed.stream_id, failed.code, failed.unprocessed, bool(failed.text)) == (1, 1, False, True)
    assert talk.sent() == frames_of(reset_frame(1, 1))
    assert talk.hears(head(1), data(1, b"late"), window_frame(1, 0)) == []
    assert talk.hears(head(3, flags=WHOLE)) == [Answered(3, "owner 3", 200, (), b"")]


def test_a_long_header_block_comes_in_pieces() -> None:
    talk = Talk()
    talk.asks()
    block = header_block([(b":status", b"200"), (b"name", b"v" * 50)])
    events = talk.hears(
        frame(HEADERS, END_STREAM | PADDED | PRIORITISED, 1, b"\x02" + bytes(5) + block[:10] + bytes(2)),
        frame(CONTINUATION, 0, 1, block[10:20]),
        frame(CONTINUATION, END_HEADERS, 1, block[20:]),
    )

    assert events == [Answered(1, "owner 1", 200, ((b"name", b"v" * 50),), b"")]


def test_a_request_that_was_given_up_gets_no_event() -> None:
    talk = Talk()
    talk.asks(2)
    talk.hears(head(1))
    talk.client.reset(1)
    talk.client.reset(1)

    assert talk.sent() == frames_of(reset_frame(1, ErrorCode.CANCEL))
    assert talk.hears(data(1, b"late", 0), reset_frame(1, 0), head(1, flags=WHOLE), data(1, b"x")) == []
    assert talk.hears(head(1, fields=[(b"upgrade", b"h2")])) == [], "a malformed answer is one, too"
    assert talk.sent() == []
    assert 1 not in talk.client
    assert len(talk.client) == 1


@pytest.mark.parametrize("largest", [None, 50, 100, 1000])
def test_a_body_beyond_its_limit_ends_its_stream(largest: int | None) -> None:
    talk = Talk(Limits(body=100, kept=10_000))
    limit = largest or 100
    stream_id = talk.client.request(BLOCK, b"", "owner", largest)
    wider = [(WINDOW_UPDATE, 0, 1, (900).to_bytes(4))] if largest == 1000 else []
    assert talk.sent()[1:] == wider, "the stream's window holds one octet more than the limit"
    assert talk.hears(head(stream_id), data(stream_id, bytes(limit), 0)) == []
    assert talk.hears(data(stream_id, b"", 0)) == []

    (failed,) = talk.hears(data(stream_id, b"1"))

    assert failed == Failed(1, "owner", ErrorCode.CANCEL, "a body longer than its limit", unprocessed=False)
    assert talk.client._largest == {}


def test_all_bodies_together_have_a_limit() -> None:
    talk = Talk()
    talk.asks(5)
    talk.hears(*(head(stream_id) + data(stream_id, bytes(100), 0) for stream_id in (1, 3)))

    (failed,) = talk.hears(head(5), data(5, bytes(51), 0))
    assert failed == Failed(5, "owner 5", 8, "bodies longer than the limit of all together", unprocessed=False)
    (answered,) = talk.hears(data(1, b""), head(7), data(7, bytes(100), 0))
    assert isinstance(answered, Answered)
    talk.client.reset(3)
    talk.client.reset(7)
    assert talk.client._kept == 0


def test_windows_are_given_back_when_half_is_used() -> None:
    talk = Talk(Limits(body=100_000, window=WINDOW))
    talk.asks(4)
    talk.hears(head(1), head(3), data(1, bytes(FRAME_SIZE), 0))
    assert talk.sent() == []
    talk.hears(data(1, bytes(FRAME_SIZE - 1), 0))
    assert talk.sent() == [], "one octet less than half"
    talk.client.reset(1)
    talk.client.take()
    talk.hears(data(1, b"1", 0))

    assert talk.sent() == frames_of(window_frame(0, 2 * FRAME_SIZE)), "what nobody waits for counts, too"
    talk.hears(frame(DATA, PADDED, 3, bytes([200]) + b"body" + bytes(200)))
    assert talk.sent() == frames_of(window_frame(3, 201)), "padding is given back to its stream"


def test_more_than_the_window_is_a_violation() -> None:
    talk = Talk(Limits(body=1_000_000, window=WINDOW))
    talk.asks()

    assert talk.breaks(head(1), *(data(1, bytes(FRAME_SIZE), 0) for _ in range(4)))[0] == "FLOW_CONTROL_ERROR"


def test_the_server_limits_streams() -> None:
    talk = Talk(settings=[(3, 2)])
    assert (talk.client.limit, talk.client.free) == (2, 2)
    talk.asks(2)
    assert talk.client.free == 0
    assert talk.hears(settings_frame([(3, 1)])) == [Settled()]
    assert talk.client.free == 0
    talk.hears(settings_frame([(3, 0), (3, 5)]))
    assert talk.client.free == 3
    assert Talk().client.free == UNANNOUNCED


def test_bodies_wait_for_windows_of_the_server() -> None:
    talk = Talk(settings=[(4, 10)])
    assert (talk.client.room, talk.client.window) == (10, WINDOW)
    stream_id = talk.client.request(BLOCK, bytes(30), "owner")
    assert talk.sent()[1:] == [(DATA, 0, 1, bytes(10))]
    assert talk.hears(window_frame(stream_id, 5)) == []
    assert talk.sent() == [(DATA, 0, 1, bytes(5))]
    assert talk.hears(settings_frame([(4, 20)])) == [Settled()]
    assert talk.sent() == [(SETTINGS, ACK, 0, b""), (DATA, 0, 1, bytes(10))]
    assert talk.hears(window_frame(0, 5)) == [Widened()]

    assert talk.hears(head(1, flags=WHOLE)) == [Answered(1, "owner", 200, (), b"")]
    assert talk.sent() == frames_of(reset_frame(1, ErrorCode.NO_ERROR)), "the server did not wait for the rest"
    assert talk.hears(window_frame(stream_id, 50)) == []


def test_a_window_too_wide_ends_its_stream() -> None:
    talk = Talk(settings=[(4, LARGEST_WINDOW)])
    talk.asks(1, bytes(WINDOW + 1))
    (failed,) = talk.hears(window_frame(1, WINDOW), window_frame(1, 1))

    assert isinstance(failed, Failed)
    assert failed.code == ErrorCode.FLOW_CONTROL_ERROR


@pytest.mark.parametrize(("code", "unprocessed"), [(7, True), (8, False), (0xBEEF, False)])
def test_a_reset_says_whether_the_request_was_processed(code: int, unprocessed: bool) -> None:
    talk = Talk()
    talk.asks(2)

    assert talk.hears(reset_frame(1, code)) == [Failed(1, "owner 1", code, "", unprocessed)]
    assert 3 in talk.client


def test_a_goaway_leaves_out_later_streams_only() -> None:
    talk = Talk()
    talk.asks(3)
    events = talk.hears(frame(GOAWAY, 0, 0, bytes.fromhex("80000003 00000000") + b"debug"))

    assert events == [GoneAway(0, 3), Failed(5, "owner 5", 7, "", unprocessed=True)]
    assert talk.client.free == 0
    assert talk.client.going
    assert talk.hears(head(3, flags=WHOLE), head(1, flags=WHOLE)) == [
        Answered(3, "owner 3", 200, (), b""),
        Answered(1, "owner 1", 200, (), b""),
    ]


def test_pings_are_answered_and_sent() -> None:
    talk = Talk()
    assert talk.hears(frame(PING, 0, 0, b"8 octets"), frame(PING, ACK, 0, b"answered")) == []
    talk.client.ping(b"is there")

    assert talk.sent() == [(PING, ACK, 0, b"8 octets"), (PING, 0, 0, b"is there")]


def test_frames_that_mean_nothing_to_us_are_ignored() -> None:
    talk = Talk()
    talk.asks()

    assert talk.hears(frame(PRIORITY, 0, 1, bytes(5)), frame(0xBB, 0xFF, 9, b"?"), frame(SETTINGS, ACK, 0)) == []
    assert talk.sent() == []


def test_stream_ids_are_used_up_once() -> None:
    talk = Talk()
    talk.client._next = LAST_STREAM - 2
    assert (talk.client.free, talk.client.exhausted) == (2, False)
    talk.asks(2)

    assert (talk.client.free, talk.client.exhausted) == (0, True)
    assert talk.hears(head(LAST_STREAM, flags=WHOLE)) != []


def test_a_lost_connection_returns_its_requests() -> None:
    talk = Talk(settings=[(4, 10)])
    talk.asks(2, bytes(20), 5000)
    talk.hears(head(1), data(1, b"begun", 0))

    assert talk.client.abandon() == [(1, "owner 1"), (3, "owner 3")]
    assert (len(talk.client), talk.client.free, talk.client._kept) == (0, 0, 0)
    assert talk.client.abandon() == []


def test_a_closed_client_says_so_once_and_reads_nothing() -> None:
    talk = Talk()
    talk.asks()
    talk.client.close(ErrorCode.NO_ERROR, "bye")
    talk.client.close()

    assert talk.sent() == [(GOAWAY, 0, 0, bytes(8) + b"bye")]
    assert talk.hears(head(1, flags=WHOLE)) == []


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (frame(SETTINGS, 0, 0, bytes(5)), "FRAME_SIZE_ERROR"),
        (frame(SETTINGS, ACK, 0, bytes(6)), "FRAME_SIZE_ERROR"),
        (frame(SETTINGS, 0, 1), "PROTOCOL_ERROR"),
        (settings_frame([(2, 1)]), "PROTOCOL_ERROR"),
        (settings_frame([(4, LARGEST_WINDOW + 1)]), "FLOW_CONTROL_ERROR"),
        (settings_frame([(4, LARGEST_WINDOW + 1), (4, 5)]), "FLOW_CONTROL_ERROR"),
        (settings_frame([(5, FRAME_SIZE - 1)]), "PROTOCOL_ERROR"),
        (settings_frame([(5, 1 << 24)]), "PROTOCOL_ERROR"),
        (frame(PING, 0, 0, bytes(7)), "FRAME_SIZE_ERROR"),
        (frame(PING, 0, 1, bytes(8)), "PROTOCOL_ERROR"),
        (frame(GOAWAY, 0, 0, bytes(7)), "FRAME_SIZE_ERROR"),
        (frame(GOAWAY, 0, 1, bytes(8)), "PROTOCOL_ERROR"),
        (frame(WINDOW_UPDATE, 0, 0, bytes(3)), "FRAME_SIZE_ERROR"),
        (window_frame(0, 0), "PROTOCOL_ERROR"),
        (window_frame(0, LARGEST_WINDOW), "FLOW_CONTROL_ERROR"),
        (window_frame(5, 1), "PROTOCOL_ERROR"),
        (frame(PRIORITY, 0, 1, bytes(4)), "FRAME_SIZE_ERROR"),
        (frame(PRIORITY, 0, 0, bytes(5)), "PROTOCOL_ERROR"),
        (frame(RST_STREAM, 0, 1, bytes(5)), "FRAME_SIZE_ERROR"),
        (frame(RST_STREAM, 0, 0, bytes(4)), "PROTOCOL_ERROR"),
        (reset_frame(5, 8), "PROTOCOL_ERROR"),
        (head(0), "PROTOCOL_ERROR"),
        (head(2), "PROTOCOL_ERROR"),
        (head(5), "PROTOCOL_ERROR"),
        (data(0, b""), "PROTOCOL_ERROR"),
        (data(2, b""), "PROTOCOL_ERROR"),
        (data(5, b""), "PROTOCOL_ERROR"),
        (frame(HEADERS, WHOLE | PADDED, 1, b"\x09"), "PROTOCOL_ERROR"),
        (head(1) + frame(DATA, PADDED, 1, b"\x09"), "PROTOCOL_ERROR"),
        (frame(HEADERS, WHOLE, 1, b"\xbe"), "COMPRESSION_ERROR"),
        (frame(HEADERS, WHOLE, 1, header_block([(b"name", b"v" * 1000)])), "ENHANCE_YOUR_CALM"),
        (frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4) + BLOCK), "PROTOCOL_ERROR"),
        (frame(CONTINUATION, END_HEADERS, 1, BLOCK), "PROTOCOL_ERROR"),
        (frame(HEADERS, 0, 1, BLOCK) + frame(PING, 0, 0, bytes(8)), "PROTOCOL_ERROR"),
        (frame(HEADERS, 0, 1, BLOCK) + frame(CONTINUATION, 0, 3, BLOCK), "PROTOCOL_ERROR"),
        (frame(HEADERS, 0, 1, BLOCK) + frame(CONTINUATION, 0, 1, bytes(1000)), "ENHANCE_YOUR_CALM"),
        ((FRAME_SIZE + 1).to_bytes(3) + bytes(6), "FRAME_SIZE_ERROR"),
    ],
)
def test_violations_end_the_connection(frames: bytes, code: str) -> None:
    talk = Talk()
    talk.asks(2)

    assert talk.breaks(frames)[0] == code
    assert talk.client.abandon() != [], "the requests are still there, to be told"


@pytest.mark.parametrize(
    "first", [b"HTTP/1.1 400 Bad Request\r\n\r\n", frame(SETTINGS, ACK, 0), frame(PING, 0, 0, bytes(8)), head(1)]
)
def test_a_server_that_does_not_begin_with_settings_speaks_no_http2(first: bytes) -> None:
    talk = Talk(settings=None)
    talk.asks()
    talk.breaks(first)

    assert not talk.client.ready


@pytest.mark.parametrize(
    ("flood", "kind"),
    [
        (frame(PING, 0, 0, bytes(8)), "PING"),
        (settings_frame([(3, 1)]), "SETTINGS"),
        (reset_frame(1, 8), "RST_STREAM"),
        (data(3, b"", 0), "DATA"),
        (window_frame(0, 1), "WINDOW_UPDATE"),
        (head(3, "100"), "HEADERS"),
        (frame(PRIORITY, 0, 1, bytes(5)), "PRIORITY"),
        (frame(0xBB, 0, 0), "frames of kind 187"),
        (frame(GOAWAY, 0, 0, bytes.fromhex("7fffffff 00000000")), "GOAWAY"),
    ],
)
def test_floods_end_the_connection(flood: bytes, kind: str) -> None:
    talk = Talk()
    talk.asks(2)
    events: list[Event[Any]] = talk.hears(head(3)) if kind == "DATA" else []
    for _ in range(100):
        events += talk.hears(flood * 20)

    assert isinstance(broken := events[-1], Broken)
    assert (broken.code, broken.flooded) == (ErrorCode.ENHANCE_YOUR_CALM, kind)


def test_data_on_streams_that_are_over_is_a_flood() -> None:
    talk = Talk(Limits())
    talk.asks()
    talk.client.reset(1)
    events = [event for _ in range(int(BURST)) for event in talk.hears(data(1, bytes(DISCARDED), 0))]

    assert [event.flooded for event in events if isinstance(event, Broken)] == ["DATA"]


def test_empty_continuations_are_a_flood() -> None:
    talk = Talk()
    talk.asks()
    talk.hears(frame(HEADERS, 0, 1, BLOCK))
    events = [event for _ in range(2000) for event in talk.hears(frame(CONTINUATION, 0, 1, b""))]

    assert [event.flooded for event in events if isinstance(event, Broken)] == ["CONTINUATION"]


def test_time_and_requests_allow_more_frames() -> None:
    talk = Talk()
    for second in range(1, 200):
        assert talk.hears(frame(PING, 0, 0, bytes(8)) * 20, now=float(second)) == []


def test_a_limited_number_of_frames_is_read_at_once() -> None:
    talk = Talk()
    talk.hears(frame(PING, 0, 0, bytes(8)) * (AT_ONCE + 10) + b"\0\0")
    assert len(talk.sent()) == AT_ONCE
    assert talk.client.more
    talk.hears(b"")
    assert len(talk.sent()) == 10
    assert not talk.client.more
    assert talk.client.heard
    talk.hears(b"\x08")
    assert not talk.client.heard, "a part of a frame is no sign of life"


def test_an_error_says_enough_without_a_body_that_is_too_long() -> None:
    talk = Talk(Limits(body=100, errors_whole=False))
    talk.asks(2)
    assert talk.hears(head(1, "503", [(b"retry-after", b"9")]), data(1, bytes(60), 0)) == []

    assert talk.hears(data(1, bytes(41), 0)) == [Answered(1, "owner 1", 503, ((b"retry-after", b"9"),), b"")]
    assert talk.sent() == frames_of(reset_frame(1, ErrorCode.CANCEL))
    (failed,) = talk.hears(head(3), data(3, bytes(101)))
    assert failed == Failed(3, "owner 3", ErrorCode.CANCEL, "a body longer than its limit", unprocessed=False)


def test_answers_to_pings_are_counted() -> None:
    talk = Talk()
    talk.client.ping(b"12345678")
    talk.hears(frame(PING, 0, 0, b"of them!"))
    assert talk.client.pongs == 0
    talk.hears(frame(PING, ACK, 0, b"12345678"))
    assert talk.client.pongs == 1
