"""HTTP/1.1 of the simulated EAS server: whole requests are answered at once, and Pings are held without a task."""

import asyncio
from collections.abc import Mapping
from email.utils import format_datetime
from functools import lru_cache
from http import HTTPStatus
from ssl import SSLObject
from typing import Final, cast

from relay.process.clock import now
from relay.sandbox.eas.answers import Answer, EasAnswers, Holding, Slow
from relay.sandbox.eas.holds import HeldPing
from relay.sandbox.eas.messages import HttpVersion, NoAnswer, Request, make_request
from relay.sandbox.eas.requests import REQUESTS_KEPT
from relay.sandbox.request_head import join

KEEP_IDLE: Final = 120.0  # seconds, the default of IIS; longer than clients keep a connection
LARGEST_HEAD: Final = 65_536  # bytes
LARGEST_BODY: Final = 1_048_576  # bytes
REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
INFORMATIONAL: Final = 200  # statuses below have no body, and so no length
NAMES_KEPT: Final = 256  # orders of names: a client has one for each kind of request
HEADS_KEPT: Final = 256  # heads of answers: those of one size to the same command are mostly alike


class Http1Side:
    """The connections that speak HTTP/1.1."""

    def __init__(self, answers: EasAnswers) -> None:
        """Answer requests by `answers`."""
        self.answers = answers
        self.connections: set[Http1Connection] = set()
        self._second = -1
        self._date = b""

    def accept(self) -> "Http1Connection":
        """Return the protocol of a new connection."""
        return Http1Connection(self)

    def __len__(self) -> int:
        """Return the number of open connections."""
        return len(self.connections)

    async def close(self, seconds: float) -> None:
        """Close all connections; requests in flight have some seconds to end."""
        for connection in list(self.connections):
            connection.close()
        ended = [connection.lost for connection in self.connections]
        if ended:
            await asyncio.wait(ended, timeout=seconds)
        self.drop()

    def drop(self) -> None:
        """Cut all connections."""
        for connection in list(self.connections):
            connection.cut()

    def date(self) -> bytes:
        """Return the header Date of an answer that is sent now, which is the same for a second."""
        second = int(asyncio.get_running_loop().time())
        if second != self._second:
            self._second = second
            self._date = f"Date: {format_datetime(now(), usegmt=True)}\r\n".encode()
        return self._date


