import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived
from h2.exceptions import FrameTooLargeError
from h2.settings import SettingCodes
from hpack import Decoder
from hyperframe.frame import DataFrame, GoAwayFrame, PingFrame, SettingsFrame
from hypothesis import given
from hypothesis import strategies as st

from relay.push.apns.h2_engine import FRAME_LIMIT, Engine, Farewell, Farewells, Shorthand, error_name

GRACEFUL = GoAwayFrame(0, last_stream_id=7, error_code=0, additional_data=b'{"reason":"Shutdown"}').serialize()
ANGRY = GoAwayFrame(0, last_stream_id=9, error_code=2).serialize()
OTHERS = [
    SettingsFrame(0, {3: 1}).serialize(),
    PingFrame(0, b"12345678").serialize(),
    DataFrame(1, b"x" * 300).serialize(),
]
TOKEN = "bearer " + "x" * 180


@given(st.lists(st.sampled_from([GRACEFUL, ANGRY, *OTHERS])), st.data())
def test_farewells_are_taken_out_however_the_bytes_come(frames: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    sieve, kept, farewells = Farewells(), b"", []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        some, last = sieve.sift(stream[start:end])
        kept += some
        farewells += last

    said = {GRACEFUL: Farewell(7, 0), ANGRY: Farewell(9, 2)}
    assert kept == b"".join(frame for frame in frames if frame not in said)
    assert farewells == [said[frame] for frame in frames if frame in said]


def test_a_frame_longer_than_allowed_is_refused_before_it_came() -> None:
    oversized = (FRAME_LIMIT + 1).to_bytes(3) + b"\x00" * 6

    with pytest.raises(FrameTooLargeError):
        Farewells().sift(OTHERS[0] + oversized)


def test_only_a_farewell_without_an_error_is_graceful() -> None:
    assert [Farewell(1, code).graceful for code in (0, 2)] == [True, False]


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
            st.sampled_from([None, None, 0, 100, 4096]),
        )
    )
)
def test_a_peer_reads_what_was_written_whatever_came_before(
    requests: list[tuple[int, str, str, int, int | None]],
) -> None:
    encoder, decoder = Shorthand(), Decoder()
    for number, topic, token, path, size in requests:
        if size is not None:
            encoder.header_table_size = size
            decoder.max_allowed_table_size = size
        fields = block(number, topic, token, path)
        assert [tuple(field) for field in decoder.decode(encoder.encode(fields), raw=True)] == fields


def test_what_all_requests_share_takes_a_byte_each_from_the_second_on() -> None:
    encoder = Shorthand()
    first, second, third = (len(encoder.encode(block(number))) for number in (1, 2, 3))

    unique = sum(len(value) for name, value in block(2) if name in {b":path", b"apns-id", b"apns-collapse-id"})
    assert first > second + len(TOKEN)
    assert second == third
    assert second < unique + 70


def test_what_differs_in_each_request_never_enters_the_table() -> None:
    encoder = Shorthand()
    encoder.encode(block(1))
    entries = len(encoder.header_table.dynamic_entries)
    for number in range(2, 100):
        encoder.encode(block(number))

    assert len(encoder.header_table.dynamic_entries) == entries


def connected() -> tuple[Engine, H2Connection]:
    """Make an engine and a server that have greeted each other."""
    engine = Engine()
    server = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
    engine.initiate_connection()
    server.initiate_connection()
    for _ in range(2):
        server.receive_data(engine.data_to_send())
        engine.receive_data(server.data_to_send())
    return engine, server


def test_a_server_understands_the_engine_and_ended_streams_are_forgotten() -> None:
    engine, server = connected()
    events: list[Event] = []
    for number in range(1, 5001, 2):
        engine.request(number, block(number), b"12345")
        events += server.receive_data(engine.data_to_send())
        server.acknowledge_received_data(5, number)
        server.send_headers(number, [(":status", "200")], end_stream=True)
        engine.receive_data(server.data_to_send())
        engine.forget(number)

    assert not engine.streams
    assert len(engine._closed_streams) == Engine.MAX_CLOSED_STREAMS
    requests = [event for event in events if isinstance(event, RequestReceived)]
    assert "com.example.mail" in [str(value) for _, value in requests[-1].headers]
    assert len(requests) == len([event for event in events if isinstance(event, DataReceived)]) == 2500


def test_an_answer_to_a_stream_that_was_reset_harms_nobody() -> None:
    engine, server = connected()
    engine.request(1, block(1), b"12345")
    server.receive_data(engine.data_to_send())
    server.send_headers(1, [(":status", "400")])
    server.send_data(1, b'{"reason": "BadDeviceToken"}', end_stream=True)

    engine.reset_stream(1, 8)
    engine.forget(1)
    engine.forget(1)

    assert [type(event) for event in engine.receive_data(server.data_to_send())] == []
    assert not engine.streams


def test_room_is_what_connection_and_stream_leave() -> None:
    engine, server = connected()
    assert engine.room == 65_535

    engine.request(1, block(1), b"x" * 1000)
    assert engine.room == 64_535

    server.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 100})
    engine.receive_data(server.data_to_send())
    assert engine.room == 100


def test_error_codes_are_named_and_unknown_ones_numbered() -> None:
    assert (error_name(0xB), error_name(0xFF)) == ("ENHANCE_YOUR_CALM", "255")
