"""The client with a server that others wrote: the library h2, in memory."""

from itertools import pairwise
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, RequestReceived, SettingsAcknowledged, StreamEnded, StreamReset
from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st

from eas_watcher.http2.client import Http2Client
from eas_watcher.http2.events import Answered, Failed, GoneAway
from eas_watcher.http2.events import Event as ClientEvent
from eas_watcher.http2.header_block import header_block
from eas_watcher.http2.limits import Limits

HEADERS = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"mail.example"), (b":path", b"/a?b=c")]
BLOCK = header_block([*HEADERS, (b"authorization", b"Basic secret"), (b"x-long", b"v" * 40_000)])
SHORT = header_block(HEADERS)


class Server:
    """h2 as the server of one client; it answers each request with its own headers and body."""

    def __init__(self, limits: Limits = Limits(), window: int = 65_535) -> None:  # noqa: B008 -- frozen
        self.client: Http2Client[int] = Http2Client(0.0, limits)
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self.h2.initiate_connection()
        self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.bodies: dict[int, bytes] = {}
        self.seen: list[Event] = []
        self.events: list[ClientEvent[int]] = []

    def exchange(self, answer: bool = True) -> None:
        """Pass bytes between both until none is left; answer whole requests."""
        while True:
            written = self.client.take()
            for event in self.h2.receive_data(written):
                self._handle(event, answer=answer)
            reply = self.h2.data_to_send()
            if not written and not reply:
                return
            self.events += self.client.receive(reply, 0.0)

    def _handle(self, event: Event, *, answer: bool) -> None:
        self.seen.append(event)
        match event:
            case RequestReceived(stream_id=int(stream_id)):
                self.bodies[stream_id] = b""
            case DataReceived(stream_id=int(stream_id), data=bytes(data), flow_controlled_length=int(length)):
                self.bodies[stream_id] += data
                self.h2.acknowledge_received_data(length, stream_id)
            case StreamEnded(stream_id=int(stream_id)) if answer:
                self.answer(stream_id)
            case _:
                pass

    def answer(self, stream_id: int) -> None:
        body = self.bodies[stream_id][: self.h2.local_flow_control_window(stream_id)]
        self.h2.send_headers(stream_id, [(b":status", b"200"), (b"server", b"h2"), (b"x-size", b"%d" % len(body))])
        for at in range(0, len(body), 1000):
            self.h2.send_data(stream_id, body[at : at + 1000])
        self.h2.end_stream(stream_id)


def test_requests_and_answers_of_every_size() -> None:
    server = Server(window=1000)
    bodies = [b"", b"small", bytes(50_000), bytes(70_000)]
    for number, body in enumerate(bodies):
        server.client.request(BLOCK, body, number)
        server.exchange()

    answers = [event for event in server.events if isinstance(event, Answered)]
    assert list(server.bodies.values()) == bodies
    assert [(answer.owner, answer.status) for answer in answers] == [(0, 200), (1, 200), (2, 200), (3, 200)]
    assert answers[1].body == b"small"
    assert answers[1].headers == ((b"server", b"h2"), (b"x-size", b"5"))
    requests = [event for event in server.seen if isinstance(event, RequestReceived)]
    assert requests[0].headers[:4] == HEADERS
    assert any(isinstance(event, SettingsAcknowledged) for event in server.seen)
    assert server.h2.remote_settings.header_table_size == 0


def test_many_streams_at_once_keep_their_answers() -> None:
    server = Server()
    for number in range(100):
        server.client.request(SHORT, b"%d" % number, number)
    server.exchange(answer=False)
    for stream_id in sorted(server.bodies, reverse=True):
        server.answer(stream_id)
    server.exchange()

    answers = [event for event in server.events if isinstance(event, Answered)]
    assert [(answer.owner, answer.body) for answer in answers] == [(n, b"%d" % n) for n in reversed(range(100))]


def test_more_than_the_connections_window_comes_through() -> None:
    server = Server(Limits(window=65_535))
    for number in range(20):
        server.client.request(BLOCK, bytes(10_000), number)
        server.exchange()

    assert sum(len(event.body) for event in server.events if isinstance(event, Answered)) == 200_000


def test_resets_both_ways_and_a_goaway() -> None:
    server = Server()
    for number in range(4):
        server.client.request(BLOCK, b"", number)
    server.exchange(answer=False)
    server.client.reset(1)
    server.h2.reset_stream(3, ErrorCodes.REFUSED_STREAM)
    server.exchange(answer=False)
    assert any(isinstance(event, StreamReset) and event.stream_id == 1 for event in server.seen)
    server.h2.close_connection(last_stream_id=5)
    server.events += server.client.receive(server.h2.data_to_send(), 0.0)

    assert server.events[2:] == [
        Failed(3, 1, 7, "", unprocessed=True),
        GoneAway(0, 5),
        Failed(7, 3, 7, "", unprocessed=True),
    ]


def recording() -> tuple[bytes, list[ClientEvent[Any]]]:
    """Return what a server sent in one conversation, and what it means when it comes in one piece."""
    server = Server()
    sent = b""
    for number in range(3):
        server.client.request(BLOCK, b"body" * number, number)
    for event in server.h2.receive_data(server.client.take()):
        server._handle(event, answer=True)
    server.h2.ping(b"12345678")
    sent = server.h2.data_to_send()
    return sent, server.client.receive(sent, 0.0)


SENT, MEANT = recording()


@given(st.lists(st.integers(1, len(SENT) - 1), max_size=20))
@settings(max_examples=30)
def test_a_stream_of_bytes_means_the_same_wherever_it_is_cut(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(SENT)]
    assert replay([SENT[start:end] for start, end in pairwise(places)]) == MEANT


def test_a_stream_of_bytes_means_the_same_octet_by_octet() -> None:
    assert replay([SENT[at : at + 1] for at in range(len(SENT))]) == MEANT
    for cut in range(0, len(SENT), 7):
        assert replay([SENT[:cut], SENT[cut:]]) == MEANT


@given(st.binary(max_size=200), st.integers(0, len(SENT)))
@settings(max_examples=50)
def test_nothing_that_a_server_sends_raises(noise: bytes, at: int) -> None:
    replay([SENT[:at] + noise + SENT[at:]])


def replay(pieces: list[bytes]) -> list[ClientEvent[Any]]:
    client: Http2Client[int] = Http2Client(0.0)
    for number in range(3):
        client.request(BLOCK, b"body" * number, number)
    return [event for piece in pieces for event in client.receive(piece, 0.0)]
