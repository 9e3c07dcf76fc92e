"""HTTP/2 of the simulated EAS server, which is strict: a client that breaks the protocol loses its connection.

A held Ping is a stream id and a HeldPing. There is a task only for requests that fail by a script or wait for a worker.
"""

import asyncio
from functools import lru_cache, partial
from ssl import SSLObject
from typing import Final, cast

from hpack import Encoder

from eas_watcher.http2.violations import Violation
from relay.sandbox.eas.answers import Answer, EasAnswers, Holding, Slow
from relay.sandbox.eas.holds import HeldPing
from relay.sandbox.eas.messages import HttpVersion, NoAnswer, make_request
from relay.sandbox.http2_server import Asked, Cancelled, Event, Http2Server, Pinged

STREAMS: Final = 100
"""The number of concurrent streams [Http.sys: Http2MaxConcurrentClientStreams]."""
HEADERS_LIMIT: Final = 65_536  # octets
LAST_STREAM: Final = 2**31 - 1
"""The stream id in a graceful GOAWAY: all streams are still processed [RFC 9113 6.8]."""
CONNECTION_HEADERS: Final = frozenset({"connection", "keep-alive", "transfer-encoding"})
"""Headers that HTTP/2 does not have [RFC 9113 8.2.2]."""
BLOCKS_KEPT: Final = 256
"""Header blocks of answers that are kept: answers of one size to the same command are mostly alike."""


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
        self._http = Http2Server(side.streams, HEADERS_LIMIT, unannounced=side.streams, remembers=True)
        self.held: dict[int, HeldPing] = {}
        """Stream id -> its Ping."""
        self._serving: dict[int, asyncio.Task[None]] = {}
        """Stream id -> the task that answers it."""
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

    def data_received(self, data: bytes) -> None:
        """Process frames; answer a violation of the protocol with GOAWAY and close."""
        if self._frozen:
            return
        try:
            events = self._http.receive(data)
        except Violation:
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
        self._http.announce(streams)
        self._flush()

    def go_away(self, error: int, last: int) -> None:
        """Send GOAWAY: streams up to `last` are answered, others are not processed; then close."""
        self._going_away = True
        self._last = min(self._last, last)
        self._http.go_away(self._last, error)
        self._flush()
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
            case Asked() if event.stream_id <= self._last:
                self._serve(event)
            case Cancelled(stream_id):
                self._side.resets += 1
                self._give_up(stream_id)
            case Pinged():
                self._side.pings += 1
            case _:
                pass

    def _give_up(self, stream_id: int) -> None:
        """Take note that the client has reset a stream."""
        ping = self.held.pop(stream_id, None)
        if ping is not None:
            self._answers.simulator.pings.give_up(ping)
        task = self._serving.pop(stream_id, None)
        if task is not None:
            task.cancel()
        self._close_if_finished()

    def _serve(self, asked: Asked) -> None:
        """Answer one request, or hold its Ping, or start the task that answers it."""
        stream_id, head, body = asked
        request = make_request(head[":method"], head[":path"], head, body, self, HttpVersion.HTTP_2, self._tls)
        begun = self._answers.take(request)
        if isinstance(begun, Holding):
            self._hold(stream_id, begun)
        elif isinstance(begun, Slow):
            self._serving[stream_id] = asyncio.get_running_loop().create_task(self._finish(stream_id, begun))
        else:
            self._answer(stream_id, begun)

    def _hold(self, stream_id: int, holding: Holding) -> None:
        self.held[stream_id] = self._answers.hold(holding, partial(self._answer, stream_id))

    async def _finish(self, stream_id: int, slow: Slow) -> None:
        answer = await slow.work()
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
        if stream_id in self._http:  # else the client has reset the stream in the same moment
            if isinstance(answer, NoAnswer):
                self._http.reset(stream_id, answer.error)
            else:
                block = _block(answer.status, answer.headers, len(answer.body))
                self._http.answer(stream_id, block, (answer.body,) if answer.body else ())
                self._answers.sent(answer)
        self._flush_soon()
        self._close_if_finished()

    def _close_if_finished(self) -> None:
        """Close after GOAWAY when no stream that it lets end is open."""
        if self._going_away and not self._http.busy(self._last):
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
        if data := self._http.take():
            self.transport.write(data)


@lru_cache(BLOCKS_KEPT)
def _block(status: int, headers: tuple[tuple[str, str], ...], size: int) -> bytes:
    """Return the header block of an answer, in Huffman's code; an encoder of its own refers to no table."""
    fields = [(name.lower(), value) for name, value in headers]
    kept = [(name, value) for name, value in fields if name not in CONNECTION_HEADERS]
    return Encoder().encode([(":status", str(int(status))), *kept, ("content-length", str(size))])
