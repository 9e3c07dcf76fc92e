"""Accepts connections one by one, so that they are counted and paced before anything is done for them.

An event loop's own server accepts all that wait, in one go, and begins their TLS handshakes at once; what it then
hands over has cost the time already, and a file that a Ping may need.
"""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from relay.http.admission import Admission, Pace, Refused

log = logging.getLogger(__name__)

BACKLOG: Final = 1024  # connections that the kernel lets wait
BATCH: Final = 16  # connections accepted before the loop does other things
REFUSAL: Final = 0.05  # cost of a connection closed at once, compared with one that begins: some 20 µs
OUT_OF_FILES: Final = 0.5  # seconds until the next try after the process had no file left
QUIET: Final = 60.0  # seconds between two lines of the log about refused connections

_NO_FILE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Serve = Callable[[socket.socket, Callable[[], None]], Awaitable[None]]
"""Serves an accepted connection; calls the second argument, once or more, when its file is closed."""


class Acceptor:
    """Accepts the connections of one listening socket until it is closed."""

    def __init__(
        self,
        listening: socket.socket,
        serve: Serve,
        admission: Admission,
        *,
        pace: Pace,
        cost: Callable[[], float],
        spare: int,
    ) -> None:
        """Set up with a socket that listens, and does not block.

        A connection that begins costs the `pace` what `cost` returns. `spare` files are kept open, and given to
        connections when the process has no other file left.
        """
        self._listening = listening
        self._serve = serve
        self._admission = admission
        self._pace = pace
        self._cost = cost
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._spare: list[int] = []
        self._spares = spare
        self._pause: asyncio.TimerHandle | None = None
        self._told = -QUIET
        self._keep_spare()
        self._loop.add_reader(listening, self._accept)

    async def close(self) -> None:
        """Stop to accept; end what is in its handshake."""
        if self._pause is None:
            self._loop.remove_reader(self._listening)
        else:
            self._pause.cancel()
        self._listening.close()
        self._spares = 0
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._spare:
            os.close(self._spare.pop())

    def _accept(self) -> None:
        """Accept what waits, as much as the pace allows."""
        spent = False
        for _ in range(BATCH):
            wait = self._pace.wait(self._loop.time())
            if wait > 0:
                self._rest(wait)
                return
            try:
                accepted, peer = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in _NO_FILE:
                    continue  # the client is gone already, or its network is [accept(2)]
                # Without a file accept(2) fails even if nobody waits, so a spare one is used for one connection only.
                if self._spare and not spent:
                    os.close(self._spare.pop())
                    spent = True
                    continue
                if spent:
                    return
                self._admission.refused[Refused.FILES] += 1
                self._tell(Refused.FILES)
                self._rest(OUT_OF_FILES)
                return
            self._begin(accepted, str(peer[0]))

    def _begin(self, accepted: socket.socket, address: str) -> None:
        refused = self._admission.enter(address)
        if refused is not None:
            accepted.close()
            self._keep_spare()
            self._pace.spend(REFUSAL)
            self._tell(refused)
            return
        self._pace.spend(self._cost())
        accepted.settimeout(0)
        seat = _Seat(partial(self._left, address))
        task = self._loop.create_task(self._served(accepted, seat), name="begin a connection")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _served(self, accepted: socket.socket, seat: "_Seat") -> None:
        try:
            await self._serve(accepted, seat.leave)
        except OSError as error:  # TLS errors and time-outs too
            log.debug("connection ended in its handshake", extra={"error": type(error).__name__})
            self._admission.refused[Refused.HANDSHAKE] += 1
            seat.leave()
        except BaseException:
            seat.leave()
            raise

    def _left(self, address: str) -> None:
        self._admission.leave(address)
        self._keep_spare()

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._listening)
        self._pause = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._keep_spare()
        self._loop.add_reader(self._listening, self._accept)

    def _keep_spare(self) -> None:
        while len(self._spare) < self._spares:
            try:
                self._spare.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            except OSError as error:
                if error.errno not in _NO_FILE:
                    raise
                return  # when the next connection ends, there may be one

    def _tell(self, refused: Refused) -> None:
        now = self._loop.time()
        if now - self._told >= QUIET:
            self._told = now
            log.warning("connections are refused", extra={"kind": refused.value, "open": self._admission.open})


class _Seat:
    """The place of one connection, which it leaves once."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave: Callable[[], None] | None = leave

    def leave(self) -> None:
        if self._leave is not None:
            leave, self._leave = self._leave, None
            leave()
