"""The streams of one connection to APNs: which request may open one when, and how each request gets its answer.

A request opens a stream only if the server allows one more and flow control has room for the whole body.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from aioapns.common import NotificationResult
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import NoAvailableStreamIDError

from relay.push.apns.answers import read_body
from relay.push.apns.exchange import Answer, Ending, MaybeSent, NotSent
from relay.push.apns.h2_engine import Engine, error_name

BODY_LIMIT: Final = 65_536
"""Bytes of an answer that are kept; Apple's have less than a hundred."""


class StreamSlots:
    """The slots for streams, given out in order: first come, first served."""

    def __init__(self, limit: int, ceiling: int, window: Callable[[], int]) -> None:
        """Begin with `limit` streams at once, never more than `ceiling`; `window` returns the bytes that may go out."""
        self._ceiling = ceiling
        self._window = window
        self._limit = min(limit, ceiling)
        self._used = 0
        self._reserved = 0  # bytes of requests that were admitted and have not sent their bodies yet
        self._paused = False
        self._next = 1
        self._waiters: deque[tuple[asyncio.Future[None], int]] = deque()
        self._end: Exception | None = None

    @property
    def limit(self) -> int:
        """The number of streams that may be open; a new value counts at once, however many are open."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = min(limit, self._ceiling)
        self.admit()

    @property
    def paused(self) -> bool:
        """True while no request is admitted because the socket accepts no more bytes."""
        return self._paused

    @paused.setter
    def paused(self, paused: bool) -> None:
        self._paused = paused
        self.admit()

    async def acquire(self, size: int = 0) -> int:
        """Wait for a free stream with room for a body of so many bytes; return its id, to be used without waiting.

        Raises the error that `close` was given.
        """
        if self._end is None:
            if self._waiters or not self._fits(size):
                await self._wait(size)
            else:
                self._used += 1
        if self._end is not None:
            raise self._end.with_traceback(None)
        stream_id = self._next
        if stream_id > H2Connection.HIGHEST_ALLOWED_STREAM_ID:
            raise NoAvailableStreamIDError
        self._next += 2
        return stream_id

    def release(self) -> None:
        """Free the slot of a stream that has ended."""
        self._used -= 1
        if self._waiters:
            self.admit()

    def close(self, error: Exception) -> None:
        """Raise this error to all requests that wait, and to all that come later."""
        self._end = self._end or error
        while self._waiters:
            waiter, size = self._waiters.popleft()
            self._admit(waiter, size)

    def admit(self) -> None:
        """Admit the requests at the head of the queue that now fit."""
        while self._waiters:
            waiter, size = self._waiters[0]
            if not waiter.done():
                if not self._fits(size):
                    return
                self._admit(waiter, size)
            self._waiters.popleft()

    def _fits(self, size: int) -> bool:
        return self._used < self._limit and not self._paused and self._window() - self._reserved >= size

    def _admit(self, waiter: "asyncio.Future[None]", size: int) -> None:
        if not waiter.done():
            self._used += 1
            self._reserved += size
            waiter.set_result(None)

    async def _wait(self, size: int) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((waiter, size))
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._reserved -= size
                self.release()
            self.admit()  # the next request in the queue may need less room
            raise
        self._reserved -= size


class PendingAnswer:
    """One answer, put together frame by frame for the request that awaits `future`."""

    __slots__ = ("_authorization", "_body", "_id", "_retry_after", "_status", "future")

    def __init__(self, future: "asyncio.Future[Answer]", notification_id: str, authorization: str) -> None:
        self.future = future
        self._id = notification_id
        self._authorization = authorization
        self._status = ""
        self._retry_after = ""
        self._body = b""

    def add_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Read the headers of the answer."""
        for name, value in headers:
            if name == b":status":
                self._status = value.decode("ascii", "replace")
            elif name == b"retry-after":
                self._retry_after = value.decode("ascii", "replace")

    def add_data(self, data: bytes) -> None:
        """Keep a piece of the body, up to the limit."""
        if len(self._body) < BODY_LIMIT:
            self._body += data

    def finish(self) -> None:
        """Give the answer, now complete, to the request unless it was cancelled."""
        if not self.future.done():
            reason, timestamp = read_body(self._body) if self._body else ("", None)
            result = NotificationResult(self._id, self._status, reason, timestamp)
            self.future.set_result(Answer(result, self._retry_after, self._authorization))

    def fail(self, error: NotSent | MaybeSent) -> None:
        """Raise an error to the request unless it was cancelled."""
        if not self.future.done():
            self.future.set_exception(error)


class InFlight:
    """The requests that wait for their answers, by stream."""

    def __init__(self, engine: Engine, slots: StreamSlots) -> None:
        self._engine = engine
        self._slots = slots
        self._pending: dict[int, PendingAnswer] = {}
        self.answered = False
        """True once any answer has come."""

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self._pending)

    def __contains__(self, stream_id: object) -> bool:
        """Return True if a request waits for the answer on this stream."""
        return stream_id in self._pending

    def add(self, stream_id: int, pending: PendingAnswer) -> None:
        """Add a request that was sent."""
        self._pending[stream_id] = pending

    def handle(self, event: Event) -> None:
        """Pass what came on a stream to its request; events of other kinds change nothing."""
        match event:
            case ResponseReceived(stream_id=int(stream_id), headers=headers):
                pending = self._pending.get(stream_id)
                if pending is not None:
                    pending.add_headers(headers)
            case DataReceived(stream_id=int(stream_id), data=bytes(data), flow_controlled_length=int(length)):
                self._engine.give_back(length, stream_id)
                pending = self._pending.get(stream_id)
                if pending is not None:
                    pending.add_data(data)
            case StreamEnded(stream_id=int(stream_id)):
                self.answered = True
                pending = self.end(stream_id)
                if pending is not None:
                    pending.finish()
            case StreamReset(stream_id=int(stream_id), error_code=ErrorCodes.REFUSED_STREAM):
                self._fail(stream_id, NotSent(Ending.STREAM_REFUSED))
            case StreamReset(stream_id=int(stream_id), error_code=int(code)):
                self._fail(stream_id, MaybeSent(Ending.STREAM_RESET, error_name(code)))
            case _:
                pass

    def end(self, stream_id: int) -> PendingAnswer | None:
        """Remove a request and free its slot; return it, or None if it was removed before."""
        pending = self._pending.pop(stream_id, None)
        if pending is not None:
            self._slots.release()
        return pending

    def fail(self, error: type[NotSent | MaybeSent], ending: Ending, detail: str = "", beyond: int = 0) -> None:
        """Raise an error to all requests on later streams than `beyond`."""
        for stream_id in [stream_id for stream_id in self._pending if stream_id > beyond]:
            self._fail(stream_id, error(ending, detail))

    def _fail(self, stream_id: int, error: NotSent | MaybeSent) -> None:
        pending = self.end(stream_id)
        if pending is not None:
            pending.fail(error)
