import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamReset
from h2.exceptions import FrameTooLargeError
from h2.settings import SettingCodes
from hpack import Decoder
from hpack.hpack import encode_integer
from hyperframe.frame import DataFrame, GoAwayFrame, PingFrame, SettingsFrame
from hypothesis import given
from hypothesis import strategies as st

from relay.push.apns.frame_budget import FrameBudget
from relay.push.apns.h2_engine import (
    ENDED_KEPT,
    FRAME_LIMIT,
    Engine,
    FrameFilter,
    GoAway,
    HeaderWriter,
    error_name,
    integer,
)

GRACEFUL = GoAwayFrame(0, last_stream_id=7, error_code=0, additional_data=b'{"reason":"Shutdown"}').serialize()
ANGRY = GoAwayFrame(0, last_stream_id=9, error_code=2).serialize()
OTHERS = [
    SettingsFrame(0, {3: 1}).serialize(),
    PingFrame(0, b"12345678").serialize(),
    DataFrame(1, b"x" * 300).serialize(),
]
TOKEN = "bearer " + "x" * 180


@given(st.lists(st.sampled_from([GRACEFUL, ANGRY, *OTHERS])), st.data())
def test_goaways_are_taken_out_however_the_bytes_come(frames: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    budget = FrameBudget(0.0)
    for _ in range(1000):
        budget.asked()
    sieve, kept, goaways = FrameFilter(budget), b"", []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        part = stream[start:end]
        while part or sieve.more:
            some, last = sieve.sift(part)
            kept += some
            goaways += last
            part = b""

    said = {GRACEFUL: GoAway(7, 0), ANGRY: GoAway(9, 2)}
    assert kept == b"".join(frame for frame in frames if frame not in said)
    assert goaways == [said[frame] for frame in frames if frame in said]


def test_a_frame_longer_than_allowed_is_refused_before_all_of_it_came() -> None:
    oversized = (FRAME_LIMIT + 1).to_bytes(3) + b"\x00" * 6

    with pytest.raises(FrameTooLargeError):
        FrameFilter(FrameBudget(0.0)).sift(OTHERS[0] + oversized)


def test_only_a_goaway_without_an_error_is_graceful() -> None:
    assert [GoAway(1, code).graceful for code in (0, 2)] == [True, False]


@given(st.integers(0, 2**31), st.integers(1, 8))
def test_numbers_are_written_as_hpack_does(value: int, bits: int) -> None:
    assert integer(value, bits) == bytes(encode_integer(value, bits))


def block(
    number: int, topic: str = "com.example.mail", token: str = TOKEN, path: int = 64
) -> list[tuple[bytes, bytes]]:
    fields = {
        ":method": "POST",
        ":scheme": "https",
        ":authority": "api.push.apple.com",
        ":path": "/3/device/" + f"{number:0{path}x}",
        "apns-topic": topic,
        "authorization": token,
        "apns-id": f"{number:032x}",
        "apns-expiration": str(number),
        "apns-collapse-id": f"registration-{number}.email",
    }
    return [(name.encode(), value.encode()) for name, value in fields.items()]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 9),
            st.sampled_from(["com.example.a", "com.example.b"]),
            st.sampled_from(["one", "two", "x" * 200]),
            st.sampled_from([64, 200]),
            st.lists(st.sampled_from([0, 100, 4096]), max_size=3),
        )
    )
)
def test_a_peer_reads_what_was_written_whatever_came_before(
    requests: list[tuple[int, str, str, int, list[int]]],
) -> None:
    headers, decoder = HeaderWriter(), Decoder()
    for number, topic, token, path, sizes in requests:
        for size in sizes:
            headers.resize(size)
            decoder.max_allowed_table_size = size
        fields = block(number, topic, token, path)
        assert [tuple(field) for field in decoder.decode(headers.write(fields), raw=True)] == fields


def test_values_that_all_requests_share_take_a_byte_each_from_the_second_request_on() -> None:
    headers = HeaderWriter()
    first, second, third = (len(headers.write(block(number))) for number in (1, 2, 3))

    unique = sum(len(value) for name, value in block(2) if name in {b":path", b"apns-id", b"apns-collapse-id"})
    assert first > second + len(TOKEN)
    assert second == third
    assert second < unique + 70


