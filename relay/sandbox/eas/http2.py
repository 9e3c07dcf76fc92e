"""HTTP/2 of the simulated EAS server, by h2, which is strict: a client that breaks the protocol loses its connection.

A held Ping is a stream id and a HeldPing. There is a task only for requests that fail by a script or wait for a worker.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from functools import partial
from ssl import SSLObject
from typing import Any, Final, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    PingReceived,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from relay.sandbox.eas.answers import Answer, EasAnswers, Holding
from relay.sandbox.eas.holds import HeldPing
from relay.sandbox.eas.messages import Fields, HttpVersion, NoAnswer, Request
from relay.sandbox.eas.requests import read_command

STREAMS: Final = 100
"""The number of concurrent streams [Http.sys: Http2MaxConcurrentClientStreams]."""
HEADERS_LIMIT: Final = 65_536  # octets
LAST_STREAM: Final = 2**31 - 1
"""The stream id in a graceful GOAWAY: all streams are still processed [RFC 9113 6.8]."""
CONNECTION_HEADERS: Final = frozenset({"connection", "keep-alive", "transfer-encoding"})
"""Headers that HTTP/2 does not have [RFC 9113 8.2.2]."""


class Http2Side:
    """The connections that speak HTTP/2."""

    def __init__(self, answers: EasAnswers) -> None:
        """Answer requests by `answers`."""
        self.answers = answers
        self.connections: set[Http2Connection] = set()
        """The open ones."""
        self.accepted = 0
        """The number of connections, closed ones included."""
        self.resets = 0
        """The number of streams that clients have reset."""
        self.violations = 0
        """The number of connections that ended because the client broke the protocol."""
        self.pings = 0
        """The number of PINGs received."""
        self.streams = STREAMS
        """The number of concurrent streams that each connection allows."""

    def __len__(self) -> int:
        """Return the number of open connections."""
        return len(self.connections)

    @property
    def held(self) -> int:
        """The number of Pings held now."""
        return sum(self.shares)

    @property
    def shares(self) -> list[int]:
        """How many Pings each connection holds."""
        return [len(connection.held) for connection in self.connections]

    def accept(self) -> "Http2Connection":
        """Return the protocol of a new connection."""
        return Http2Connection(self)

    def limit(self, streams: int) -> None:
        """Announce another number of concurrent streams, on open connections too."""
        self.streams = streams
        for connection in self.connections:
            connection.announce(streams)

    def go_away(self, *, error: int = 0, graceful: bool = True) -> None:
        """Send GOAWAY on all connections; a graceful one lets all streams end, another one none of them."""
        for connection in list(self.connections):
            connection.go_away(error, LAST_STREAM if graceful else 0)

    def reset(self, error: int) -> None:
        """Reset the streams of all held Pings."""
        for connection in list(self.connections):
            connection.reset_held(error)

    def freeze(self) -> None:
        """Neither read nor send on the open connections any more, as a network that drops all packets."""
        for connection in self.connections:
            connection.freeze()

    def drop(self) -> None:
        """Cut all connections."""
        for connection in list(self.connections):
            connection.cut()


class Http2Connection(asyncio.Protocol):
    """The server's side of one connection."""

    def __init__(self, side: Http2Side) -> None:
        self._side = side
        self._answers = side.answers
        config = H2Configuration(
            client_side=False,
            header_encoding="utf-8",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._http = H2Connection(config)
        limits = {
            SettingCodes.MAX_CONCURRENT_STREAMS: side.streams,
            SettingCodes.MAX_HEADER_LIST_SIZE: HEADERS_LIMIT,
        }
        self._http.local_settings = Settings(client=False, initial_values=limits)
        self._arriving: dict[int, tuple[Fields, list[bytes]]] = {}
        """Stream id -> headers and body of a request that is not complete yet."""
        self.held: dict[int, HeldPing] = {}
        """Stream id -> its Ping."""
        self._serving: dict[int, asyncio.Task[None]] = {}
        """Stream id -> the task that answers it."""
        self._blocked: deque[tuple[int, bytes]] = deque()
        """The rest of answers that wait for flow control."""
        self._last = LAST_STREAM
        """The last stream that is processed."""
        self._going_away = False
        self._frozen = False
        """Whether the connection neither reads nor sends any more."""
        self._flushing = False
        self._tls: SSLObject | None = None
        self.transport: asyncio.Transport | None = None
        """None: not open."""

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send SETTINGS."""
        self.transport = cast("asyncio.Transport", transport)
        self._tls = transport.get_extra_info("ssl_object")
        self._side.connections.add(self)
        self._side.accepted += 1
        self._http.initiate_connection()
        self._flush()

    def connection_lost(self, _: Exception | None) -> None:
        """Give up the requests in flight."""
        self._side.connections.discard(self)
        self.transport = None
        held, self.held = self.held, {}
        for ping in held.values():
            self._answers.simulator.pings.give_up(ping)
        serving, self._serving = self._serving, {}
        for task in serving.values():
            task.cancel()
        self._arriving.clear()
        self._blocked.clear()

    def data_received(self, data: bytes) -> None:
        """Process frames; answer a violation of the protocol with GOAWAY and close."""
        if self._frozen:
            return
        try:
            events = self._http.receive_data(data)
        except ProtocolError:
            self._side.violations += 1
            self._flush()
            self.close()
            return
        for event in events:
            if self.transport is None or self._frozen:
                return
            self._process(event)
        self._flush()

    # Called by the simulator.

    def announce(self, streams: int) -> None:
        """Announce another number of concurrent streams."""
        self._http.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: streams})
        self._flush()

    def go_away(self, error: int, last: int) -> None:
        """Send GOAWAY: streams up to `last` are answered, others are not processed; then close."""
        self._flush()
        self._going_away = True
        self._last = min(self._last, last)
        if self.transport is not None and not self._frozen:
            # h2 refuses to send answers after its own GOAWAY, so this one does not pass through h2.
            self.transport.write(GoAwayFrame(0, last_stream_id=self._last, error_code=error).serialize())
        self._close_if_finished()

    def reset_held(self, error: int) -> None:
        """Reset the streams of all held Pings."""
        for stream_id, ping in list(self.held.items()):
            self._answers.simulator.pings.give_up(ping)
            self._answer(stream_id, NoAnswer(error))

    def freeze(self) -> None:
        """Stop reading and sending without closing the connection."""
        self._frozen = True

    def cut(self) -> None:
        """Abort the connection without GOAWAY."""
        if self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        """Close the connection when all that was written is sent."""
        if self.transport is not None:
            self.transport.close()

    # Requests.

    def _process(self, event: Event) -> None:
        match event:
            case RequestReceived(stream_id=int(stream_id), headers=headers) if stream_id <= self._last:
                self._arriving[stream_id] = Fields(headers or ()), []
            case DataReceived(stream_id=int(stream_id), data=bytes(data), flow_controlled_length=int(length)):
                self._http.acknowledge_received_data(length, stream_id)
                if stream_id in self._arriving:
                    self._arriving[stream_id][1].append(data)
            case StreamEnded(stream_id=int(stream_id)) if stream_id in self._arriving:
                self._serve(stream_id)
            case StreamReset(stream_id=int(stream_id)):
                self._side.resets += 1
                self._give_up(stream_id)
            case WindowUpdated():
                self._send_blocked()
            case PingReceived():
                self._side.pings += 1
            case _:
                pass

    def _give_up(self, stream_id: int) -> None:
        """Take note that the client has reset a stream."""
        self._arriving.pop(stream_id, None)
        ping = self.held.pop(stream_id, None)
        if ping is not None:
            self._answers.simulator.pings.give_up(ping)
        task = self._serving.pop(stream_id, None)
        if task is not None:
            task.cancel()
        self._close_if_finished()

    def _serve(self, stream_id: int) -> None:
        """Answer one request, or hold its Ping, or start the task that answers it."""
        fields, body = self._arriving.pop(stream_id)
        path, _, query = fields[":path"].partition("?")
        request = Request(
            method=fields[":method"],
            path=path,
            query=query,
            headers=fields,
            body=b"".join(body),
            connection=self,
            version=HttpVersion.HTTP_2,
            tls=self._tls,
        )
        simulator = self._answers.simulator
        if simulator.workers.number is not None:
            self._start(stream_id, self._answers.in_turn(request))
        elif read_command(query) == "Ping":  # HeldPings counts them
            self._begin(stream_id, request)
        else:
            with simulator.records.answering():
                self._begin(stream_id, request)

    def _begin(self, stream_id: int, request: Request) -> None:
        begun = self._answers.begin(request)
        if isinstance(begun, Holding):
            self._hold(stream_id, begun)
        elif isinstance(begun, Coroutine):
            self._start(stream_id, begun)
        else:
            self._answer(stream_id, begun)

    def _hold(self, stream_id: int, holding: Holding) -> None:
        self.held[stream_id] = self._answers.hold(holding, partial(self._answer, stream_id))

    def _start(self, stream_id: int, answering: "Coroutine[Any, Any, Answer | Holding]") -> None:
        task = asyncio.get_running_loop().create_task(self._finish(stream_id, answering))
        self._serving[stream_id] = task

    async def _finish(self, stream_id: int, answering: "Coroutine[Any, Any, Answer | Holding]") -> None:
        answer = await answering
        self._serving.pop(stream_id, None)
        if isinstance(answer, Holding):
            self._hold(stream_id, answer)
        else:
            self._answer(stream_id, answer)

    def _answer(self, stream_id: int, answer: Answer) -> None:
        """Write an answer, or reset the stream."""
        self.held.pop(stream_id, None)
        if self.transport is None or self._frozen:
            return
        try:
            if isinstance(answer, NoAnswer):
                self._http.reset_stream(stream_id, ErrorCodes(answer.error))
            else:
                headers = [(":status", str(int(answer.status)))]
                headers += ((name.lower(), value) for name, value in answer.headers)
                headers = [pair for pair in headers if pair[0] not in CONNECTION_HEADERS]
                headers.append(("content-length", str(len(answer.body))))
                self._http.send_headers(stream_id, headers, end_stream=not answer.body)
                if answer.body:
                    self._blocked.append((stream_id, answer.body))
                    self._send_blocked()
                self._answers.sent(answer)
        except ProtocolError:
            pass  # the client has reset the stream, or closes the connection, in the same moment
        self._flush_soon()
        self._close_if_finished()

    def _send_blocked(self) -> None:
        """Send what flow control allows of the answers that wait, in turn."""
        for _ in range(len(self._blocked)):
            stream_id, body = self._blocked.popleft()
            try:
                window = self._http.local_flow_control_window(stream_id)
                while body and window > 0:
                    size = min(len(body), window, self._http.max_outbound_frame_size)
                    self._http.send_data(stream_id, body[:size], end_stream=size == len(body))
                    body, window = body[size:], window - size
            except ProtocolError:
                continue  # the client has reset the stream meanwhile
            if body:
                self._blocked.append((stream_id, body))

    def _close_if_finished(self) -> None:
        """Close after GOAWAY when no stream that it lets end is open."""
        if (
            self._going_away
            and not any(
                stream_id <= self._last for open_ in (self.held, self._serving, self._arriving) for stream_id in open_
            )
            and not self._blocked
        ):
            self._flush()
            self.close()

    def _flush_soon(self) -> None:
        """Send once in this turn of the loop, however many streams have answers."""
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self.transport is None or self._frozen or self.transport.is_closing():
            return
        if data := self._http.data_to_send():
            self.transport.write(data)
