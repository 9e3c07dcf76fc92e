import pytest

from eas_watcher.http2.frames import DATA, END_HEADERS, END_STREAM, FRAME_SIZE, HEADERS, LARGEST_WINDOW, WINDOW
from eas_watcher.http2.outflow import Outflow
from eas_watcher.http2.violations import ErrorCode, Violation
from tests.unit.eas_watcher.http2.framing import frames_of

BODY = bytes(range(250)) * 400  # 100,000 octets, more than the first window


class Sent:
    """What an outflow wrote."""

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.flow = Outflow(self.out)

    def new(self) -> list[tuple[int, int, int, int]]:
        """Return kind, flags, stream and length of the frames since the last call."""
        found = [(kind, flags, stream_id, len(payload)) for kind, flags, stream_id, payload in frames_of(self.out)]
        self.out.clear()
        return found


def test_a_request_that_fits_goes_out_as_two_frames() -> None:
    sent = Sent()
    sent.flow.request(1, b"block", b"body")
    sent.flow.request(3, b"block", b"")

    assert frames_of(sent.out) == [
        (HEADERS, END_HEADERS, 1, b"block"),
        (DATA, END_STREAM, 1, b"body"),
        (HEADERS, END_HEADERS | END_STREAM, 3, b"block"),
    ]
    assert sent.flow.room == WINDOW - 4
    assert 1 not in sent.flow.unsent


def test_a_long_block_is_continued() -> None:
    sent = Sent()
    sent.flow.request(1, bytes(FRAME_SIZE + 1), b"")
    sent.flow.request(3, bytes(FRAME_SIZE + 1), b"body")

    assert [frame[:2] for frame in sent.new()] == [(1, 1), (9, 4), (1, 0), (9, 4), (0, 1)]


def test_a_body_goes_out_as_the_windows_let_it() -> None:
    sent = Sent()
    sent.flow.request(1, b"block", BODY)
    first = frames_of(sent.out)
    assert [len(payload) for _, _, _, payload in first[1:]] == [FRAME_SIZE] * 3 + [WINDOW - 3 * FRAME_SIZE]
    assert sent.flow.room == 0
    assert 1 in sent.flow.unsent
    sent.out.clear()

    sent.flow.widen(50_000)
    assert sent.new() == [], "its stream has no room yet"
    sent.flow.widen_stream(1, 10_000)
    assert sent.new() == [(DATA, 0, 1, 10_000)]
    sent.flow.widen_stream(1, 50_000)
    rest = frames_of(sent.out)

    assert rest[-1][1] == END_STREAM
    assert sum(len(payload) for _, _, _, payload in [*first[1:], *rest]) == len(BODY) - 10_000
    assert 1 not in sent.flow.unsent
    sent.flow.widen_stream(1, 1)  # an update for what is sent already
    sent.flow.forget(1)


def test_a_body_that_is_given_up_goes_out_no_more() -> None:
    sent = Sent()
    sent.flow.request(1, b"block", BODY)
    sent.flow.forget(1)
    sent.new()
    sent.flow.widen_stream(1, LARGEST_WINDOW)
    sent.flow.widen(100_000)

    assert sent.new() == []


def test_settings_change_windows_and_frames() -> None:
    sent = Sent()
    sent.flow.request(1, b"block", BODY)
    sent.new()
    sent.flow.adopt(100, 20_000)
    sent.flow.widen(WINDOW)
    assert sent.new() == [], "the stream has less than nothing"
    assert sent.flow.room == 100

    sent.flow.adopt(WINDOW + 30_000, None)
    sent.flow.send()
    assert sent.new() == [(DATA, 0, 1, 20_000), (DATA, 0, 1, 10_000)]
    sent.flow.adopt(None, FRAME_SIZE)
    sent.flow.widen_stream(1, 1_000)
    assert sent.new() == [(DATA, 0, 1, 1_000)]


def test_windows_have_an_end() -> None:
    def refused(code: ErrorCode) -> None:
        assert refusal.value.code is code

    sent = Sent()
    sent.flow.request(1, b"block", BODY)
    with pytest.raises(Violation) as refusal:
        sent.flow.widen(0)
    refused(ErrorCode.PROTOCOL_ERROR)
    with pytest.raises(Violation) as refusal:
        sent.flow.widen_stream(1, 0)
    refused(ErrorCode.PROTOCOL_ERROR)
    sent.flow.widen_stream(1, LARGEST_WINDOW)
    with pytest.raises(Violation) as refusal:
        sent.flow.widen_stream(1, 1)
    refused(ErrorCode.FLOW_CONTROL_ERROR)
    with pytest.raises(Violation) as refusal:
        sent.flow.adopt(WINDOW + 1, None)
    refused(ErrorCode.FLOW_CONTROL_ERROR)
    sent.flow.forget(1)
    sent.flow.widen(LARGEST_WINDOW)
    with pytest.raises(Violation) as refusal:
        sent.flow.widen(1)
    refused(ErrorCode.FLOW_CONTROL_ERROR)
