"""How many frames a server may send on one connection: a budget that requests and time refill; no I/O, no clock.

Reading a frame takes time of the loop that all providers share, and HTTP/2 has many kinds that bring no push forward:
PING, SETTINGS, WINDOW_UPDATE, PRIORITY, empty DATA, answers 1xx and frames unknown to us. A server that sends more than
its budget is no server of pushes, or a broken one; its connection is given up.
"""

from typing import Final

BURST: Final = 1024.0
"""Units at rest. A server of pushes spends some 100 when a connection opens; to read so many takes about 20 ms."""
PER_SECOND: Final = 20.0
"""Units that come back; a PING each second, changes of settings and windows take less."""
PER_REQUEST: Final = 16.0
"""Units for one request: its answer takes 4, and others for windows [observed: the simulator's frames]."""
BYTES: Final = 64
"""Bytes of payload that cost a unit, for one frame can hold thousands of headers or settings."""
DEAR: Final = 32.0
"""Units more for a frame that walks through all open streams, which SETTINGS and GOAWAY do."""
SETTINGS: Final = 4  # [RFC 9113 6.5]
GOAWAY: Final = 7  # [RFC 9113 6.8]


class Flooded(Exception):
    """The server has sent more frames than its budget allows; the text names the kind of the last one."""


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

    def spend(self, kind: int, length: int) -> float:
        """Pay for a frame of a kind [RFC 9113 6] and a length of payload; return its price. Raises Flooded."""
        price = 1.0 + length // BYTES + (DEAR if kind in {SETTINGS, GOAWAY} else 0.0)
        self._left -= price
        if self._left < 0.0:
            raise Flooded(KINDS.get(kind, f"frames of kind {kind}"))
        return price


KINDS: Final = {
    0: "DATA",
    1: "HEADERS",
    2: "PRIORITY",
    3: "RST_STREAM",
    SETTINGS: "SETTINGS",
    5: "PUSH_PROMISE",
    6: "PING",
    GOAWAY: "GOAWAY",
    8: "WINDOW_UPDATE",
    9: "CONTINUATION",
}
