"""HTTP/1.1 of the simulated EAS server: whole requests are answered at once, and Pings are held without a task."""

import asyncio
from collections.abc import Coroutine
from email.utils import format_datetime
from http import HTTPStatus
from ssl import SSLObject
from typing import Any, Final, cast

from relay.process.clock import now
from relay.sandbox.eas.answers import Answer, EasAnswers, Holding
from relay.sandbox.eas.holds import HeldPing
from relay.sandbox.eas.messages import Fields, HttpVersion, NoAnswer, Request
from relay.sandbox.eas.requests import read_command

KEEP_IDLE: Final = 120.0  # seconds, the default of IIS; longer than clients keep a connection
LARGEST_HEAD: Final = 65_536  # bytes
LARGEST_BODY: Final = 1_048_576  # bytes
REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
INFORMATIONAL: Final = 200  # statuses below have no body, and so no length


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
        "_received",
        "_serving",
        "_side",
        "_tls",
        "lost",
        "transport",
    )

    def __init__(self, side: Http1Side) -> None:
        self._side = side
        self._answers = side.answers
        self._received = b""
        self._held: HeldPing | None = None
        self._serving: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._continued = False
        """Whether the client that waits with its body was told to send it."""
        self._closing = False
        """Whether the connection ends with the answer to the request that is served now."""
        self._tls: SSLObject | None = None
        self.transport: asyncio.Transport | None = None
        """None: not open."""
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the connection is closed."""

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        self.transport = cast("asyncio.Transport", transport)
        self._tls = transport.get_extra_info("ssl_object")
        self._side.connections.add(self)
        self._rest()

    def connection_lost(self, _: Exception | None) -> None:
        """Give up the request in flight: the end of a connection ends its Ping."""
        self._side.connections.discard(self)
        self.transport = None
        self._work()
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
                if not self._continued and headers.get("Expect", "").lower() == "100-continue":
                    self._continued = True
                    self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            self._continued = False
            content, used = body
            self._received = rest[used:]
            self._closing = self._closing or "close" in headers.get("Connection", "").lower()
            path, _, query = target.partition("?")
            self._work()
            self._serve(Request(method, path, query, headers, content, self, HttpVersion.HTTP_1_1, self._tls))

    def _serve(self, request: Request) -> None:
        """Answer one request, or hold its Ping, or start the task that answers it."""
        simulator = self._answers.simulator
        if simulator.workers.number is not None:
            self._start(self._counted(request))
        elif read_command(request.query) == "Ping":  # HeldPings counts them
            self._begin(request)
        else:
            with simulator.records.answering():
                self._begin(request)

    async def _counted(self, request: Request) -> Answer:
        if read_command(request.query) == "Ping":
            return await self._answers.in_turn(request)
        with self._answers.simulator.records.answering():
            return await self._answers.in_turn(request)

    def _begin(self, request: Request) -> None:
        begun = self._answers.begin(request)
        if isinstance(begun, Holding):
            self._held = self._answers.hold(begun, self._answer)
        elif isinstance(begun, Coroutine):
            self._start(begun)
        else:
            self._answer(begun)

    def _start(self, answering: "Coroutine[Any, Any, Answer | Holding]") -> None:
        self._serving = asyncio.get_running_loop().create_task(self._finish(answering))

    async def _finish(self, answering: "Coroutine[Any, Any, Answer | Holding]") -> None:
        answer = await answering
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
        self._rest()
        if was_held:
            self._next()

    def _write(self, status: int, headers: tuple[tuple[str, str], ...], body: bytes) -> None:
        lines = [f"HTTP/1.1 {int(status)} {REASONS.get(status, 'Unknown')}\r\n"]
        lines += [f"{name}: {value}\r\n" for name, value in headers]
        if status >= INFORMATIONAL and status != HTTPStatus.NO_CONTENT:
            lines.append(f"Content-Length: {len(body)}\r\n")
        if self._closing:
            lines.append("Connection: close\r\n")
        if self.transport is not None:
            head = "".join(lines).encode("latin-1", "replace")
            self.transport.write(b"".join((head, self._side.date(), b"\r\n", body)))

    def _refuse(self, status: HTTPStatus) -> None:
        """Refuse what is no request, and close."""
        self._closing = True
        self._write(status, (), b"")
        self.close()

    def _rest(self) -> None:
        """Wait for a request, not for ever."""
        self._work()
        self._idle = asyncio.get_running_loop().call_later(KEEP_IDLE, self.close)

    def _work(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None


class _Malformed(Exception):
    """What came is no request."""

    def __init__(self, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(status)
        self.status = status


def _read_head(head: bytes) -> tuple[str, str, Fields]:
    """Return method, target and headers of a request; raises _Malformed."""
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):  # noqa: PLR2004 -- method, target, version
        raise _Malformed
    headers: list[tuple[str, str]] = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise _Malformed
        headers.append((name.lower(), value.strip()))
    if parts[2] == "HTTP/1.0":
        headers.append(("connection", "close"))
    return parts[0], parts[1], Fields(headers)


def _read_body(headers: Fields, rest: bytes) -> tuple[bytes, int] | None:
    """Return the body of a request, and how many bytes it takes of `rest`; None: not all is here. Raises _Malformed."""
    if "Transfer-Encoding" in headers:
        if headers["Transfer-Encoding"].lower() != "chunked":
            raise _Malformed(HTTPStatus.NOT_IMPLEMENTED)
        return _read_chunks(rest)
    length = headers.get("Content-Length", "0")
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
