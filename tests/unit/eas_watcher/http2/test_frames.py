from itertools import pairwise

import pytest
from hyperframe.frame import Frame as TheirFrame
from hyperframe.frame import HeadersFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from eas_watcher.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_SIZE,
    HEADERS,
    PADDED,
    PING,
    PRIORITISED,
    Frame,
    FrameReader,
    frame,
    goaway_frame,
    header_frames,
    header_piece,
    reset_frame,
    settings_frame,
    unpad,
    window_frame,
)
from eas_watcher.http2.violations import ErrorCode, Violation

FRAMES = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, (1 << 31) - 1), st.binary(max_size=40))
)


def read_all(pieces: list[bytes]) -> list[Frame]:
    reader, found = FrameReader(), []
    for piece in pieces:
        reader.add(piece)
        while (next_frame := reader.next()) is not None:
            found.append(next_frame)
    return found


@given(FRAMES, st.lists(st.integers(0, 400)))
@settings(max_examples=40)
def test_frames_are_read_wherever_the_stream_is_cut(frames: list[Frame], cuts: list[int]) -> None:
    written = b"".join(frame(*each) for each in frames)
    places = [0, *sorted(cuts), len(written)]
    pieces = [written[start:end] for start, end in pairwise(places)]

    assert read_all(pieces) == frames
    assert read_all([bytes((octet,)) for octet in written]) == frames


def test_frames_that_are_left_come_before_new_ones() -> None:
    reader = FrameReader()
    reader.add(frame(PING, 0, 0, b"1") + frame(PING, 0, 0, b"2"))
    assert reader.next() == (PING, 0, 0, b"1")
    reader.add(frame(PING, 0, 0, b"3"))

    assert [reader.next(), reader.next(), reader.next()] == [(PING, 0, 0, b"2"), (PING, 0, 0, b"3"), None]


def test_a_frame_longer_than_we_allow_is_refused_at_its_head() -> None:
    reader = FrameReader()
    reader.add(frame(DATA, 0, 1, bytes(FRAME_SIZE + 1))[:9])

    with pytest.raises(Violation) as refused:
        reader.next()
    assert refused.value.code is ErrorCode.FRAME_SIZE_ERROR


def test_the_reserved_bit_of_a_stream_is_ignored() -> None:
    assert read_all([frame(PING, ACK, 0x80000001, b"")]) == [(PING, ACK, 1, b"")]


@pytest.mark.parametrize(
    "written",
    [
        settings_frame([(1, 0), (4, 70_000)]),
        window_frame(3, 1000),
        reset_frame(5, ErrorCode.CANCEL),
        goaway_frame(ErrorCode.PROTOCOL_ERROR, "why"),
        header_frames(7, b"\x88", FRAME_SIZE, end=True),
    ],
)
def test_another_implementation_reads_and_writes_the_same(written: bytes) -> None:
    theirs, length = TheirFrame.parse_frame_header(memoryview(written[:9]))
    theirs.parse_body(memoryview(written[9 : 9 + length]))

    assert theirs.serialize() == written


def test_a_long_header_block_is_continued() -> None:
    frames = read_all([header_frames(1, b"0123456789", 4, end=False)])

    assert frames == [(HEADERS, 0, 1, b"0123"), (CONTINUATION, 0, 1, b"4567"), (CONTINUATION, END_HEADERS, 1, b"89")]
    assert read_all([header_frames(1, b"01234567", 4, end=True)])[0] == (HEADERS, END_STREAM, 1, b"0123")


def test_padding_and_priority_are_removed() -> None:
    theirs = HeadersFrame(1, b"block", flags=["END_HEADERS", "PADDED", "PRIORITY"], pad_length=6)
    ((_, flags, _, payload),) = read_all([theirs.serialize()])

    assert header_piece(flags, payload) == b"block"
    assert header_piece(END_HEADERS, b"block") == b"block"
    assert unpad(PADDED, b"\x00rest") == b"rest"
    assert unpad(0, b"\x00rest") == b"\x00rest"


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x05four"])
def test_padding_longer_than_its_frame_is_refused(payload: bytes) -> None:
    with pytest.raises(Violation, match="padding") as refused:
        unpad(PADDED, payload)

    assert refused.value.code is ErrorCode.PROTOCOL_ERROR


def test_a_priority_needs_its_room() -> None:
    with pytest.raises(Violation) as refused:
        header_piece(PRIORITISED, b"four")

    assert refused.value.code is ErrorCode.FRAME_SIZE_ERROR