def test_values_that_differ_in_each_request_never_enter_the_table() -> None:
    headers, decoder = HeaderWriter(), Decoder()
    for number in range(100):
        decoder.decode(headers.write(block(number)), raw=True)

    entries = {name for name, _ in decoder.header_table.dynamic_entries}
    assert entries == {b":authority", b"apns-topic", b"authorization"}
    assert len(decoder.header_table.dynamic_entries) == len(entries)


def connected() -> tuple[Engine, H2Connection]:
    """Return an engine and a server that have exchanged their settings."""
    engine, server = Engine(0.0), H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
    engine.begin()
    server.initiate_connection()
    for _ in range(2):
        server.receive_data(engine.data_to_send())
        engine.receive(server.data_to_send())
    return engine, server


def test_a_server_understands_the_engine_and_ended_streams_are_forgotten() -> None:
    engine, server = connected()
    events: list[Event] = []
    for number in range(1, 5001, 2):
        engine.request(number, block(number), b"12345")
        events += server.receive_data(engine.data_to_send())
        server.acknowledge_received_data(5, number)
        server.send_headers(number, [(":status", "200")], end_stream=True)
        engine.receive(server.data_to_send())
        assert engine.streams <= ENDED_KEPT

    requests = [event for event in events if isinstance(event, RequestReceived)]
    assert "com.example.mail" in [str(value) for _, value in requests[-1].headers]
    assert len(requests) == len([event for event in events if isinstance(event, DataReceived)]) == 2500


def test_open_streams_are_never_forgotten() -> None:
    engine, server = connected()
    server.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 1000})
    engine.receive(server.data_to_send())
    for number in range(1, 4 * ENDED_KEPT, 2):
        engine.request(number, block(number), b"")
    server.receive_data(engine.data_to_send())
    server.send_headers(1, [(":status", "200")], end_stream=True)

    events, _ = engine.receive(server.data_to_send())

    assert {getattr(event, "stream_id", None) for event in events} == {1}


def test_an_answer_to_a_stream_that_was_reset_and_forgotten_harms_no_other() -> None:
    engine, server = connected()
    engine.request(1, block(1), b"12345")
    server.receive_data(engine.data_to_send())
    server.send_headers(1, [(":status", "400")])
    server.send_data(1, b'{"reason": "BadDeviceToken"}', end_stream=True)
    late = server.data_to_send()

    engine.reset(1)
    for number in range(3, 2 * ENDED_KEPT + 10, 2):
        engine.request(number, block(number), b"12345")
        engine.reset(number)

    assert engine.streams < ENDED_KEPT
    assert engine.receive(late) == ([], [])


def test_frames_go_out_in_the_order_in_which_they_were_written() -> None:
    engine, server = connected()
    engine.request(1, block(1), b"12345")
    engine.reset(1)
    engine.request(3, block(3), b"12345")

    events = server.receive_data(engine.data_to_send())

    kinds = [type(event) for event in events if isinstance(event, RequestReceived | StreamReset)]
    assert kinds == [RequestReceived, StreamReset, RequestReceived]


def test_a_smaller_table_is_acknowledged_before_the_first_block_that_relies_on_it() -> None:
    engine, server = connected()
    engine.request(1, block(1), b"12345")
    server.receive_data(engine.data_to_send())
    server.update_settings({SettingCodes.HEADER_TABLE_SIZE: 0})
    engine.receive(server.data_to_send())

    engine.request(3, block(3), b"12345")

    events = server.receive_data(engine.data_to_send())
    (request,) = [event for event in events if isinstance(event, RequestReceived)]
    assert [str(value) for _, value in request.headers] == [value.decode() for _, value in block(3)]


def test_the_window_is_the_smaller_one_of_connection_and_stream() -> None:
    engine, server = connected()
    assert engine.window == 65_535

    engine.request(1, block(1), b"x" * 1000)
    assert engine.window == 64_535

    server.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 100})
    engine.receive(server.data_to_send())
    assert engine.window == 100


def test_error_codes_are_named_and_unknown_ones_numbered() -> None:
    assert (error_name(0xB), error_name(0xFF)) == ("ENHANCE_YOUR_CALM", "255")
