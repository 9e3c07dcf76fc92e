"""How many frames a server may send on one connection: a budget that requests and time refill; no I/O, no clock.

Reading a frame takes time of the loop that everything shares, and HTTP/2 has many kinds that bring no answer forward:
PING, SETTINGS, WINDOW_UPDATE, PRIORITY, RST_STREAM, empty DATA and CONTINUATION, answers 1xx and frames unknown to us.
A server that sends more than its budget is broken or hostile; its connection is given up.
"""

from typing import Final

from eas_watcher.http2.frames import DATA, GOAWAY, KINDS, SETTINGS
from eas_watcher.http2.violations import ErrorCode, Violation

BURST: Final = 1024.0
"""Units at rest. A server spends some 100 when a connection opens; to read so many takes a few milliseconds."""
PER_SECOND: Final = 20.0
"""Units that come back; a PING each second, changes of settings and windows take less."""
PER_REQUEST: Final = 16.0
"""Units for one request: its answer takes 4, and others for windows [observed: the simulator's frames]."""
OCTETS: Final = 64
"""Octets of payload that cost a unit, for one frame can hold thousands of headers or settings. DATA costs none, for the
length of a body has its own limit, and a DATA frame with so many octets is free."""
DISCARDED: Final = 4096
"""Octets of DATA that cost a unit when no request waits for them, beside one for the frame."""
DEAR: Final = 32.0
"""Units more for a frame that may walk through all open streams, which SETTINGS and GOAWAY do."""


class Flooded(Violation):
    """The server has sent more frames than its budget allows; the text names the kind of the last one."""

    def __init__(self, kind: int) -> None:
        super().__init__(ErrorCode.ENHANCE_YOUR_CALM, KINDS[kind] if kind < len(KINDS) else f"frames of kind {kind}")


class FrameBudget:
    """The budget of one connection; moments are `loop.time()` in seconds."""

    __slots__ = ("_at", "_left")

    def __init__(self, now: float) -> None:
        self._at = now
        self._left = BURST

    def asked(self) -> None:
        """Note that a request was sent."""
        self._left += PER_REQUEST

    def refill(self, now: float, in_flight: int) -> None:
        """Add what time brings; what answered requests left unspent is lost."""
        self._left = min(self._left + (now - self._at) * PER_SECOND, BURST + in_flight * PER_REQUEST)
        self._at = now

    def spend(self, kind: int, length: int) -> None:
        """Pay for a frame of a kind [RFC 9113 6] and a length of payload. Raises Flooded."""
        if kind == DATA:
            if length >= OCTETS:
                return
            self._left -= 1.0
        else:
            self._left -= 1.0 + length // OCTETS + (DEAR if kind in {SETTINGS, GOAWAY} else 0.0)
        if self._left < 0.0:
            raise Flooded(kind)

    def discard(self, length: int) -> None:
        """Pay for DATA that no request waits for. Raises Flooded."""
        self._left -= 1.0 + length // DISCARDED
        if self._left < 0.0:
            raise Flooded(DATA)