class Http1Connection(asyncio.Protocol):
    """The server's side of one connection, which answers one request after the other."""

    __slots__ = (
        "_answers",
        "_closing",
        "_continued",
        "_held",
        "_idle",
        "_loop",
        "_received",
        "_rested_at",
        "_serving",
        "_side",
        "_tls",
        "lost",
        "transport",
    )

    def __init__(self, side: Http1Side) -> None:
        self._side = side
        self._answers = side.answers
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._held: HeldPing | None = None
        self._serving: asyncio.Task[None] | None = None
        self._rested_at = self._loop.time()
        """Since when the client may send its next request."""
        self._idle: asyncio.TimerHandle | None = None
        self._continued = False
        """Whether the client that waits with its body was told to send it."""
        self._closing = False
        """Whether the connection ends with the answer to the request that is served now."""
        self._tls: SSLObject | None = None
        self.transport: asyncio.Transport | None = None
        """None: not open."""
        self.lost: asyncio.Future[None] = self._loop.create_future()
        """Done when the connection is closed."""

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        self.transport = cast("asyncio.Transport", transport)
        self._tls = transport.get_extra_info("ssl_object")
        self._side.connections.add(self)
        self._idle = self._loop.call_later(KEEP_IDLE, self._check_idle)

    def connection_lost(self, _: Exception | None) -> None:
        """Give up the request in flight: the end of a connection ends its Ping."""
        self._side.connections.discard(self)
        self.transport = None
        if self._idle is not None:
            self._idle.cancel()
        held, self._held = self._held, None
        if held is not None:
            self._answers.simulator.pings.give_up(held)
        if self._serving is not None:
            self._serving.cancel()
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Serve the next request when it is here as a whole."""
        self._received += data
        if not self.busy:
            self._next()
        elif len(self._received) > LARGEST_HEAD + LARGEST_BODY:
            self.cut()

    # Called by the simulator.

    @property
    def busy(self) -> bool:
        """Whether a request is being served."""
        return self._held is not None or self._serving is not None

    def cut(self) -> None:
        """Abort the connection."""
        if self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        """Close the connection, after the answer to a request that is being served."""
        self._closing = True
        if self.transport is not None and not self.busy:
            self.transport.close()

    # Requests.

    def _next(self) -> None:
        """Serve requests until one is not here as a whole, or is not answered at once."""
        while self.transport is not None and not self.busy and self._received:
            head, end, rest = self._received.partition(b"\r\n\r\n")
            if not end:
                if len(head) > LARGEST_HEAD:
                    self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                return
            try:
                method, target, headers = _read_head(head)
                body = _read_body(headers, rest)
            except _Malformed as error:
                self._refuse(error.status)
                return
            if body is None:
                if not self._continued and headers.get("expect", "").lower() == "100-continue":
                    self._continued = True
                    self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            self._continued = False
            content, used = body
            self._received = rest[used:]
            self._closing = self._closing or "close" in headers.get("connection", "").lower()
            self._serve(make_request(method, target, headers, content, self, HttpVersion.HTTP_1_1, self._tls))

    def _serve(self, request: Request) -> None:
        """Answer one request, or hold its Ping, or start the task that answers it."""
        begun = self._answers.take(request)
        if isinstance(begun, Holding):
            self._held = self._answers.hold(begun, self._answer)
        elif isinstance(begun, Slow):
            self._serving = self._loop.create_task(self._finish(begun))
        else:
            self._answer(begun)

    async def _finish(self, slow: Slow) -> None:
        answer = await slow.work()
        self._serving = None
        if isinstance(answer, Holding):
            self._held = self._answers.hold(answer, self._answer)
        else:
            self._answer(answer)
            self._next()

    # Answers.

    def _answer(self, answer: Answer) -> None:
        """Write an answer, or cut the connection."""
        was_held, self._held = self._held is not None, None
        if self.transport is None:
            return
        if isinstance(answer, NoAnswer):
            self.cut()
            return
        self._write(answer.status, answer.headers, answer.body)
        self._answers.sent(answer)
        if self._closing or self._answers.simulator.rules.personality.closes:
            self.transport.close()
            return
        self._rested_at = self._loop.time()
        if was_held:
            self._next()

    def _write(self, status: int, headers: tuple[tuple[str, str], ...], body: bytes) -> None:
        if self.transport is not None:
            head = _write_head(status, headers, len(body), self._closing)
            self.transport.write(b"".join((head, self._side.date(), b"\r\n", body)))

    def _refuse(self, status: HTTPStatus) -> None:
        """Refuse what is no request, and close."""
        self._closing = True
        self._write(status, (), b"")
        self.close()

    def _check_idle(self) -> None:
        """Close after a rest of KEEP_IDLE; one timer for all rests costs a request nothing."""
        left = KEEP_IDLE if self.busy else self._rested_at + KEEP_IDLE - self._loop.time()
        if left > 0:
            self._idle = self._loop.call_later(left, self._check_idle)
        else:
            self.close()


class _Malformed(Exception):
    """What came is no request."""

    def __init__(self, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(status)
        self.status = status


@lru_cache(REQUESTS_KEPT)
def _read_head(head: bytes) -> tuple[str, str, Mapping[str, str]]:
    """Return method, target and headers of a request; raises _Malformed."""
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):  # noqa: PLR2004 -- method, target, version
        raise _Malformed
    fields = [line.partition(":") for line in lines]
    if parts[2] == "HTTP/1.0":
        fields.append(("connection", ":", "close"))
    names = _read_names(tuple([field[:2] for field in fields]))
    return parts[0], parts[1], join(names, [field[2].strip() for field in fields])


@lru_cache(NAMES_KEPT)
def _read_names(names: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """Return the names of headers in lower case; raises _Malformed unless each has its colon."""
    for name, colon in names:
        if not colon or not name or name != name.strip():
            raise _Malformed
    return tuple(name.lower() for name, _ in names)


@lru_cache(HEADS_KEPT)
def _write_head(status: int, headers: tuple[tuple[str, str], ...], size: int, closing: bool) -> bytes:
    """Return the head of an answer, without Date."""
    lines = [f"HTTP/1.1 {int(status)} {REASONS.get(status, 'Unknown')}\r\n"]
    lines += [f"{name}: {value}\r\n" for name, value in headers]
    if status >= INFORMATIONAL and status != HTTPStatus.NO_CONTENT:
        lines.append(f"Content-Length: {size}\r\n")
    if closing:
        lines.append("Connection: close\r\n")
    return "".join(lines).encode("latin-1", "replace")


def _read_body(headers: Mapping[str, str], rest: bytes) -> tuple[bytes, int] | None:
    """Return the body of a request, and how many bytes it takes of `rest`; None: not all is here. Raises _Malformed."""
    if "transfer-encoding" in headers:
        if headers["transfer-encoding"].lower() != "chunked":
            raise _Malformed(HTTPStatus.NOT_IMPLEMENTED)
        return _read_chunks(rest)
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise _Malformed
    size = int(length)
    if size > LARGEST_BODY:
        raise _Malformed(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    return (rest[:size], size) if len(rest) >= size else None


def _read_chunks(rest: bytes) -> tuple[bytes, int] | None:
    """Return a body in chunks, and how many bytes it takes; None: not all is here. Raises _Malformed."""
    body, at = b"", 0
    while True:
        end = rest.find(b"\r\n", at)
        if end < 0:
            return None
        try:
            size = int(rest[at:end].partition(b";")[0], 16)
        except ValueError as error:
            raise _Malformed from error
        if not 0 <= size <= LARGEST_BODY - len(body):
            raise _Malformed(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        at = end + 2 + size + 2
        if len(rest) < at:
            return None
        body += rest[end + 2 : end + 2 + size]
        if size == 0:
            return body, at
