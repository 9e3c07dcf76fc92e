"""What goes out under the server's flow control: requests, and the bodies that have to wait [RFC 9113 5.2, 6.9]."""

from typing import Final

from eas_watcher.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_SIZE,
    HEAD,
    HEADERS,
    LARGEST_WINDOW,
    WINDOW,
    frame,
    header_frames,
)
from eas_watcher.http2.violations import ErrorCode, Violation

TOO_WIDE: Final = "a window larger than HTTP/2 has"


class _Unsent:
    """The rest of a body, and the octets of it that its stream may send."""

    __slots__ = ("body", "window")

    def __init__(self, body: bytes, window: int) -> None:
        self.body = body
        self.window = window


class Outflow:
    """The windows of one server. Only streams with an unsent rest are kept: no others need a window."""

    __slots__ = ("_frame_size", "_initial", "_out", "unsent", "window")

    def __init__(self, out: list[bytes]) -> None:
        """Append frames to `out`."""
        self._out = out
        self.window = WINDOW
        """The octets of bodies that the server takes now, on the connection."""
        self._initial = WINDOW
        self._frame_size = FRAME_SIZE
        self.unsent: dict[int, _Unsent] = {}
        """The bodies that have not gone out whole, by stream."""

    @property
    def room(self) -> int:
        """The octets of body that a new stream may send at once."""
        return min(self.window, self._initial)

    def request(self, stream_id: int, block: bytes, body: bytes) -> None:
        """Write a request; what does not fit of its body follows later."""
        length = len(body)
        fits = length <= self.window and length <= self._initial and length <= self._frame_size
        if fits and len(block) <= self._frame_size:
            head = len(block) << 8 | HEADERS
            if length:
                self.window -= length
                self._out += (
                    HEAD.pack(head, END_HEADERS, stream_id),
                    block,
                    HEAD.pack(length << 8 | DATA, END_STREAM, stream_id),
                    body,
                )
            else:
                self._out += (HEAD.pack(head, END_HEADERS | END_STREAM, stream_id), block)
            return
        self._out.append(header_frames(stream_id, block, self._frame_size, end=not length))
        if length:
            self.unsent[stream_id] = _Unsent(body, self._initial)
            self._send(stream_id)

    def forget(self, stream_id: int) -> None:
        """Send no more of a body."""
        self.unsent.pop(stream_id, None)

    def adopt(self, initial: int | None, frame_size: int | None) -> None:
        """Adopt settings of the server, each if it was given; raises Violation."""
        if frame_size is not None:
            self._frame_size = frame_size
        if initial is not None:
            grown, self._initial = initial - self._initial, initial
            for unsent in self.unsent.values():
                unsent.window = _widened(unsent.window, grown)

    def widen(self, octets: int) -> None:
        """Let so many octets more go out on the connection; raises Violation."""
        self.window = _widened(self.window, _positive(octets))
        self.send()

    def widen_stream(self, stream_id: int, octets: int) -> None:
        """Let so many octets more go out on a stream; raises Violation. One that has sent its body needs none."""
        _positive(octets)
        unsent = self.unsent.get(stream_id)
        if unsent is not None:
            unsent.window = _widened(unsent.window, octets)
            self._send(stream_id)

    def send(self) -> None:
        """Write what may go out now, oldest stream first."""
        for stream_id in list(self.unsent):
            self._send(stream_id)

    def _send(self, stream_id: int) -> None:
        unsent = self.unsent[stream_id]
        while unsent.body:
            size = min(self.window, unsent.window, self._frame_size)
            if size <= 0:
                return
            piece, unsent.body = unsent.body[:size], unsent.body[size:]
            self.window -= len(piece)
            unsent.window -= len(piece)
            self._out.append(frame(DATA, 0 if unsent.body else END_STREAM, stream_id, piece))
        del self.unsent[stream_id]


def _positive(octets: int) -> int:
    if not octets:
        raise Violation(ErrorCode.PROTOCOL_ERROR, "a window that grows by nothing")
    return octets


def _widened(window: int, octets: int) -> int:
    if window + octets > LARGEST_WINDOW:
        raise Violation(ErrorCode.FLOW_CONTROL_ERROR, TOO_WIDE)
    return window + octets
